"""What minimize compiles to: how much, how often, in how much memory."""

import subprocess
import sys

import hlo
import jax
import jax.numpy as jnp
import pytest
from devices import printed

from jaxlbfgsb import cauchy, loop, minimize


def compiled(fun, n, **options):
    x = jnp.zeros(n)
    program = jax.jit(lambda x, lower, upper: minimize(fun, x, bounds=(lower, upper), **options))
    return program.lower(x, x - 1, x + 1).compile()


def square(x):
    return jnp.sum((x - 0.3) ** 2)


def test_loop_body_of_few_variables_is_the_objective_and_one_kernel():
    found = hlo.loop_instructions(compiled(square, 10).as_text())
    assert found["call"] == 1
    assert found.total() == 4


def test_loop_body_has_at_most_100_instructions(monkeypatch):
    monkeypatch.setattr(loop, "possible", lambda: False)
    assert hlo.loop_instructions(compiled(lambda x: square(x), 10).as_text()).total() <= 100


def test_large_problem_fits_in_40_vectors():
    n, m = 1_000_000, 10
    memory = compiled(square, n).memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes <= (2 * m + 20) * 8 * n


PEAK = """
import resource
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jaxlbfgsb import Options, minimize
from jaxlbfgsb.argmin import LEAN
n = 1_000_000
def chained(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
x, lower, upper = jnp.cos(jnp.arange(n) * 1.0) * 0.3, jnp.full(n, -0.5), 0.5 + jnp.sin(jnp.arange(n) * 1.0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
solve = lambda x, *bounds: minimize(chained, x, bounds=bounds, options=Options(max_iterations=8))
solve = jax.jit(solve, compiler_options=LEAN).lower(x, lower, upper).compile()  # which takes memory of its own
before = peak()
jax.block_until_ready(solve(x, lower, upper))
print(peak() - before)
"""


@pytest.mark.slow
def test_a_large_run_takes_at_most_40_vectors():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 1024 * int(done.stdout) <= 40 * 8 * 1_000_000


def test_the_first_breakpoints_are_selected_and_not_sorted():
    n = 20_000
    text = jax.jit(cauchy._first).lower(jnp.zeros(n)).compile().as_text()
    assert "TopK" in text
    assert f"[{n}]" not in "".join(line for line in text.splitlines() if " sort(" in line)


SHARDED = """
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jaxlbfgsb import minimize, partition
partition.OUTSIDE = 1
place = jax.NamedSharding(jax.make_mesh((2,), ("variables",)), jax.P("variables"))
x = jax.device_put(jnp.zeros(20_000), place)
solve = lambda x: minimize(lambda x: jnp.sum((x - jnp.linspace(-1, 1, 20_000)) ** 2), x, bounds=(0.0, None))
print(*(line.split()[2] for line in jax.jit(solve).lower(x).compile().as_text().splitlines() if "all-gather(" in line))
"""


def test_pairs_that_are_split_between_devices_stay_where_they_are():
    assert "[2,10" not in printed(SHARDED, 2)
