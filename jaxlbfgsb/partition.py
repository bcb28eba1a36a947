"""The Gram matrices of the pairs over the free variables F and the others A, for the subspace step.

    over F:  [Y; S]_F [Y; S]_Fᵀ     over A:  S_A [Y; S]_Aᵀ

They come from products masked by F and A: by subtraction from the whole, S Sᵀ - S_F S_Fᵀ, they would cancel. Cost: one
and a half products (2m × n)(n × 2m).

Of many variables they are kept, as in ZBLN, subroutine formk. A pair adds a row and a column, and a variable that comes
to F or leaves it adds or takes the product of its column with itself. What is taken cancels: all is formed anew when a
diagonal has lost a quarter of its digits, or when many variables change sides.

ZBLN: Zhu, Byrd, Lu, Nocedal, ACM TOMS 23 (1997), Algorithm 778.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .kernel import one_cpu

CHUNK = 8192  # variables a time: a masked copy of all of S and Y would take 2m n
MANY = 16  # of how many variables one has to change sides for all to be formed anew
WIDE = 32768  # variables a time for products with vectors
OUTSIDE = 2**18  # variables from which on S and Y are outside of the cache, and reading them is all that counts

Sums = TypeVar("Sums")
Pairs = Float[Array, "2 m n"]
Free = Bool[Array, " n"]


class Grams(NamedTuple):
    """[Y; S]_F [Y; S]_Fᵀ and S_A [Y; S]_Aᵀ; of rows without a pair they are leftovers."""

    F: Float[Array, "mm mm"]
    A: Float[Array, "m mm"]


class Partition(NamedTuple):
    """F, and the Gram matrices for it."""

    free: Free
    grams: Grams
    peak: Float[Array, " mmm"]  # the largest that the diagonals of both were since all was formed anew


class Products(NamedTuple):
    """[Y; S] times the new y and s over F and over A, and times d: (2, m) each."""

    y_free: Array
    s_free: Array
    y_held: Array
    s_held: Array
    d: Array


def empty(n: int, m: int, dtype: jnp.dtype) -> Partition:
    """The partition of a memory without pairs."""
    grams = Grams(jnp.zeros((2 * m, 2 * m), dtype), jnp.zeros((m, 2 * m), dtype))
    return Partition(jnp.ones(n, bool), grams, _diagonals(grams))


def _diagonals(grams: Grams) -> Float[Array, " mmm"]:
    return jnp.concatenate([jnp.diagonal(grams.F), jnp.diagonal(grams.A[:, len(grams.A) :])])


def products(free: Free, YS: Pairs, row: Int[Array, ""], d: Float[Array, " n"]) -> Products:
    """What the pair in this row needs, and d; by one reading of S and Y where reading them is all that counts."""
    n = YS.shape[2]

    def part(row: Array, fresh: Array, YS: Pairs, free: Array, d: Array) -> Products:
        F, A, (y, s) = fresh & free, fresh & ~free, YS[:, row]
        vectors = jnp.where(F, y, 0), jnp.where(F, s, 0), jnp.where(A, y, 0), jnp.where(A, s, 0), jnp.where(fresh, d, 0)
        return Products(*(YS @ v for v in vectors))

    def sums(size: int, row: Array, *arrays: Array) -> Products:
        return _in_chunks(partial(part, row), size, *arrays)

    if n < OUTSIDE or not one_cpu():
        return sums(n, row, YS, free, d)
    return jax.lax.platform_dependent(row, YS, free, d, cpu=partial(sums, WIDE), default=partial(sums, n))


def _in_chunks(part: Callable[..., Sums], size: int, *arrays: Array) -> Sums:
    """The sum of part(fresh, *pieces) over pieces of so many variables; it counts those that are fresh.

    For one CPU: variables that are split between devices would be gathered to be cut up.
    """
    n = arrays[0].shape[-1]

    def piece(i: Array | int) -> Sums:
        start = jnp.minimum(i * size, n - size)  # the last chunk begins early and leaves out what is counted
        pieces = (jax.lax.dynamic_slice_in_dim(array, start, size, axis=array.ndim - 1) for array in arrays)
        return part(start + jnp.arange(size) >= i * size, *pieces)

    if n <= size:
        return part(jnp.ones(n, bool), *arrays)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(piece, 0))
    return jax.lax.fori_loop(0, -(-n // size), lambda i, total: jax.tree.map(jnp.add, total, piece(i)), zeros)


def add(partition: Partition, found: Products, here: Bool[Array, " m"]) -> Partition:
    """The partition with the newest pair, whose row is `here`, or as it was if that is nowhere."""
    free, (F, A), peak = partition
    nowhere = jnp.zeros_like(here)
    y, s = jnp.concatenate([here, nowhere]), jnp.concatenate([nowhere, here])
    F = crossed(crossed(F, found.y_free.ravel(), y), found.s_free.ravel(), s)
    A = jnp.where(s[None, :], found.s_held[1][:, None], jnp.where(y[None, :], found.y_held[1][:, None], A))
    grams = Grams(F, jnp.where(here[:, None], found.s_held.ravel()[None, :], A))
    return Partition(free, grams, jnp.where(jnp.tile(here, 3), _diagonals(grams), peak))


def crossed(square: Float[Array, "m m"], line: Float[Array, " m"], here: Bool[Array, " m"]) -> Float[Array, "m m"]:
    """A symmetric matrix with this line for its row and column `here`; as it was if that is nowhere."""
    return jnp.where(here[:, None], line[None, :], jnp.where(here[None, :], line[:, None], square))


def move(partition: Partition, YS: Pairs, free: Free) -> Partition:
    """The partition for these free variables."""
    _, m, n = YS.shape
    changed, k = (free != partition.free).astype(jnp.float32), max(1, n // 256)  # a selection in float64 sorts all
    few = jnp.sum(changed) * MANY <= n

    def some(at: tuple[Float[Array, " n"], Grams]) -> tuple[Float[Array, " n"], Grams]:
        left, (F, A) = at
        there, index = jax.lax.top_k(left, k)  # of equal ones the first
        sign = there.astype(YS.dtype) * jnp.where(free[index], 1, -1)
        columns = YS[:, :, index].reshape(2 * m, k)
        change = columns @ (sign[None, :] * columns).T
        return left.at[index].set(0), Grams(F + change, A - change[m:])

    _, grams = jax.lax.while_loop(lambda at: few & jnp.any(at[0] > 0), some, (changed, partition.grams))
    sound = few & jnp.all(_diagonals(grams) >= jnp.finfo(YS.dtype).eps ** 0.25 * partition.peak)
    grams = jax.lax.cond(sound, lambda: grams, lambda: anew(YS, free))
    diagonals = _diagonals(grams)
    return Partition(free, grams, jnp.where(sound, jnp.maximum(partition.peak, diagonals), diagonals))


def anew(YS: Pairs, free: Free) -> Grams:
    """The Gram matrices for these free variables."""

    def part(fresh: Array, YS: Pairs, free: Array) -> Grams:
        rows = YS.reshape(-1, YS.shape[2])
        F, A = (fresh & free)[None, :], (fresh & ~free)[None, :]
        return Grams(jnp.where(F, rows, 0) @ rows.T, jnp.where(A, YS[1], 0) @ rows.T)

    return _in_chunks(part, CHUNK if one_cpu() else YS.shape[2], YS, free)
