"""One kernel: what is marked, that it changes nothing, and where the mark is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import printed
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from jaxlbfgsb import Options, argmin, kernel, loop, minimize

MARK = "xla_cpu_small_call"


def smooth(x, shift):
    return jnp.sum(jnp.cosh(x - shift)) + jnp.sum(x[1:] * x[:-1]) / 4


def lowered(form, n, m, dtype, bounded, options):
    """The program of a solve with this form, and its arguments."""
    x = jnp.asarray(np.random.default_rng(n).normal(size=n), dtype)

    def run(x, options):
        bounds = (x - 1, x + dtype(0.3)) if bounded else None
        return minimize(
            lambda x, shift: smooth(x, shift), x, (dtype(0.3),), bounds=bounds, memory_size=m, options=options
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "form", form)
        return jax.jit(run).lower(x, options), (x, options)


@pytest.mark.parametrize(
    ("n", "m", "dtype", "bounded"),
    [
        (1, 1, np.float64, True),
        (1, 30, np.float32, True),
        (5, 10, np.float64, False),
        (13, 7, np.float32, True),
        (32, 16, np.float64, True),
        (150, 10, np.float32, False),
    ],
)
def test_one_kernel_changes_no_result(n, m, dtype, bounded):
    options = Options(ftol=dtype(0.0), gtol=dtype(1e-3), max_iterations=jnp.asarray(50))
    form, plain = loop.form, lambda opening, *of: loop.plain(opening(*of), *of[1:])
    programs = [lowered(form, n, m, dtype, bounded, options) for form in (form, plain)]
    assert [MARK in program.as_text() for program, _ in programs] == [True, False]
    one, many = (program.compile()(*arguments) for program, arguments in programs)
    assert_allclose(one.x, many.x, atol=1e-4 if dtype is np.float32 else 1e-9)
    assert (one.iterations, one.status) == (many.iterations, many.status)


@pytest.mark.parametrize(
    ("n", "m", "bounded", "expected"),
    [
        *[(4, 10, True, True), (20, 10, True, True), (21, 10, True, False), (40, 30, True, False)],
        *[(150, 10, False, True), (300, 10, False, False), (5, 500, False, False)],
    ],
)
def test_few_variables_are_one_kernel(n, m, bounded, expected):
    assert (MARK in lowered(loop.form, n, m, np.float64, bounded, Options())[0].as_text()) == expected


def test_the_mark_is_for_a_jaxlib_that_it_was_tried_with():
    assert kernel.possible()  # else try it: the list in kernel.py, then TRIED


def test_a_batch_is_not_one_kernel():
    def solve(x):
        return minimize(lambda x: smooth(x, 0.3), x, bounds=(-1, 1)).x

    starts = jnp.linspace(-1, 1, 15).reshape(5, 3)
    assert MARK in jax.jit(solve).lower(starts[0]).as_text()
    for batch in jax.jit(jax.vmap(solve)), jax.jit(jax.vmap(jax.jit(solve))):
        program = batch.lower(starts)
        assert MARK not in program.as_text()
        assert_allclose(program.compile()(starts), jnp.stack([solve(x) for x in starts]), atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12))
def test_product_in_a_kernel(seed, k, n):
    random = np.random.default_rng(seed)
    A, B = random.normal(size=(k, n)), random.normal(size=(n, n))
    assert_allclose(kernel.one_kernel(kernel.product)(jnp.asarray(A), jnp.asarray(B)), A @ B, atol=1e-12)


def test_one_kernel_under_vmap_with_an_argument_for_all():
    A, b = jnp.arange(24.0).reshape(4, 2, 3), jnp.arange(3.0)
    found = jax.vmap(kernel.one_kernel(lambda A, b: (A @ b, b + 1)), in_axes=(0, None))(A, b)
    assert_allclose(found[0], A @ b)
    assert_allclose(found[1], jnp.broadcast_to(b + 1, (4, 3)))


def test_other_devices_have_no_mark():
    def solve(x):
        return minimize(lambda x: smooth(x, 0.3), x).x

    assert MARK not in jax.jit(solve).trace(jnp.ones(3)).lower(lowering_platforms=("cuda",)).as_text()


SHARDED = """
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jax.sharding import NamedSharding, PartitionSpec
from jaxlbfgsb import minimize
solve = jax.jit(lambda x: minimize(lambda x: jnp.sum(jnp.cosh(x - 0.3)), x, bounds=(-1, 2)).x)
x = jnp.ones(4)
split = jax.device_put(x, NamedSharding(jax.make_mesh((4,), ("n",)), PartitionSpec("n")))
print(jnp.abs(solve(split) - solve(x)).max())
"""


def test_few_variables_over_four_devices():
    assert float(printed(SHARDED, 4)) < 1e-12


@pytest.mark.parametrize("older", [True, False])
def test_in_a_box_outside_of_jit_it_is_one_kernel_if_that_compiles_faster(monkeypatch, older):
    formed = []
    monkeypatch.setattr(loop, "form", lambda opening, *of: formed.append(of[1]) or loop.plain(opening(*of), *of[1:]))
    monkeypatch.setattr(argmin, "OLDER", older)
    for solve in (jax.jit(minimize, static_argnums=0), minimize):
        solve(lambda x: smooth(x, 0.3), jnp.ones(3), bounds=(-1, 2))
        minimize(lambda x: smooth(x, 0.3), jnp.ones(3))
    assert [box is None for box in formed] == [False, True, *[False] * (not older), True]
