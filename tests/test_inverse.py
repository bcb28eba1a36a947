"""The step without bounds against that of the dense B."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import inverse
from jaxlbfgsb import memory as mem

every_quadratic = pytest.mark.parametrize("drawn", draw.SMALL + draw.LARGE, ids=str)
holding_pairs = pytest.mark.parametrize(
    "drawn", [drawn for drawn in draw.SMALL + draw.LARGE if drawn[3] not in draw.WITHOUT_PAIRS], ids=str
)
every_state = pytest.mark.parametrize("state", draw.STATES)


@jax.jit
def step(g, memory):
    return inverse.step(g, memory.YS @ g, memory)


@every_quadratic
def test_step_is_the_minimum_of_the_model(drawn):
    q = draw.quadratic(*drawn)
    expected = -np.linalg.solve(q.B, q.g)
    found = step(q.g, draw.without_box(*drawn))
    assert_allclose(found, expected, rtol=0, atol=draw.step_error(q, q.x, expected))


@holding_pairs
def test_secant_equation_holds_for_the_newest_pair(drawn):
    q = draw.quadratic(*drawn)
    s, y = q.pairs[-1]
    assert_allclose(step(y, draw.without_box(*drawn)), -s, rtol=0, atol=q.rounding * np.linalg.norm(s))


@every_state
def test_step_keeps_the_precision_of_float32(state):
    drawn = (0, 60, 5, state, 10.0, np.float32)
    q, found = draw.quadratic(*drawn), step(draw.quadratic(*drawn).g, draw.without_box(*drawn))
    assert found.dtype == np.float32
    expected = -np.linalg.solve(q.B, q.g)
    assert_allclose(found, expected, rtol=0, atol=draw.step_error(q, q.x, expected))


@pytest.mark.parametrize("state", draw.WITHOUT_PAIRS)
def test_without_pairs_the_step_is_down_the_gradient(state):
    q = draw.quadratic(0, 60, 5, state)
    assert_array_equal(step(q.g, draw.without_box(0, 60, 5, state)), -q.g)


@every_state
def test_leftovers_in_rows_without_a_pair_do_not_matter(state):
    memory = draw.without_box(0, 4, 12, state)
    assert_array_equal(step(jnp.ones(4), draw.littered(memory)), step(jnp.ones(4), memory))


@every_state
def test_a_pair_that_comes_after_leftovers_does_not_read_them(state):
    memory, pair = draw.without_box(0, 4, 12, state), (jnp.arange(4.0), 2 + jnp.arange(4.0))
    clean, found = (step(jnp.ones(4), draw.push(held, *pair)) for held in (memory, draw.littered(memory)))
    assert_array_equal(found, clean)


@every_quadratic
def test_the_memory_holds_the_inverse_of_r(drawn):
    q, memory = draw.quadratic(*drawn), draw.without_box(*drawn)
    rows = np.argsort(mem.age(memory))[: len(q.pairs)][::-1]
    R = np.triu([[s @ y for _, y in q.pairs] for s, _ in q.pairs])
    rounding = 100 * np.finfo(float).eps * np.linalg.cond(R) if len(R) else 0
    assert_allclose(np.asarray(memory.gram[0])[np.ix_(rows, rows)] @ R, np.eye(len(R)), rtol=0, atol=rounding)


def test_a_pair_of_negative_curvature_makes_the_step_nan():
    s = jnp.array([1.0, 2.0, 0.0])
    assert jnp.isnan(step(s, draw.push(mem.empty(3, 2, np.dtype(float), products=1), s, -s))).all()
