"""The ring of pairs and its Gram matrices, in every state that a run can bring it to."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import memory as mem

write, count, blocks = jax.jit(mem.write), jax.jit(mem.count), jax.jit(mem.blocks)
age, live = jax.jit(mem.age), jax.jit(mem.live)

EPS = np.finfo(float).eps
SHAPES = [(1, 1), (4, 12), (60, 5)]
CASES = [(n, m, state) for n, m in SHAPES for state in draw.STATES] + [(500, 8, "wrapped thrice"), (500, 8, "refilled")]
every_case = pytest.mark.parametrize(("n", "m", "state"), CASES)
every_state = pytest.mark.parametrize("state", draw.STATES)


def drawn(n, m, state, dtype=np.float64):
    """A memory, its pairs as rows S and Y, oldest first, and the rows of the memory in that order."""
    q = draw.quadratic(0, n, m, state, dtype=dtype)
    S, Y = (np.array([pair[i] for pair in q.pairs], dtype).reshape(-1, n) for i in (0, 1))
    return jax.tree.map(np.asarray, q.memory), S, Y, np.argsort(age(q.memory))[: len(S)][::-1]


def within_rounding(found, A, B):
    """Whether this is A Bᵀ but for the rounding of its sums: n eps |A||B|ᵀ, once here and once there."""
    n, eps = A.shape[1], np.finfo(A.dtype).eps
    return (np.abs(found - A @ B.T) <= 2 * n * eps * (np.abs(A) @ np.abs(B).T)).all()


@every_case
def test_rows_hold_the_last_pairs_bit_for_bit(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    assert_array_equal(memory.YS[:, rows], np.stack([Y, S]))


@every_case
def test_live_counts_the_pairs(n, m, state):
    memory, S, _, _ = drawn(n, m, state)
    assert int(live(memory).sum()) == int(memory.held) == len(S)


@every_state
def test_ages_number_the_rows(state):
    memory, _, _, _ = drawn(4, 12, state)
    assert sorted(age(memory).tolist()) == list(range(12))


@every_case
def test_gram_of_s_with_y_is_their_inner_products(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    assert within_rounding(memory.gram[0][np.ix_(rows, rows)], S, Y)


@every_case
def test_gram_of_s_with_s_is_their_inner_products(n, m, state):
    memory, S, _, rows = drawn(n, m, state)
    assert within_rounding(memory.gram[1][np.ix_(rows, rows)], S, S)


@every_state
def test_gram_keeps_the_precision_of_float32(state):
    memory, S, Y, rows = drawn(60, 5, state, np.float32)
    assert memory.gram.dtype == np.float32
    assert within_rounding(memory.gram[0][np.ix_(rows, rows)], S, Y)


@every_case
def test_theta_is_that_of_the_newest_pair(n, m, state):
    memory, S, Y, _ = drawn(n, m, state)
    expected = oracles.newest_theta(list(zip(S, Y, strict=True)))
    amplified = np.abs(S[-1]) @ np.abs(Y[-1]) / (S[-1] @ Y[-1]) if len(S) else 1  # by the cancellation in sᵀy
    assert abs(blocks(memory)[0] - expected) <= 4 * n * EPS * amplified * expected


@every_case
def test_blocks_are_those_of_the_compact_form(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    theta, D, L, SS = (np.asarray(block) for block in blocks(memory))
    here = np.ix_(rows, rows)
    found = np.block([[-np.diag(D[rows]), L[here].T], [L[here], theta * SS[here]]])
    expected = oracles.compact_inverse_middle(S, Y, theta)
    SY, SS = np.abs(S) @ np.abs(Y).T, np.abs(S) @ np.abs(S).T
    assert (np.abs(found - expected) <= 2 * n * EPS * np.block([[SY, SY.T], [SY, theta * SS]])).all()


@every_state
def test_blocks_of_rows_without_a_pair_are_the_identity(state):
    memory, _, _, rows = drawn(4, 12, state)
    dead = np.setdiff1d(np.arange(12), rows)
    _, D, L, SS = (np.asarray(block) for block in blocks(memory))
    identity, zero = np.eye(12)[dead], np.zeros((len(dead), 12))
    assert_array_equal([np.diag(D)[dead], L[dead], L.T[dead], SS[dead]], [identity, zero, zero, identity])


@every_state
def test_forgetting_nothing_changes_nothing(state):
    memory, _, _, _ = drawn(4, 12, state)
    jax.tree.map(assert_array_equal, draw.forget(memory, jnp.array(False)), memory)


@every_state
def test_forgetting_leaves_no_pair(state):
    assert not live(draw.forget(drawn(4, 12, state)[0], jnp.array(True))).any()


@every_state
def test_forgetting_leaves_theta_at_one(state):
    assert blocks(draw.forget(drawn(4, 12, state)[0], jnp.array(True)))[0] == 1


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
@every_state
def test_a_pair_that_is_not_kept_changes_nothing(state, value):
    memory, _, _, _ = drawn(4, 12, state)
    v, sy, keep = jnp.full(4, value), jnp.array(value), jnp.array(False)
    jax.tree.map(assert_array_equal, count(write(memory, v, v, keep), memory.slot, sy, keep, v)[0], memory)


@every_state
def test_curvature_is_taken_as_the_line_search_has_it(state):
    memory, _, _, _ = drawn(4, 12, state)
    ones, keep, sy = jnp.ones(4), jnp.array(True), jnp.array(4.25)  # not quite sᵀy = 4
    memory, _ = count(write(memory, ones, ones, keep), memory.slot, sy, keep, ones)
    newest = int(jnp.argmin(age(memory)))
    assert memory.D[newest] == 4.25


@every_state
def test_with_the_pair_comes_a_product_with_another_vector(state):
    memory, _, _, _ = drawn(60, 5, state)
    d, ones, keep = np.random.default_rng(0).normal(size=60), jnp.ones(60), jnp.array(True)
    memory, found = count(write(memory, ones, ones, keep), memory.slot, jnp.array(60.0), keep, jnp.asarray(d))
    assert_allclose(found, np.asarray(memory.YS) @ d, rtol=0, atol=60 * EPS * np.abs(memory.YS).max())


@every_state
def test_without_products_all_else_is_the_same(state):
    memory, _, _, _ = drawn(4, 12, state)
    pair = jnp.arange(4.0), 2 + jnp.arange(4.0)
    bare = draw.push(memory._replace(gram=None), *pair)
    for name in ("YS", "D", "held", "slot"):
        assert_array_equal(getattr(bare, name), getattr(draw.push(memory, *pair), name))
    assert_allclose(bare.theta, draw.push(memory, *pair).theta, rtol=1e-15)


@every_state
def test_a_push_writes_one_row_only(state):
    memory, _, _, _ = drawn(4, 12, state)
    after = draw.push(memory, jnp.ones(4), jnp.ones(4))
    assert jnp.any(after.YS != memory.YS, axis=(0, 2)).sum() == 1
