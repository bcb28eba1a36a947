"""The Cauchy point against a walk along the path, one breakpoint at a time, on the dense B."""

from functools import cache

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import cauchy
from jaxlbfgsb.box import Box, can_move, path_end
from jaxlbfgsb.memory import empty
from jaxlbfgsb.model import model, times

every_quadratic = pytest.mark.parametrize("drawn", draw.SMALL + draw.LARGE, ids=str)
every_state = pytest.mark.parametrize("state", draw.STATES)


def search(x, g, box, memory):
    return cauchy.cauchy_point(x, g, box, model(memory), memory.YS @ cauchy.direction(x, g, box))


cauchy_point, compact, times = jax.jit(search), jax.jit(model), jax.jit(times)
can_move, path_end = jax.jit(can_move), jax.jit(path_end)


def oracle(q):
    return oracles.cauchy_point(q.x, q.g, *q.box, q.B, q.theta)


@cache
def solved(*drawn):
    """A random quadratic, what the kernel finds on it, and what the oracle does."""
    q = draw.quadratic(*drawn)
    return q, jax.tree.map(np.asarray, cauchy_point(q.x, q.g, q.box, q.memory)), oracle(q)


def distance(q, point):
    """What rounding is relative to: how far the path has moved."""
    return q.rounding * np.max(np.abs(point - q.x))


@cache
def _in_chunks(size, first):
    return jax.jit(lambda *args: search(*args))  # a new function for each size, so that it is traced again


@pytest.fixture(params=[(1, 4096), (7, 4096), (59, 4096), (1, 2), (4, 14), (3, 15)], ids=str)
def in_chunks(request, monkeypatch):
    """The Cauchy point with other numbers of breakpoints looked at together, and looked for before all are sorted."""
    for name, size in zip(("CHUNK", "FIRST"), request.param, strict=True):
        monkeypatch.setattr(cauchy, name, size)
    return _in_chunks(*request.param)


def test_random_paths_end_on_first_middle_and_last_segments():
    passed = {solved(*drawn)[2][2] for drawn in draw.SMALL if drawn[1] == 60}
    assert min(passed) == 0
    assert any(0 < few < 20 for few in passed)
    assert max(passed) > 35


def test_random_paths_pass_more_breakpoints_than_a_chunk():
    assert max(solved(*drawn)[2][2] for drawn in draw.LARGE) > cauchy.CHUNK


@every_quadratic
def test_point_is_the_first_minimizer_on_the_path(drawn):
    q, found, (expected, _, _) = solved(*drawn)
    assert_allclose(found.x, expected, rtol=0, atol=distance(q, expected))


@every_quadratic
def test_free_variables_are_those_still_on_their_way(drawn):
    _, found, (_, expected, _) = solved(*drawn)
    assert_array_equal(found.free, expected)


@every_quadratic
def test_c_is_the_move_seen_by_the_pairs(drawn):
    q, found, _ = solved(*drawn)
    B, z = compact(q.memory), found.x - q.x
    W = np.abs(np.asarray(B.scale))[:, None] * np.abs(np.asarray(q.memory.YS)).reshape(len(B.scale), -1)
    assert (np.abs(found.c - np.asarray(times(B, z))) <= q.rounding * (W @ np.abs(z))).all()


@every_quadratic
def test_rest_is_the_steepest_descent_left_to_the_free_variables(drawn):
    q, found, _ = solved(*drawn)
    B, z = compact(q.memory), found.x - q.x
    W = np.abs(np.asarray(B.scale))[:, None] * np.abs(np.asarray(q.memory.YS)).reshape(len(B.scale), -1)
    left = np.where(found.free, -q.g - q.theta * z, 0)
    passed = np.where(can_move(q.x, q.g, q.box), np.abs(q.g) + q.theta * np.abs(z), 0)  # was in the sum, too
    assert (np.abs(found.rest - np.asarray(times(B, left))) <= q.rounding * (W @ passed)).all()


@every_quadratic
def test_variables_that_have_stopped_are_exactly_on_their_bound(drawn):
    q, found, _ = solved(*drawn)
    stopped = np.asarray(can_move(q.x, q.g, q.box)) & ~found.free
    assert_array_equal(found.x[stopped], np.asarray(path_end(q.x, q.g, q.box))[stopped])


@every_quadratic
def test_variables_that_cannot_move_stay_where_they_are(drawn):
    q, found, _ = solved(*drawn)
    held = ~np.asarray(can_move(q.x, q.g, q.box)) | (q.g == 0)
    assert_array_equal(found.x[held], q.x[held])


@every_quadratic
def test_point_is_in_the_box_without_tolerance(drawn):
    q, found, _ = solved(*drawn)
    assert ((q.box.lower <= found.x) & (found.x <= q.box.upper)).all()


@every_state
def test_point_is_the_same_in_chunks_of_any_size(in_chunks, state):
    q, _, (expected, _, _) = solved(2, 60, 5, state)
    assert_allclose(in_chunks(q.x, q.g, q.box, q.memory).x, expected, rtol=0, atol=distance(q, expected))


@every_state
def test_free_variables_are_the_same_in_chunks_of_any_size(in_chunks, state):
    q, _, (_, expected, _) = solved(2, 60, 5, state)
    assert_array_equal(in_chunks(q.x, q.g, q.box, q.memory).free, expected)


@every_state
def test_all_variables_that_reach_a_bound_together_stop_together(state):
    q = draw.quadratic(0, 60, 5, state)
    g = np.where(np.arange(60) < 30, 2.0, 2.0**-30)
    box = Box(np.where(g > 1, -(2.0**-20) * g, -np.inf), np.full(60, np.inf))
    assert_array_equal(cauchy_point(np.zeros(60), g, box, q.memory).free, g < 1)


@every_state
def test_path_through_a_tiny_box_ends_in_its_corner(state):
    q = draw.quadratic(0, 60, 5, state)
    width = 1e-12 * np.arange(1, 61)
    g = np.where(np.arange(60) % 2, -1.0, 1.0)
    found = cauchy_point(np.zeros(60), g, Box(-width, width), q.memory)
    assert_array_equal(found.x, -g * width)


@every_state
def test_point_from_a_corner_is_the_first_minimizer_on_the_path(state):
    q = draw.quadratic(0, 60, 5, state)
    q = q._replace(box=Box(q.x, q.x + np.linspace(0, 0.1, 60)))
    expected, _, _ = oracle(q)
    found = cauchy_point(q.x, q.g, q.box, q.memory)
    assert_allclose(found.x, expected, rtol=0, atol=distance(q, expected))


@every_state
def test_without_bounds_the_point_is_the_minimizer_along_the_gradient(state):
    q = draw.quadratic(1, 60, 5, state)
    free = np.full(60, np.inf)
    expected = q.x - (q.g @ q.g) / (q.g @ q.B @ q.g) * q.g
    found = cauchy_point(q.x, q.g, Box(-free, free), q.memory)
    assert_allclose(found.x, expected, rtol=0, atol=distance(q, expected))


@pytest.mark.parametrize("seed", range(10))
def test_without_pairs_the_point_is_the_projected_gradient_step(seed):
    q = draw.quadratic(seed, 60, 5, "empty")
    expected = oracles.project(q.x - q.g, *q.box)
    assert_allclose(cauchy_point(q.x, q.g, q.box, q.memory).x, expected, rtol=0, atol=distance(q, expected))


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_small_gradients_keep_their_digits_when_large_ones_have_stopped(scale):
    q = draw.badly_scaled(scale)
    expected, _, _ = oracle(q)
    assert_allclose(cauchy_point(q.x, q.g, q.box, q.memory).x, expected, rtol=0, atol=distance(q, expected))


@pytest.mark.parametrize("drawn", [(seed, 60, 5, state, 10.0) for state in draw.STATES for seed in (1, 2)], ids=str)
def test_point_keeps_the_precision_of_float32(drawn):
    q, found, (expected, _, _) = solved(*drawn, np.float32)
    assert found.x.dtype == np.float32
    assert_allclose(found.x, expected, rtol=0, atol=distance(q, expected))


def test_a_model_that_is_not_positive_definite_makes_the_point_nan():
    s = jnp.array([1.0, 2.0, 0.0])
    none = jnp.full(3, jnp.inf)
    memory = draw.push(empty(3, 2, np.dtype(float)), s, -s)
    assert jnp.isnan(cauchy_point(jnp.zeros(3), jnp.ones(3), Box(-none, none), memory).x).all()
