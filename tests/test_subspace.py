"""The subspace minimum against one dense solve, and the way back into the box against its rule."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import subspace
from jaxlbfgsb.box import Box
from jaxlbfgsb.cauchy import CauchyPoint
from jaxlbfgsb.memory import empty
from jaxlbfgsb.model import model, times

EPS = np.finfo(float).eps
every_quadratic = pytest.mark.parametrize("drawn", draw.SMALL + draw.LARGE, ids=str)
every_state = pytest.mark.parametrize("state", draw.STATES)


def on_numpy(kernel):
    """The compiled kernel, its result as NumPy's."""
    compiled = jax.jit(kernel)
    return lambda *args: np.asarray(compiled(*args))


target = on_numpy(subspace.target)


def solve(x, g, point, free, memory):
    B = model(memory)
    rest = times(B, jnp.where(free, -g - B.theta * (point - x), 0))
    return subspace.subspace_step(x, g, CauchyPoint(point, times(B, point - x), free, rest), B)


step = on_numpy(solve)


def some_point(q):
    """A point of the box and a set of free variables that no Cauchy search has chosen."""
    rng = np.random.default_rng(3)
    point = oracles.project(q.x + rng.normal(size=len(q.x)) / 8, *q.box).astype(q.x.dtype)
    return point, rng.random(len(q.x)) < rng.choice([0.1, 0.5, 0.9])


@every_quadratic
def test_step_from_the_cauchy_point_solves_on_its_free_variables(drawn):
    q = draw.quadratic(*drawn)
    point, free, _ = oracles.cauchy_point(q.x, q.g, *q.box, q.B, q.theta)
    expected = oracles.subspace_step(q.x, q.g, point, free, q.B)
    assert_allclose(step(q.x, q.g, point, free, q.memory), expected, rtol=0, atol=draw.step_error(q, point, expected))


@every_quadratic
def test_step_from_any_point_solves_on_any_free_variables(drawn):
    q = draw.quadratic(*drawn)
    point, free = some_point(q)
    expected = oracles.subspace_step(q.x, q.g, point, free, q.B)
    assert_allclose(step(q.x, q.g, point, free, q.memory), expected, rtol=0, atol=draw.step_error(q, point, expected))


@every_quadratic
def test_step_leaves_the_other_variables_alone(drawn):
    q = draw.quadratic(*drawn)
    point, free = some_point(q)
    assert not step(q.x, q.g, point, free, q.memory)[~free].any()


@every_state
def test_step_with_all_variables_free_is_newtons(state):
    q = draw.quadratic(1, 60, 5, state, 1e4)
    expected = np.linalg.solve(q.B, -q.g)
    found = step(q.x, q.g, q.x, np.ones(60, bool), q.memory)
    assert_allclose(found, expected, rtol=0, atol=draw.step_error(q, q.x, expected))


@every_state
def test_step_with_no_variable_free_is_zero(state):
    q = draw.quadratic(1, 60, 5, state)
    assert_array_equal(step(q.x, q.g, q.x, np.zeros(60, bool), q.memory), np.zeros(60))


@every_state
def test_step_keeps_the_precision_of_float32(state):
    q = draw.quadratic(1, 60, 5, state, 10.0, np.float32)
    point, free = some_point(q)
    found, expected = step(q.x, q.g, point, free, q.memory), oracles.subspace_step(q.x, q.g, point, free, q.B)
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=0, atol=draw.step_error(q, point, expected))


@every_state
def test_step_solves_where_the_held_variables_moved_little(state):
    q = draw.quadratic(0, 60, 5, state)
    free = np.arange(60) < 57
    shrunk = np.where(free, 1, 1e-8)  # a congruence: the pairs of diag(shrunk)⁻¹ B diag(shrunk)⁻¹, curved as before
    pairs = [(s * shrunk, y / shrunk) for s, y in q.pairs]
    memory = empty(60, 5, np.dtype(float))
    for s, y in pairs:
        memory = draw.push(memory, s, y)
    B = oracles.dense_hessian(pairs, oracles.newest_theta(pairs), 60)
    expected = oracles.subspace_step(q.x, q.g, q.x, free, B)
    found = step(q.x, q.g, q.x, free, memory)
    condition = np.linalg.cond(B[np.ix_(free, free)])
    assert_allclose(found, expected, rtol=0, atol=1000 * EPS * condition * np.linalg.norm(expected))


def test_a_reduced_matrix_that_is_not_positive_definite_makes_the_step_nan():
    s, free = jnp.array([1.0, 2.0, 0.0]), np.array([True, True, False])
    memory = draw.push(empty(3, 2, np.dtype(float)), s, -s)
    assert np.isnan(step(np.zeros(3), np.ones(3), np.zeros(3), free, memory)[free]).all()


def drawn_step(seed, dtype=np.float64):
    """x, g, a point of the box, a step from there and the free variables, where the step leaves the box."""
    rng = np.random.default_rng(seed)
    x, g, box = draw.kinked(rng, 60, dtype)
    point = oracles.project(x + rng.normal(size=60) / 8, *box).astype(dtype)
    free = (box.lower < point) & (point < box.upper) & (rng.random(60) < 0.8)
    d = np.where(free, rng.normal(size=60) * 10 ** rng.uniform(-3, 1), 0).astype(dtype)
    return x, g, point, d, free, box


def expected_target(x, g, point, d, free, box):
    return oracles.target(x, g, point, d, free, *box)


def truncated(x, g, point, d, free, box):
    """Whether the step is cut short instead of projected, and whether a bound is what cuts it."""
    full = np.where(free, oracles.project(point + d, *box), point)
    met = (free & ((full == box.lower) | (full == box.upper))).any()
    return met and g @ (full - x) > 0


SEEDS = range(30)
TRUNCATED = [seed for seed in range(60) if truncated(*drawn_step(seed))]


@pytest.mark.parametrize("branch", [10, 100])
@pytest.mark.parametrize("seed", SEEDS)
def test_target_is_projected_or_cut_by_the_rule(seed, branch, monkeypatch):
    monkeypatch.setattr(subspace, "BRANCH", branch)
    target = jax.jit(lambda *args: subspace.target(*args))
    _, _, point, d, _, _ = drawn = drawn_step(seed)
    moved = np.abs(point) + np.abs(d)
    assert (np.abs(target(*drawn) - expected_target(*drawn)) <= 4 * EPS * moved).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", SEEDS)
def test_target_is_in_the_box_without_tolerance(seed, dtype):
    drawn = drawn_step(seed, dtype)
    found, box = target(*drawn), drawn[-1]
    assert ((box.lower <= found) & (found <= box.upper)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_target_leaves_the_other_variables_at_the_cauchy_point(seed):
    _, _, point, _, free, _ = drawn = drawn_step(seed)
    assert_array_equal(target(*drawn)[~free], point[~free])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", TRUNCATED)
def test_target_that_is_cut_has_what_it_met_exactly_on_a_bound(seed, dtype):
    _, _, _, _, free, box = drawn = drawn_step(seed, dtype)
    found = target(*drawn)
    assert (free & ((found == box.lower) | (found == box.upper))).any()


@pytest.mark.parametrize("seed", TRUNCATED)
def test_target_that_is_cut_has_every_tied_variable_exactly_on_its_bound(seed):
    x, g, point, d, free, box = drawn_step(seed)
    tied = free & (np.arange(60) % 2 == 0) & np.isfinite(box.upper)
    d = np.where(tied, 8 * (box.upper - point), d / 1e6)  # all of them at an eighth of the step
    g = np.where(tied, 1.0, 0.0)  # uphill, so that the step is cut
    assert_array_equal(target(x, g, point, d, free, box)[tied], box.upper[tied])


def test_target_meets_no_bound_where_there_is_none():
    none, rng = np.full(60, np.inf), np.random.default_rng(0)
    x, g, d = rng.normal(size=(3, 60))
    assert_array_equal(target(x, g, x, d, np.ones(60, bool), Box(-none, none)), x + d)
