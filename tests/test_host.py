"""The solver driven from the host: its program is for more variables than there are, and nobody can tell."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import Box, Options, Status, host, init, solver

SIZES = (1, 2, 7, 8, 9, 17, 65)
EACH_SIZE = pytest.mark.parametrize("n", SIZES)
M, FTOL, GTOL, MAXLS = 10, 1e7 * np.finfo(float).eps, 1e-5, 20

update = jax.jit(solver.update)


# padded


def test_padded_sizes_hold_the_variables():
    assert all(host.padded(n) >= n for n in range(1, 5000))


def test_padded_sizes_grow_with_the_number_of_variables():
    sizes = [host.padded(n) for n in range(1, 5000)]
    assert sizes == sorted(sizes)


def test_padded_sizes_up_to_64_are_powers_of_two():
    assert sorted({host.padded(n) for n in range(1, 65)}) == [8, 16, 32, 64]


def test_padded_sizes_beyond_64_are_at_most_a_quarter_more():
    assert all(host.padded(n) <= 1.25 * n for n in range(65, 5000))


def test_padded_sizes_are_their_own():
    assert all(host.padded(host.padded(n)) == host.padded(n) for n in range(1, 5000))


def test_padded_sizes_are_few():
    assert len({host.padded(n) for n in range(65, 1025)}) <= 4 * 4


# Padding is inert


def chain(x):
    """A chain of quartics, (f, g): each variable is held by its neighbours and by a number of its own."""
    own = x - np.linspace(-1, 2, x.size)
    link = np.diff(x)
    g = own**3 + own
    g[1:] += link
    g[:-1] -= link
    return float(np.sum(own**4 / 4 + own**2 / 2) + np.sum(link**2) / 2), g


def box(kind, n):
    """The bounds of that kind; those that are there hold some of the variables."""
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    if kind in ("lower", "both", "all but one"):
        lower[:] = -0.5
    if kind in ("both", "all but one"):
        upper[:] = 1.0
    if kind == "all but one":
        upper[-1] = np.inf
    return lower, upper


KINDS = ("free", "lower", "both", "all but one")
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@cache
def hosts(n, kind):
    """The host's run: where it asked for f and g, and its last state."""
    lower, upper = box(kind, n)
    run = host.start(np.clip(np.full(n, 1.5), lower, upper), lower, upper, M, FTOL, GTOL, MAXLS)
    points = []
    while run.status == Status.RUNNING:
        points.append(run.x)
        run = host.advance(run, host.evaluation(*chain(run.x)))
    return np.array(points), run


@cache
def solvers(n, kind):
    """The same of the solver, for n variables."""
    bounds = Box(*map(jnp.asarray, box(kind, n)))
    state = init(jnp.clip(jnp.full(n, 1.5), *bounds), bounds, M)
    points = []
    while state.status == Status.RUNNING:
        points.append(np.asarray(state.x))
        f, g = chain(points[-1])
        state = update(state, jnp.asarray(f), jnp.asarray(g), bounds, Options(FTOL, GTOL, max_linesearch=MAXLS))
    return np.array(points), state


@EACH_SIZE
@EACH_KIND
def test_points_are_those_of_scipy(n, kind):
    points, bounds = [], np.transpose(box(kind, n))

    def func(x):
        points.append(x.copy())
        return chain(x)

    fmin_l_bfgs_b(func, np.full(n, 1.5), bounds=bounds)
    assert_allclose(hosts(n, kind)[0], points, rtol=1e-9, atol=1e-9)


@EACH_SIZE
@EACH_KIND
def test_iterations_and_end_are_those_of_scipy(n, kind):
    x, _, found = fmin_l_bfgs_b(chain, np.full(n, 1.5), bounds=np.transpose(box(kind, n)))
    _, run = hosts(n, kind)
    assert run.iterations == found["nit"]
    assert_allclose(run.x, x, rtol=1e-9, atol=1e-9)


@EACH_SIZE
@pytest.mark.parametrize("kind", ["free", "both"])
def test_points_are_those_of_the_solver_without_padding(n, kind):
    assert_allclose(hosts(n, kind)[0], solvers(n, kind)[0], rtol=1e-11, atol=1e-11)


@EACH_SIZE
@pytest.mark.parametrize("kind", ["free", "both"])
def test_status_and_iterations_are_those_of_the_solver_without_padding(n, kind):
    (_, run), (_, state) = hosts(n, kind), solvers(n, kind)
    assert (run.status, run.iterations) == (int(state.status), int(state.iterations))


@EACH_SIZE
@EACH_KIND
def test_variables_that_were_added_never_move(n, kind):
    _, run = hosts(n, kind)
    k = host.padded(n)
    assert_array_equal(run.reply[host.READS + n : host.READS + k], 0)
    assert_array_equal(np.asarray(run.pairs)[:, :, n:], 0)


def test_one_program_is_for_all_sizes_that_are_padded_alike():
    hosts(8, "free")
    before = host._programs.cache_info().misses
    for n in (1, 2, 7, 8):
        host.start(np.zeros(n), np.full(n, -1.0), np.full(n, 1.0), M, FTOL, GTOL, MAXLS)
    assert host._programs.cache_info().misses == before


def test_nothing_is_compiled_for_a_size_that_was_used(monkeypatch):
    hosts(8, "free")
    monkeypatch.setattr(host, "_compile", None)
    hosts.__wrapped__(5, "both")


# The pairs


def iterates(steps, memory_size, x0=(-1.2, 1.0)):
    """The points that steps take a valley's run to, and what `pairs_used` wants: the last reply but one and the run."""

    def valley(x):
        d = x[1] - x[0] ** 2
        return 100 * d**2 + (1 - x[0]) ** 2, np.array([-400 * x[0] * d - 2 * (1 - x[0]), 200 * d])

    free = np.full(2, np.inf)
    run = host.start(np.array(x0), -free, free, memory_size, 0.0, 0.0, MAXLS)
    path, slopes, asked, reply = [], [], run.x, run.reply
    while len(path) <= steps:
        asked, reply = run.x, run.reply
        f, g = valley(asked)
        run = host.advance(run, host.evaluation(f, g))
        if run.iterations == len(path):
            path.append(asked)
            slopes.append(g)
    return np.array(path), np.array(slopes), reply, run


@pytest.mark.parametrize("memory_size", [3, 10])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 9, 12])
def test_pairs_used_are_the_newest_before_the_last_step_in_the_order_of_time(steps, memory_size):
    path, slopes, reply, run = iterates(steps, memory_size)
    S, Y = host.pairs_used(reply, run)
    assert_allclose(S, np.diff(path, axis=0)[:-1][-memory_size:], rtol=1e-12)
    assert_allclose(Y, np.diff(slopes, axis=0)[:-1][-memory_size:], rtol=1e-12)


def test_no_pairs_are_used_before_the_first_step():
    _, _, reply, run = iterates(0, 3)
    S, Y = host.pairs_used(reply, run)
    assert (S.shape, Y.shape) == ((0, 2), (0, 2))


def test_pairs_used_leave_the_run_as_it_is():
    _, _, reply, run = iterates(6, 3)
    before = np.array(run.pairs)
    host.pairs_used(reply, run)
    assert_array_equal(run.pairs, before)


# The buffers


def test_a_state_travels_as_two_arrays_and_comes_back_with_one_more():
    _, run = hosts(2, "free")
    assert run.update.in_tree.num_leaves == 4  # with the problem, and f and g
    assert run.update.out_tree.num_leaves == 3


def test_pairs_and_numbers_are_written_in_place():
    free = np.full(2, np.inf)
    run = host.start(np.ones(2), -free, free, M, FTOL, GTOL, MAXLS)
    host.advance(run, host.evaluation(*chain(run.x)))
    assert run.pairs.is_deleted()
    assert run.numbers.is_deleted()


def test_the_reply_of_a_run_outlives_it():
    free = np.full(2, np.inf)
    run = host.start(np.ones(2), -free, free, M, FTOL, GTOL, MAXLS)
    second = host.advance(run, host.evaluation(*chain(run.x)))
    reply = second.reply.copy()
    host.advance(second, host.evaluation(*chain(second.x)))
    assert_array_equal(second.reply, reply)


def test_x_is_a_new_array_every_time():
    _, run = hosts(2, "free")
    x = run.x
    x[:] = np.nan
    assert np.isfinite(run.x).all()


@pytest.mark.parametrize("x64", [True, False])
def test_runs_are_in_float64_and_leave_the_flag_alone(x64):
    with jax.enable_x64(x64):
        points, run = hosts.__wrapped__(2, "free")
        assert jax.config.jax_enable_x64 is x64
    assert_array_equal(points, hosts(2, "free")[0])
    assert run.pairs.dtype == run.reply.dtype == np.float64


@pytest.mark.parametrize("number", [3.5, np.inf, -np.inf, np.nan])
def test_an_evaluation_is_f_and_g_and_zeros(number):
    assert_array_equal(host.evaluation(number, np.array([1.0, 2.0])), [number, 1, 2, 0, 0, 0, 0, 0, 0])
