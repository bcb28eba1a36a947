"""B in compact form against B by outer products."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import memory as mem
from jaxlbfgsb.model import apply, combine, model, signs, times

every_quadratic = pytest.mark.parametrize("drawn", draw.SMALL + draw.LARGE, ids=str)
holding_pairs = pytest.mark.parametrize(
    "drawn", [drawn for drawn in draw.SMALL + draw.LARGE if drawn[3] not in draw.WITHOUT_PAIRS], ids=str
)
every_state = pytest.mark.parametrize("state", draw.STATES)
model, apply, age = jax.jit(model), jax.jit(apply), jax.jit(mem.age)
times, combine = jax.jit(times), jax.jit(combine)


@jax.jit
def product(memory, v):
    """B v."""
    B = model(memory)
    return B.theta * v - combine(B, apply(B.G, times(B, v)))


def direction(n, dtype=np.float64):
    return np.random.default_rng(0).normal(size=n).astype(dtype)


@every_quadratic
def test_product_equals_that_of_the_outer_products(drawn):
    q = draw.quadratic(*drawn)
    v = direction(len(q.x))
    assert_allclose(product(q.memory, v), q.B @ v, rtol=0, atol=q.rounding * q.peak * np.linalg.norm(v))


@holding_pairs
def test_secant_equation_holds_for_the_newest_pair(drawn):
    q = draw.quadratic(*drawn)
    s, y = q.pairs[-1]
    assert_allclose(product(q.memory, s), y, rtol=0, atol=q.rounding * q.peak * np.linalg.norm(s))


@every_state
def test_product_keeps_the_precision_of_float32(state):
    q = draw.quadratic(0, 60, 5, state, 10.0, np.float32)
    v = direction(60, np.float32)
    found = product(q.memory, v)
    assert found.dtype == np.float32
    assert_allclose(found, q.B @ v, rtol=0, atol=q.rounding * q.peak * np.linalg.norm(v))


@pytest.mark.parametrize("state", draw.WITHOUT_PAIRS)
def test_without_pairs_the_product_is_the_vector_itself(state):
    assert_array_equal(product(draw.quadratic(0, 60, 5, state).memory, direction(60)), direction(60))


@every_state
def test_leftovers_in_rows_without_a_pair_do_not_matter(state):
    memory = draw.quadratic(0, 4, 12, state).memory
    assert_array_equal(product(draw.littered(memory), jnp.ones(4)), product(memory, jnp.ones(4)))


def middle(q, m):
    """M⁻¹, and where its rows and columns are among the 2m of the memory."""
    S, Y = (np.array(rows) for rows in zip(*q.pairs, strict=True))
    rows = np.argsort(age(q.memory))[: len(S)][::-1]
    return oracles.compact_inverse_middle(S, Y, q.theta), np.concatenate([rows, m + rows])


@holding_pairs
def test_factor_applies_the_middle_matrix(drawn):
    q, m = draw.quadratic(*drawn), drawn[2]
    K, rows = middle(q, m)
    v = np.zeros(2 * m)
    v[rows] = direction(len(rows))
    expected = np.linalg.solve(K, v[rows])
    allowed = 100 * np.finfo(float).eps * np.linalg.cond(K) * np.linalg.norm(expected)
    assert_allclose(np.asarray(apply(model(q.memory).G, v))[rows], expected, rtol=0, atol=allowed)


@holding_pairs
def test_factor_diagonalizes_the_middle_matrix(drawn):
    q, m = draw.quadratic(*drawn), drawn[2]
    K, rows = middle(q, m)
    G = np.asarray(model(q.memory).G)[np.ix_(rows, rows)]
    rounding = 100 * np.finfo(float).eps * np.linalg.norm(G, 2) ** 2 * np.linalg.norm(K, 2)
    assert_allclose(G @ K @ G.T, np.diag(np.repeat([-1, 1], len(K) // 2)), rtol=0, atol=rounding)


def test_signs_are_minus_one_for_y_and_one_for_s():
    assert_array_equal(signs(jnp.eye(4)), [-1, -1, 1, 1])


@every_state
def test_times_and_combine_are_each_other_s_transpose(state):
    B, v, c = model(draw.quadratic(0, 60, 5, state).memory), direction(60), direction(10)
    W = np.abs(B.scale)[:, None] * np.abs(B.memory.YS).reshape(10, 60)
    assert abs(c @ times(B, v) - v @ combine(B, c)) <= 140 * np.finfo(float).eps * np.abs(c) @ W @ np.abs(v)


def test_a_pair_of_negative_curvature_makes_the_factor_nan():
    s = jnp.array([1.0, 2.0, 0.0])
    assert jnp.isnan(product(draw.push(mem.empty(3, 2, np.dtype(float)), s, -s), s)).all()
