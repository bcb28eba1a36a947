"""The solver driven from the host: sizes that are rounded up, variables that never move, the pairs at the end."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import Box, Options, Status, fmin_l_bfgs_b, host, init, objectives, solver

update = jax.jit(solver.update)


def chained(x):
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[1:] += 200 * a
    g[:-1] -= 400 * a * x[:-1] + 2 * b
    return float(100 * a @ a + b @ b), g


def solve(x0, lower, upper, m=4):
    """The runs of a solve and the points, values and gradients."""
    run, seen = host.start(x0, lower, upper, m, 2.2e-9, 1e-5, 20), []
    runs = [run]
    while run.status == Status.RUNNING:
        seen.append((run.x, *chained(run.x)))
        run = host.advance(run, host.evaluation(*seen[-1][1:]))
        runs.append(run)
    return runs, seen


@pytest.mark.parametrize("n", range(1, 300))
def test_sizes_are_rounded_up_by_a_quarter_at_most_above_64(n):
    assert n <= host.padded(n) <= host.padded(n + 1)
    assert n <= 64 or host.padded(n) <= 1.25 * n + 1


@pytest.mark.parametrize("bounded", ["all", "some", "none"])
@pytest.mark.parametrize("n", [2, 7, 8, 9])
def test_added_variables_change_nothing(n, bounded):
    x0 = np.random.RandomState(n).normal(size=n).clip(-1.5, 0.8)
    lower, upper = np.full(n, -1.5 if bounded == "all" else -np.inf), np.full(n, np.inf if bounded == "none" else 0.8)
    box = None if bounded == "none" else Box(jnp.asarray(lower), jnp.asarray(upper))
    state = init(jnp.asarray(x0), box, 4)
    while state.status == Status.RUNNING:
        f, g = chained(np.asarray(state.x))
        state = update(state, jnp.asarray(f), jnp.asarray(g), box, Options(ftol=2.2e-9))
        if state.iterations == 5:  # before rounding has grown
            break
    _, seen = solve(x0, lower, upper)
    points = [x for x, *_ in seen]
    assert np.min(np.abs(points - np.asarray(state.x)).max(axis=1)) < 1e-9  # the end is no new point


@pytest.mark.parametrize("n", [3, 8])
def test_pairs_are_the_last_ones_but_that_of_the_end_oldest_first(n):
    x0 = np.resize([-1.2, 1.0], n)
    runs, seen = solve(x0, np.full(n, -np.inf), np.full(n, np.inf))
    accepted = [i for i in range(len(seen)) if i == 0 or runs[i + 1].iterations > runs[i].iterations]
    S, Y = host.pairs_used(runs[-2].reply, runs[-1])
    steps = [(seen[j][0] - seen[i][0], seen[j][2] - seen[i][2]) for i, j in pairwise(accepted)]
    assert len(S) == 4 < len(steps)
    assert_allclose(S, [s for s, _ in steps[-5:-1]], rtol=1e-6, atol=1e-12)
    assert_allclose(Y, [y for _, y in steps[-5:-1]], rtol=1e-12)


@pytest.fixture
def forgotten():
    """Programs and devices made in the test are of the test alone."""
    caches = host.device, host._programs, objectives._program
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("objective", [chained, lambda x: jnp.sum((x - 2.0) ** 4)])
def test_without_a_client_of_its_own_it_ends_the_same(objective, forgotten, monkeypatch):
    call = partial(fmin_l_bfgs_b, objective, np.zeros(3), bounds=[(None, 1.5)] * 3)
    x, f, d = call()
    assert host.device().client is not jax.devices("cpu")[0].client

    def missing(**_):
        raise TypeError("make_cpu_client() got an unexpected keyword argument 'asynchronous'")

    monkeypatch.setattr("jaxlib.xla_client.make_cpu_client", missing)
    for cache in (host.device, host._programs, objectives._program):
        cache.cache_clear()
    again = call()
    assert host.device() == jax.devices("cpu")[0]
    assert_array_equal(again[0], x)
    assert (again[1], again[2]["funcalls"], again[2]["task"]) == (f, d["funcalls"], d["task"])


def test_options_that_a_compiler_does_not_know_are_left_out():
    assert_allclose(host.compiled(jnp.sin, {"xla_no_such_option": True}, 1.0)(1.0), np.sin(1.0))


def test_other_errors_of_the_compiler_come_through():
    def broken(x):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        host.compiled(broken, host.LEAN, 1.0)
