"""The Gram matrices of the pairs over the free variables F and the others A, of which K of the subspace step is made.

    Y_F Y_Fᵀ,   C = L_A - D_F - R_F,   S_A S_Aᵀ        S Yᵀ = L + D + R, L of a later s and an earlier y

They come from products masked by F and A: by subtraction from the whole, S Sᵀ - S_F S_Fᵀ, they would cancel. Cost: one
product (2m × n)(n × 2m).

Of many variables they are kept, as in ZBLN, subroutine formk. A pair adds a row and a column, for two products
(2m × n)(n), and a variable that comes to F or leaves it adds or takes the product of its column with itself. What is
taken cancels: all is formed anew when a diagonal has lost half of its digits, or when many variables change sides.

ZBLN: Zhu, Byrd, Lu, Nocedal, ACM TOMS 23 (1997), Algorithm 778.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK = 8192  # variables a time: a masked copy of all of S and Y would take 2m n
MANY = 16  # of how many variables one has to change sides for all to be formed anew

Pairs = Float[Array, "2 m n"]
Blocks = Float[Array, "3 m m"]
Free = Bool[Array, " n"]


class Partition(NamedTuple):
    """F, and the blocks for it; of rows without a pair they are leftovers."""

    free: Free
    blocks: Blocks
    peak: Float[Array, "2 m"]  # the largest that the diagonals of Y_F Y_Fᵀ and S_A S_Aᵀ were since all was formed anew


def empty(n: int, m: int, dtype: jnp.dtype) -> Partition:
    """The partition of a memory without pairs."""
    return Partition(jnp.ones(n, bool), jnp.zeros((3, m, m), dtype), jnp.zeros((2, m), dtype))


def add(
    partition: Partition, YS: Pairs, ys: Float[Array, "2 n"], with_y: Float[Array, "2 m"], here: Bool[Array, " m"]
) -> Partition:
    """The partition with the newest pair, whose row is `here`, or as it was if that is nowhere; with_y = [Y; S] y."""
    free, (YY, C, SS), peak = partition
    (Yy, Sy), (Ys, Ss) = jax.lax.cond(
        jnp.all(free),
        lambda: (with_y, jnp.zeros_like(with_y)),
        lambda: (YS @ jnp.where(free, ys[0], 0), YS @ jnp.where(free, 0, ys[1])),
    )
    row, column = here[:, None], here[None, :]
    C = jnp.where(column, -Sy[:, None], jnp.where(row, Ys[None, :], C))
    blocks = jnp.stack([crossed(YY, Yy, here), C, crossed(SS, Ss, here)])
    return Partition(free, blocks, jnp.where(here[None, :], _diagonals(blocks), peak))


def crossed(square: Float[Array, "m m"], line: Float[Array, " m"], here: Bool[Array, " m"]) -> Float[Array, "m m"]:
    """A symmetric matrix with this line for its row and column `here`; as it was if that is nowhere."""
    return jnp.where(here[:, None], line[None, :], jnp.where(here[None, :], line[:, None], square))


def move(partition: Partition, YS: Pairs, ages: Int[Array, " m"], free: Free) -> Partition:
    """The partition for these free variables."""
    n = len(free)
    changed, k = free != partition.free, max(1, n // 256)
    few = jnp.sum(changed, dtype=int) * MANY <= n

    def some(at: tuple[Float[Array, " n"], Blocks]) -> tuple[Float[Array, " n"], Blocks]:
        left, blocks = at
        there, index = jax.lax.top_k(left, k)  # of equal ones the first
        sign = there.astype(YS.dtype) * jnp.where(free[index], 1, -1)
        columns = YS[:, :, index]
        by_y, by_s = (columns @ (sign[None, :] * columns[i]).T for i in (0, 1))
        return left.at[index].set(0), blocks + jnp.stack([by_y[0], -by_y[1], -by_s[1]])

    left = (changed & few).astype(jnp.float32)  # a selection in float64 sorts all
    _, blocks = jax.lax.while_loop(lambda at: jnp.any(at[0] > 0), some, (left, partition.blocks))
    sound = few & jnp.all(_diagonals(blocks) >= jnp.finfo(YS.dtype).eps ** 0.5 * partition.peak)  # half of the digits
    blocks = jax.lax.cond(sound, lambda: blocks, lambda: anew(YS, ages, free))
    diagonals = _diagonals(blocks)
    return Partition(free, blocks, jnp.where(sound, jnp.maximum(partition.peak, diagonals), diagonals))


def _diagonals(blocks: Blocks) -> Float[Array, "2 m"]:
    return jnp.diagonal(blocks[::2], axis1=1, axis2=2)


def anew(YS: Pairs, ages: Int[Array, " m"], free: Free) -> Blocks:
    """The blocks for these free variables."""
    _, m, n = YS.shape

    def products(YS: Float[Array, "2 m k"], free: Array, active: Array) -> Float[Array, "4 m m"]:
        by_y, by_s = YS @ jnp.where(free[None, :], YS[0], 0).T, YS @ jnp.where(active[None, :], YS[1], 0).T
        return jnp.stack([by_y[0], by_y[1], by_s[1], by_s[0].T])

    def add(i: Array, total: Array) -> Array:
        start = jnp.minimum(i * CHUNK, n - CHUNK)  # the last chunk begins early and leaves out what is counted
        fresh = start + jnp.arange(CHUNK) >= i * CHUNK
        part = jax.lax.dynamic_slice_in_dim(YS, start, CHUNK, axis=2)
        here = jax.lax.dynamic_slice_in_dim(free, start, CHUNK)
        return total + products(part, here & fresh, ~here & fresh)

    if n <= CHUNK:
        YY, SY_F, SS, SY_A = products(YS, free, ~free)
    else:
        YY, SY_F, SS, SY_A = jax.lax.fori_loop(0, -(-n // CHUNK), add, jnp.zeros((4, m, m), YS.dtype))
    return jnp.stack([YY, jnp.where(ages[:, None] < ages[None, :], SY_A, -SY_F), SS])
