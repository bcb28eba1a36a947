"""The kernels for few variables, against the oracles and against those for many."""

from functools import cache
from typing import NamedTuple

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import cauchy, dense, subspace
from jaxlbfgsb.box import can_move, path_end
from jaxlbfgsb.memory import empty
from jaxlbfgsb.model import model

every_quadratic = pytest.mark.parametrize("drawn", draw.SMALL, ids=str)
holding_pairs = pytest.mark.parametrize(
    "drawn", [drawn for drawn in draw.SMALL if drawn[3] not in draw.WITHOUT_PAIRS], ids=str
)
in_float32 = pytest.mark.parametrize("drawn", [(0, 4, 12, state, 10.0, np.float32) for state in draw.STATES], ids=str)
can_move, path_end = jax.jit(can_move), jax.jit(path_end)


@jax.jit
def for_few(x, g, box, memory):
    B, theta = dense.hessian(memory)
    point, gradient, free = dense.cauchy_point(x, g, box, B, theta)
    return Found(B, point, gradient, free, dense.subspace_step(gradient, free, B))


@jax.jit
def for_many(x, g, box, memory):
    B = model(memory)
    found = cauchy.cauchy_point(x, g, box, B, memory.YS @ cauchy.direction(x, g, box))
    return found, subspace.subspace_step(x, g, found, B)


class Found(NamedTuple):
    """B, the Cauchy point, the model's gradient there, the free variables, and the step from there."""

    B: np.ndarray
    point: np.ndarray
    gradient: np.ndarray
    free: np.ndarray
    step: np.ndarray


@cache
def solved(*drawn):
    """A random quadratic and what the kernels find on it."""
    q = draw.quadratic(*drawn)
    return q, jax.tree.map(np.asarray, for_few(q.x, q.g, q.box, q.memory))


@cache
def solved_as_many(*drawn):
    q = draw.quadratic(*drawn)
    return jax.tree.map(np.asarray, for_many(q.x, q.g, q.box, q.memory))


def oracle(q):
    return oracles.cauchy_point(q.x, q.g, *q.box, q.B, q.theta)


def distance(q, point):
    """What rounding is relative to: how far the path has moved."""
    return q.rounding * np.max(np.abs(point - q.x))


@every_quadratic
def test_hessian_equals_the_outer_products(drawn):
    q, found = solved(*drawn)
    assert_allclose(found.B, q.B, rtol=0, atol=q.rounding * q.peak)


@holding_pairs
def test_secant_equation_holds_for_the_newest_pair(drawn):
    q, found = solved(*drawn)
    s, y = q.pairs[-1]
    assert_allclose(found.B @ s, y, rtol=0, atol=q.rounding * q.peak * np.linalg.norm(s))


@pytest.mark.parametrize("state", draw.WITHOUT_PAIRS)
def test_without_pairs_the_hessian_is_the_identity(state):
    assert_array_equal(solved(0, 4, 12, state)[1].B, np.eye(4))


@in_float32
def test_hessian_keeps_the_precision_of_float32(drawn):
    q, found = solved(*drawn)
    assert found.B.dtype == np.float32
    assert_allclose(found.B, q.B, rtol=0, atol=q.rounding * q.peak)


def test_hessian_of_a_pair_of_negative_curvature_is_nan():
    s = jnp.array([1.0, 2.0, 0.0])
    assert jnp.isnan(dense.hessian(draw.push(empty(3, 2, np.dtype(float)), s, -s))[0]).all()


@every_quadratic
def test_cauchy_point_is_the_first_minimizer_on_the_path(drawn):
    (q, found), (expected, _, _) = solved(*drawn), oracle(draw.quadratic(*drawn))
    assert_allclose(found.point, expected, rtol=0, atol=distance(q, expected))


@every_quadratic
def test_free_variables_are_those_still_on_their_way(drawn):
    q, found = solved(*drawn)
    assert_array_equal(found.free, oracle(q)[1])


@every_quadratic
def test_gradient_at_the_cauchy_point_is_that_of_the_model(drawn):
    q, found = solved(*drawn)
    z = found.point - q.x
    scale = np.linalg.norm(q.g) + q.peak * np.linalg.norm(z)
    assert_allclose(found.gradient, q.g + q.B @ z, rtol=0, atol=q.rounding * scale)


@every_quadratic
def test_variables_that_have_stopped_are_exactly_on_their_bound(drawn):
    q, found = solved(*drawn)
    stopped = np.asarray(can_move(q.x, q.g, q.box)) & ~found.free
    assert_array_equal(found.point[stopped], np.asarray(path_end(q.x, q.g, q.box))[stopped])


@every_quadratic
def test_cauchy_point_is_in_the_box_without_tolerance(drawn):
    q, found = solved(*drawn)
    assert ((q.box.lower <= found.point) & (found.point <= q.box.upper)).all()


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_small_gradients_keep_their_digits_when_large_ones_have_stopped(scale):
    q = draw.badly_scaled(scale)
    expected, _, _ = oracle(q)
    found = for_few(q.x, q.g, q.box, q.memory)
    assert_allclose(found.point, expected, rtol=0, atol=distance(q, expected))


@in_float32
def test_cauchy_point_keeps_the_precision_of_float32(drawn):
    (q, found), (expected, _, _) = solved(*drawn), oracle(draw.quadratic(*drawn))
    assert found.point.dtype == np.float32
    assert_allclose(found.point, expected, rtol=0, atol=distance(q, expected))


@every_quadratic
def test_subspace_step_solves_on_the_free_variables(drawn):
    q, found = solved(*drawn)
    expected = oracles.subspace_step(q.x, q.g, found.point, found.free, q.B)
    assert_allclose(found.step, expected, rtol=0, atol=draw.step_error(q, found.point, expected))


@every_quadratic
def test_subspace_step_leaves_the_other_variables_alone(drawn):
    _, found = solved(*drawn)
    assert not found.step[~found.free].any()


def test_subspace_step_of_an_indefinite_matrix_is_nan():
    B = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    assert jnp.isnan(dense.subspace_step(jnp.ones(2), jnp.array([True, True]), B)).all()


@every_quadratic
def test_cauchy_point_agrees_with_the_one_for_many_variables(drawn):
    (q, few), (many, _) = solved(*drawn), solved_as_many(*drawn)
    assert_allclose(few.point, many.x, rtol=0, atol=distance(q, many.x))


@every_quadratic
def test_free_variables_agree_with_those_for_many_variables(drawn):
    (_, few), (many, _) = solved(*drawn), solved_as_many(*drawn)
    assert_array_equal(few.free, many.free)


@every_quadratic
def test_subspace_step_agrees_with_the_one_for_many_variables(drawn):
    (q, few), (many, step) = solved(*drawn), solved_as_many(*drawn)
    assert_allclose(few.step, step, rtol=0, atol=draw.step_error(q, many.x, step))
