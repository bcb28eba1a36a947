"""The products over the free variables and over the others, formed anew and kept from one iteration to the next."""

import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxlbfgsb import partition
from jaxlbfgsb.memory import live, push
from jaxlbfgsb.partition import Grams, Products

EPS = np.finfo(float).eps


def oracle(memory, free):
    """The Gram matrices of the live rows, densely, and what their rounding is measured by."""
    (Y, S), rows = np.asarray(memory.YS), np.asarray(live(memory))
    W, S = np.concatenate([Y[rows], S[rows]]), S[rows]
    expected = Grams((W * free) @ W.T, (S * ~free) @ W.T)
    return expected, Grams(np.abs(W) @ np.abs(W).T, np.abs(S) @ np.abs(W).T)


def assert_dense(grams, memory, free, roundings):
    rows = np.asarray(live(memory))
    both, (expected, scale) = np.tile(rows, 2), oracle(memory, free)
    assert (np.abs(np.asarray(grams.F)[np.ix_(both, both)] - expected.F) <= roundings * EPS * scale.F).all()
    assert (np.abs(np.asarray(grams.A)[np.ix_(rows, both)] - expected.A) <= roundings * EPS * scale.A).all()


@pytest.mark.parametrize("state", draw.STATES)
@pytest.mark.parametrize("chunk", [1, 7, 20, 59, 60])
def test_what_is_formed_anew_is_dense_in_chunks_of_any_size(chunk, state, monkeypatch):
    memory = draw.quadratic(0, 60, 5, state).memory
    monkeypatch.setattr(partition, "CHUNK", chunk)
    free = np.random.default_rng(chunk).random(60) < 0.6
    assert_dense(jax.jit(lambda *args: partition.anew(*args))(memory.YS, free), memory, free, 60)


@pytest.mark.parametrize("chunk", [7, 60])
def test_what_is_formed_anew_does_not_cancel(chunk, monkeypatch):
    memory = draw.quadratic(0, 60, 5).memory
    monkeypatch.setattr(partition, "CHUNK", chunk)
    free = np.arange(60) < 57
    S = np.asarray(memory.YS[1]) * np.where(free, 1, 1e-8)
    found = jax.jit(lambda *args: partition.anew(*args))(np.stack([S, S]), free).A[:, :5]
    held = S[:, ~free]
    assert (np.abs(found - held @ held.T) <= 60 * EPS * np.abs(held) @ np.abs(held).T).all()


@pytest.mark.parametrize(("outside", "wide"), [(1, 1), (1, 7), (1, 59), (1, 60), (61, 7)])
def test_products_of_a_pair_are_dense_in_chunks_of_any_size(outside, wide, monkeypatch):
    for name, size in (("OUTSIDE", outside), ("WIDE", wide)):
        monkeypatch.setattr(partition, name, size)
    rng, (Y, S) = np.random.default_rng(wide), np.random.default_rng(0).normal(size=(2, 5, 60))
    free, d = rng.random(60) < 0.6, rng.normal(size=60)
    found = jax.jit(lambda *args: partition.products(*args))(free, np.stack([Y, S]), 3, d)
    vectors = Products(Y[3] * free, S[3] * free, Y[3] * ~free, S[3] * ~free, d)
    for product, v in zip(found, vectors, strict=True):
        assert (
            np.abs(product - np.stack([Y @ v, S @ v])) <= 60 * EPS * np.array([np.abs(Y), np.abs(S)]) @ np.abs(v)
        ).all()


@pytest.mark.parametrize(
    ("platform", "alone", "cut"), [("cpu", True, True), ("cpu", False, False), ("cuda", True, False)]
)
def test_products_are_cut_up_on_one_cpu_alone(platform, alone, cut, monkeypatch):
    for name, value in (("OUTSIDE", 1), ("WIDE", 7), ("one_cpu", lambda: alone)):
        monkeypatch.setattr(partition, name, value)
    free, YS, d = jnp.ones(60, bool), jnp.ones((2, 5, 60)), jnp.ones(60)
    traced = jax.jit(lambda *args: partition.products(*args)).trace(free, YS, 3, d)
    assert (".while" in traced.lower(lowering_platforms=(platform,)).as_text()) == cut


@pytest.mark.parametrize("most", [1, 20, 40, 600])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_over_pairs_and_changes_is_dense(seed, most, monkeypatch):
    """Of 600 variables up to so many change sides at a time: one by one, by several rounds, or by all anew."""
    monkeypatch.setattr(partition, "CHUNK", 100)
    rng, drawn = np.random.default_rng(seed), draw.curved_pairs(np.random.default_rng(seed), 600, 100.0)
    memory, free = draw.empty(600, 4, np.dtype(float)), rng.random(600) < 0.5
    move = jax.jit(lambda memory, free: partition.move(memory.partition, memory.YS, free))
    add = jax.jit(lambda *args: push(*args))
    for _ in range(11):
        s, y = next(drawn)
        memory = add(memory, jnp.asarray(s), jnp.asarray(y))
        free = free ^ np.isin(np.arange(600), rng.choice(600, rng.integers(0, most + 1), replace=False))
        memory = memory._replace(partition=move(memory, free))
        assert_dense(memory.partition.grams, memory, free, 4 * 600)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("to_free", [True, False])
def test_nothing_cancels_when_the_largest_variable_changes_sides(to_free, dtype):
    """50 of 10,000 variables are on one side, one of them far larger than the rest, and that one goes."""
    rng, few, n = np.random.default_rng(0), np.arange(10_000) < 50, 10_000
    size = np.where(np.arange(n) == 0, 1 / np.finfo(dtype).eps, 1)
    YS = jnp.asarray(rng.normal(size=(2, 3, n)) * size, dtype)
    before = few ^ to_free
    after = before ^ (np.arange(n) == 0)
    start = partition.anew(YS, before)
    held = partition.Partition(jnp.asarray(before), start, partition._diagonals(start))
    found = jax.jit(partition.move)(held, YS, jnp.asarray(after)).grams
    found = found.A[:, 3:] if to_free else found.F[3:, 3:]
    side = np.asarray(YS[1], float)[:, few & (np.arange(n) > 0)]
    assert_allclose(found, side @ side.T, rtol=0, atol=100 * np.finfo(dtype).eps * (side**2).sum())


def test_a_pair_that_is_not_kept_leaves_the_partition_as_it_is(monkeypatch):
    monkeypatch.setattr(partition, "CHUNK", 10)
    memory = push(draw.empty(60, 5, np.dtype(float)), jnp.arange(60.0), jnp.arange(60.0))
    nowhere, nan = jnp.zeros(5, bool), jnp.full((2, 5), jnp.nan)
    after = partition.add(memory.partition, Products(nan, nan, nan, nan, nan), nowhere)
    jax.tree.map(np.testing.assert_array_equal, after, memory.partition)
