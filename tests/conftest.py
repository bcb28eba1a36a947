"""Every test runs in JAX's strict mode: 64 bits, no silent broadcasting over ranks, no silent promotion of dtypes."""

import jax
import pytest
from hypothesis import settings

pytest.register_assert_rewrite("beside_scipy")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# No deadline: the first example of a test compiles. The same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees what a module has compiled: each program maps pieces of memory, of which a process may have 65,530."""
    yield
    jax.clear_caches()
