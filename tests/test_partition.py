"""The products over the free variables and over the others, formed anew and kept from one iteration to the next."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxlbfgsb import partition
from jaxlbfgsb.memory import age, live, push

EPS = np.finfo(float).eps


def oracle(memory, free):
    """The blocks of the live rows, densely, and what their rounding is measured by."""
    (Y, S), ages, rows = np.asarray(memory.YS), np.asarray(age(memory)), np.asarray(live(memory))
    later = ages[:, None] < ages[None, :]

    def products(Y, S):
        return np.stack([
            (Y * free) @ Y.T, np.where(later, (S * ~free) @ Y.T, -(S * free) @ Y.T), (S * ~free) @ S.T
        ])[:, rows][:, :, rows]  # fmt: skip

    whole = np.abs(Y) @ np.abs(Y).T, np.abs(S) @ np.abs(Y).T, np.abs(S) @ np.abs(S).T
    return products(Y, S), np.stack(whole)[:, rows][:, :, rows]


def of_live_rows(blocks, memory):
    rows = np.asarray(live(memory))
    return np.asarray(blocks)[:, rows][:, :, rows]


@pytest.mark.parametrize("state", draw.STATES)
@pytest.mark.parametrize("chunk", [1, 7, 20, 59, 60])
def test_blocks_formed_anew_are_the_dense_ones_in_chunks_of_any_size(chunk, state, monkeypatch):
    memory = draw.quadratic(0, 60, 5, state).memory
    monkeypatch.setattr(partition, "CHUNK", chunk)
    free = np.random.default_rng(chunk).random(60) < 0.6
    found = jax.jit(lambda *args: partition.anew(*args))(memory.YS, age(memory), free)
    expected, scale = oracle(memory, free)
    assert (np.abs(of_live_rows(found, memory) - expected) <= 60 * EPS * scale).all()


@pytest.mark.parametrize("chunk", [7, 60])
def test_blocks_formed_anew_do_not_cancel(chunk, monkeypatch):
    memory = draw.quadratic(0, 60, 5).memory
    monkeypatch.setattr(partition, "CHUNK", chunk)
    free = np.arange(60) < 57
    S = np.asarray(memory.YS[1]) * np.where(free, 1, 1e-8)
    found = jax.jit(lambda *args: partition.anew(*args))(np.stack([S, S]), age(memory), free)[2]
    held = S[:, ~free]
    assert (np.abs(found - held @ held.T) <= 60 * EPS * np.abs(held) @ np.abs(held).T).all()


@pytest.mark.parametrize("most", [1, 20, 40, 600])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_kept_over_pairs_and_changes_are_the_dense_ones(seed, most, monkeypatch):
    """Of 600 variables up to so many change sides at a time: one by one, by several rounds, or by all anew."""
    monkeypatch.setattr(partition, "CHUNK", 100)
    rng, drawn = np.random.default_rng(seed), draw.curved_pairs(np.random.default_rng(seed), 600, 100.0)
    memory, free = draw.empty(600, 4, np.dtype(float)), rng.random(600) < 0.5
    move = jax.jit(lambda memory, free: partition.move(memory.partition, memory.YS, age(memory), free))
    add = jax.jit(lambda *args: push(*args))
    for _ in range(11):
        s, y = next(drawn)
        memory = add(memory, jnp.asarray(s), jnp.asarray(y))
        free = free ^ np.isin(np.arange(600), rng.choice(600, rng.integers(0, most + 1), replace=False))
        memory = memory._replace(partition=move(memory, free))
        expected, scale = oracle(memory, free)
        assert (np.abs(of_live_rows(memory.partition.blocks, memory) - expected) <= 4 * 600 * EPS * scale).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("to_free", [True, False])
def test_blocks_do_not_cancel_when_the_largest_variable_changes_sides(to_free, dtype):
    """50 of 10,000 variables are on one side, one of them far larger than the rest, and that one goes."""
    rng, few, n = np.random.default_rng(0), np.arange(10_000) < 50, 10_000
    size = np.where(np.arange(n) == 0, 1 / np.finfo(dtype).eps, 1)
    YS = jnp.asarray(rng.normal(size=(2, 3, n)) * size, dtype)
    before, ages = few ^ to_free, jnp.arange(3)
    after = before ^ (np.arange(n) == 0)
    start = partition.anew(YS, ages, before)
    held = partition.Partition(jnp.asarray(before), start, jnp.diagonal(start[::2], axis1=1, axis2=2))
    found = jax.jit(partition.move)(held, YS, ages, jnp.asarray(after)).blocks[2 if to_free else 0]
    side = np.asarray(YS[1 if to_free else 0], float)[:, few & (np.arange(n) > 0)]
    assert_allclose(found, side @ side.T, rtol=0, atol=100 * np.finfo(dtype).eps * (side**2).sum())


def test_a_pair_that_is_not_kept_leaves_the_partition_as_it_is(monkeypatch):
    monkeypatch.setattr(partition, "CHUNK", 10)
    memory = push(draw.empty(60, 5, np.dtype(float)), jnp.arange(60.0), jnp.arange(60.0))
    nowhere, nan = jnp.zeros(5, bool), jnp.full((2, 60), jnp.nan)
    after = partition.add(memory.partition, memory.YS, nan, nan[:, :5], nowhere)
    jax.tree.map(np.testing.assert_array_equal, after, memory.partition)
