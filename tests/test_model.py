"""B in compact form against B by outer products."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import memory as mem
from jaxlbfgsb.model import combine, forward, model, signs, solve, times

SHAPES = [(1, 1), (4, 12), (60, 5), (500, 8)]
HOLDING = [state for state in draw.STATES if state not in ("empty", "forgotten")]

every_shape = pytest.mark.parametrize(("n", "m"), SHAPES)
every_state = pytest.mark.parametrize("state", draw.STATES)
holding = pytest.mark.parametrize("state", HOLDING)
conditions = pytest.mark.parametrize("condition", [1e2, 1e8])


@jax.jit
def product(memory, v):
    """B v."""
    B = model(memory)
    return memory.theta * v - combine(B, solve(B.F, times(B, v)))


def drawn(n, m, state, condition=100.0, dtype=np.float64):
    return draw.memory(np.random.default_rng(n + 7 * m), n, m, state, condition, dtype)


def dense(pairs, n):
    return oracles.dense_hessian(pairs, oracles.newest_theta(pairs), n)


@every_shape
@every_state
@conditions
def test_product_equals_that_of_the_outer_products(n, m, state, condition):
    memory, pairs = drawn(n, m, state, condition)
    B, v = dense(pairs, n), np.random.default_rng(0).normal(size=n)
    assert_allclose(product(memory, v), B @ v, atol=draw.tolerance(B) * np.linalg.norm(B, 2) * np.linalg.norm(v))


@every_shape
@holding
@conditions
def test_secant_equation_holds_for_the_newest_pair(n, m, state, condition):
    memory, pairs = drawn(n, m, state, condition)
    s, y = pairs[-1]
    B = dense(pairs, n)
    assert_allclose(product(memory, s), y, atol=draw.tolerance(B) * np.linalg.norm(B, 2) * np.linalg.norm(s))


@every_state
def test_product_keeps_the_precision_of_float32(state):
    memory, pairs = drawn(60, 5, state, 10.0, np.float32)
    B, v = dense(pairs, 60), np.random.default_rng(0).normal(size=60).astype(np.float32)
    found = product(memory, v)
    assert found.dtype == np.float32
    assert_allclose(found, B @ v, atol=draw.tolerance(B, v.dtype) * np.linalg.norm(B, 2) * np.linalg.norm(v))


@pytest.mark.parametrize("state", ["empty", "forgotten"])
def test_without_pairs_the_product_is_the_vector_itself(state):
    memory, _ = drawn(60, 5, state)
    v = np.random.default_rng(0).normal(size=60)
    assert_array_equal(product(memory, v), v)


@every_state
def test_leftovers_in_rows_without_a_pair_do_not_matter(state):
    memory, _ = drawn(4, 12, state)
    dead = ~mem.live(memory)
    littered = memory._replace(
        YS=jnp.where(dead[None, :, None], 1e100, memory.YS),
        gram=jnp.where(dead[None, :, None] | dead[None, None, :], -1e100, memory.gram),
    )
    assert_array_equal(product(littered, jnp.ones(4)), product(memory, jnp.ones(4)))


@every_shape
@holding
def test_factor_solves_with_the_middle_matrix(n, m, state):
    memory, pairs = drawn(n, m, state)
    B = jax.jit(model)(memory)
    rows = np.argsort(mem.age(memory))[: len(pairs)][::-1]
    both = np.concatenate([rows, m + rows])
    v = np.zeros(2 * m)
    v[both] = np.random.default_rng(0).normal(size=len(both))
    K = oracles.compact_inverse_middle(pairs, float(memory.theta))
    expected = np.linalg.solve(K, v[both])
    error = 100 * np.finfo(float).eps * np.linalg.cond(K) * np.linalg.norm(expected)
    assert_allclose(jax.jit(solve)(B.F, v)[both], expected, atol=error)


def test_forward_undoes_the_factor():
    memory, _ = drawn(4, 12, "wrapped")
    F = jax.jit(model)(memory).F
    v = np.random.default_rng(0).normal(size=(24, 3))
    error = 100 * np.finfo(float).eps * np.linalg.cond(F) * np.linalg.norm(v)
    assert_allclose(forward(F, F @ v), v, atol=error)


def test_signs_are_minus_one_for_y_and_one_for_s():
    assert_array_equal(signs(jnp.eye(4)), [-1, -1, 1, 1])


@every_state
def test_times_and_combine_are_each_other_s_transpose(state):
    memory, _ = drawn(60, 5, state)
    B, rng = jax.jit(model)(memory), np.random.default_rng(0)
    v, c = rng.normal(size=60), rng.normal(size=10)
    W = np.abs(B.scale)[:, None] * np.abs(memory.YS).reshape(10, 60)
    assert abs(c @ times(B, v) - v @ combine(B, c)) <= 100 * np.finfo(float).eps * np.abs(c) @ W @ np.abs(v)


def test_a_pair_of_negative_curvature_makes_the_factor_nan():
    s = jnp.array([1.0, 2.0, 0.0])
    assert jnp.isnan(product(draw.push(mem.empty(3, 2, np.float64), s, -s), s)).all()
