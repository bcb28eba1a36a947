"""The ring of pairs and its Gram matrices, in every state that a run can bring it to."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

from jaxlbfgsb import memory as mem

SHAPES = [(1, 1), (4, 12), (60, 5), (500, 8)]
HOLDING = [state for state in draw.STATES if state not in ("empty", "forgotten")]
write, count, blocks = jax.jit(mem.write), jax.jit(mem.count), jax.jit(mem.blocks)

every_shape = pytest.mark.parametrize(("n", "m"), SHAPES)
every_state = pytest.mark.parametrize("state", draw.STATES)
holding = pytest.mark.parametrize("state", HOLDING)


def drawn(n, m, state, dtype=np.float64):
    """A memory, its pairs as rows S and Y, oldest first, and the rows of the memory in that order."""
    memory, pairs = draw.memory(np.random.default_rng(n + m), n, m, state, dtype=dtype)
    S, Y = (np.array([pair[i] for pair in pairs], dtype).reshape(-1, n) for i in (0, 1))
    return memory, S, Y, np.argsort(mem.age(memory))[: len(pairs)][::-1]


def rounding(A, B):
    """What the sums in A Bᵀ may be off by: n eps |A||B|ᵀ, once here and once there."""
    return 2 * A.shape[1] * np.finfo(A.dtype).eps * np.abs(A) @ np.abs(B).T


@every_shape
@every_state
def test_rows_hold_the_last_pairs_bit_for_bit(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    assert_array_equal(memory.YS[:, rows], np.stack([Y, S]))


@every_shape
@every_state
def test_live_counts_the_pairs(n, m, state):
    memory, S, _, _ = drawn(n, m, state)
    assert int(mem.live(memory).sum()) == int(memory.held) == len(S)


@every_state
def test_ages_number_the_rows(state):
    memory, _, _, _ = drawn(4, 12, state)
    assert sorted(mem.age(memory).tolist()) == list(range(12))


@every_shape
@every_state
def test_gram_of_s_with_y_is_their_inner_products(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    assert (np.abs(memory.gram[0][np.ix_(rows, rows)] - S @ Y.T) <= rounding(S, Y)).all()


@every_shape
@every_state
def test_gram_of_s_with_s_is_their_inner_products(n, m, state):
    memory, S, _, rows = drawn(n, m, state)
    assert (np.abs(memory.gram[1][np.ix_(rows, rows)] - S @ S.T) <= rounding(S, S)).all()


@holding
def test_gram_keeps_the_precision_of_float32(state):
    memory, S, Y, rows = drawn(60, 5, state, np.float32)
    assert memory.gram.dtype == np.float32
    assert (np.abs(memory.gram[0][np.ix_(rows, rows)] - S @ Y.T) <= rounding(S, Y)).all()


@every_shape
@every_state
def test_theta_is_that_of_the_newest_pair(n, m, state):
    memory, S, Y, _ = drawn(n, m, state)
    expected = oracles.newest_theta(list(zip(S, Y, strict=True)))
    assert abs(memory.theta - expected) <= 4 * n * np.finfo(float).eps * expected


@every_shape
@holding
def test_blocks_are_those_of_the_compact_form(n, m, state):
    memory, S, Y, rows = drawn(n, m, state)
    D, L, SS = (np.asarray(block) for block in blocks(memory))
    here = np.ix_(rows, rows)
    theta = float(memory.theta)
    found = np.block([[-np.diag(D[rows]), L[here].T], [L[here], theta * SS[here]]])
    expected = oracles.compact_inverse_middle(list(zip(S, Y, strict=True)), theta)
    scale = np.abs(S) @ np.abs(Y).T
    scale = np.block([[scale, scale.T], [scale, theta * np.abs(S) @ np.abs(S).T]])
    assert (np.abs(found - expected) <= 2 * n * np.finfo(float).eps * scale).all()


@every_state
def test_blocks_of_rows_without_a_pair_are_the_identity(state):
    memory, _, _, rows = drawn(4, 12, state)
    dead = np.setdiff1d(np.arange(12), rows)
    D, L, SS = (np.asarray(block) for block in blocks(memory))
    alone = np.eye(12)[dead]
    assert_array_equal(np.hstack([np.diag(D)[dead], L[dead], L.T[dead], SS[dead]]),
                       np.hstack([alone, 0 * alone, 0 * alone, alone]))  # fmt: skip


def test_a_new_memory_has_theta_one():
    assert float(mem.empty(3, 2, np.float64).theta) == 1


@every_state
def test_forgetting_nothing_changes_nothing(state):
    memory, _, _, _ = drawn(4, 12, state)
    jax.tree.map(assert_array_equal, draw.forget(memory, jnp.array(False)), memory)


@every_state
def test_forgetting_leaves_no_pair(state):
    memory = draw.forget(drawn(4, 12, state)[0], jnp.array(True))
    assert not mem.live(memory).any()


@every_state
def test_forgetting_resets_theta(state):
    assert float(draw.forget(drawn(4, 12, state)[0], jnp.array(True)).theta) == 1


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
@every_state
def test_a_pair_that_is_not_kept_changes_nothing(state, value):
    memory, _, _, _ = drawn(4, 12, state)
    ys, keep = jnp.full((2, 4), value), jnp.array(False)
    jax.tree.map(assert_array_equal, count(write(memory, ys, keep), ys, jnp.array(value), keep), memory)


@every_state
def test_curvature_is_taken_as_the_line_search_has_it(state):
    memory, _, _, _ = drawn(4, 12, state)
    ys, keep, sy = jnp.ones((2, 4)), jnp.array(True), jnp.array(4.25)  # not quite sᵀy = 4
    memory = count(write(memory, ys, keep), ys, sy, keep)
    newest = int(jnp.argmin(mem.age(memory)))
    assert float(memory.gram[0, newest, newest]) == 4.25


@every_state
def test_a_push_writes_one_row_only(state):
    memory, _, _, _ = drawn(4, 12, state)
    after = draw.push(memory, jnp.ones(4), jnp.ones(4))
    assert jnp.any(after.YS != memory.YS, axis=(0, 2)).sum() == 1
