"""The limited memory: the m last pairs s = Δx, y = Δg and their Gram matrices.

    S Sᵀ, S Yᵀ  (m × m)       θ = yᵀy / sᵀy of the newest pair, 1 without any                  BLNZ §3, pairs as rows

Rows are circular and nothing is ever rolled or permuted. What depends on time, L alone, takes its order from `age`
(0 is the newest). Rows without a pair hold leftovers, never cleared because that would write all (m, n) numbers:
whoever reads the memory masks them with `live`.

A push costs two products (2m × n)(n), without bounds one, with a partition four by one reading of S and Y; the Gram
matrices are never rebuilt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import partition
from .box import Scalar, Vector
from .elimination import positive
from .partition import Partition

Square = Float[Array, "m m"]


class Inverse(NamedTuple):
    """What inverse.py needs."""

    root: Square  # R⁻¹
    YY: Square


class Memory(NamedTuple):
    """The pairs, in the rows of Y and S, and what is known of their inner products."""

    YS: Float[Array, "2 m n"]
    gram: Float[Array, "2 m m"] | Inverse | None  # S Yᵀ and S Sᵀ; another for inverse.py; None for dense.py
    D: Float[Array, " m"]  # s_iᵀy_i as the line search has it
    theta: Scalar
    held: Int[Array, ""]  # how many pairs there are
    slot: Int[Array, ""]  # the row that the next one takes
    partition: Partition | None = None  # kept for subspace.py if the variables are many


def empty(n: int, m: int, dtype: jnp.dtype, products: int = 2) -> Memory:
    """A memory for m pairs that holds none: B = I. With one product it is for inverse.py, with none for dense.py."""
    square, none = jnp.zeros((m, m), dtype), jnp.zeros((), int)
    gram = [None, Inverse(square, square), jnp.stack([square, square])][products]
    kept = partition.empty(n, m, dtype) if products == 2 and n > partition.CHUNK else None
    return Memory(jnp.zeros((2, m, n), dtype), gram, jnp.ones(m, dtype), jnp.ones((), dtype), none, none, kept)


def forget(memory: Memory, everything: Bool[Array, ""]) -> Memory:
    """The memory without its pairs, where `everything` is true; their rows stay as they are."""
    return memory._replace(held=jnp.where(everything, 0, memory.held))


def age(memory: Memory) -> Int[Array, " m"]:
    """How many pairs came after each row's; 0 is the newest."""
    m = memory.YS.shape[1]
    back = memory.slot - 1 - jnp.arange(m)
    return jnp.where(back < 0, back + m, back)


def live(memory: Memory) -> Bool[Array, " m"]:
    """True for the rows that hold a pair."""
    return age(memory) < memory.held


def blocks(memory: Memory) -> tuple[Scalar, Float[Array, " m"], Square, Square]:
    """θ, D, L and S Sᵀ, S Yᵀ = L + D + R; where a row is dead, 1 on the diagonals and 0 beside them. BLNZ (3.5)."""
    ages, alive = age(memory), live(memory)
    both = alive[:, None] & alive[None, :]
    assert isinstance(memory.gram, jax.Array)
    (SY, SS), D = memory.gram, jnp.where(alive, memory.D, 1)
    L = jnp.where(both & (ages[:, None] < ages[None, :]), SY, 0)  # s of a later pair, y of an earlier one
    theta = jnp.where(memory.held > 0, memory.theta, 1)
    return theta, D, L, jnp.where(both, SS, jnp.eye(len(alive), dtype=D.dtype))


def write(memory: Memory, s: Vector, y: Vector, keep: Bool[Array, ""]) -> Memory:
    """The memory with a new pair in the row of the oldest, if `keep`; it is for `count` to make it live.

    The two are apart so that this one can stand outside every branch: one row is written in place, and nothing of
    size (m, n) leaves a conditional.
    """
    YS, following = memory.YS, memory.slot + keep.astype(int)
    for start, v in (((0, memory.slot, 0), y), ((1, memory.slot, 0), s)):
        old = jax.lax.dynamic_slice(YS, start, (1, 1, len(v)), allow_negative_indices=False)
        YS = jax.lax.dynamic_update_slice(YS, jnp.where(keep, v, old), start, allow_negative_indices=False)
    return memory._replace(YS=YS, slot=jnp.where(following < YS.shape[1], following, 0))


def count(
    memory: Memory, row: Int[Array, ""], sy: Scalar, keep: Bool[Array, ""], d: Vector
) -> tuple[Memory, Float[Array, "2 m"]]:
    """The memory with the pair just written to this row counted in, if `keep`, and [Y; S] d.

    sy = sᵀy as the line search has it. They are one function so that of very many variables the pairs are read once
    for all these products.
    """
    m = memory.YS.shape[1]
    here, ys, held = jnp.arange(m) == row, memory.YS[:, row], jnp.minimum(memory.held + keep.astype(int), m)
    gram, D, kept = memory.gram, jnp.where(keep & here, sy, memory.D), memory.partition
    found = None if kept is None else partition.products(kept.free, memory.YS, row, d)
    with_d = memory.YS @ d if found is None else found.d
    if gram is None:
        yy = jnp.sum(ys[0] ** 2)
    elif isinstance(gram, Inverse):
        Yy, Sy = memory.YS @ ys[0]
        others = (age(memory) < held) & ~here
        root = jnp.where(keep, bordered(gram.root, Sy, sy, others, here), gram.root)
        gram = Inverse(root, partition.crossed(gram.YY, Yy, keep & here))
        yy = jnp.sum(jnp.where(here, Yy, 0))
    else:
        if kept is None or found is None:
            with_y, with_s = memory.YS @ ys[0], memory.YS @ ys[1]
        else:
            with_y, with_s = found.y_free + found.y_held, found.s_free + found.s_held
            kept = partition.add(kept, found, keep & here)
        rows, columns = with_s, jnp.stack([with_y[1], with_s[1]])  # of s with all pairs, of all s with the new pair
        row, column = keep & here[None, :, None], keep & here[None, None, :]
        gram = jnp.where(row, rows[:, None, :], jnp.where(column, columns[:, :, None], gram))
        yy = jnp.sum(jnp.where(here, with_y[0], 0))
    theta = jnp.where(keep, yy / sy, memory.theta)
    return memory._replace(gram=gram, D=D, theta=theta, held=held, partition=kept), with_d


def bordered(root: Square, r: Array, d: Scalar, others: Bool[Array, " m"], here: Bool[Array, " m"]) -> Square:
    """R⁻¹ with R = [[R, r], [0, d]], the last row and column being `here`, from that of the `others`; NaN for d ≤ 0.

    To drop the oldest pair is to leave out its row and column, for R is triangular.
    """
    known = jnp.where(others[:, None] & others[None, :], root, 0)
    column = jnp.where(here, 1, -(known @ jnp.where(others, r, 0))) / positive(d)
    return jnp.where(here[None, :], column[:, None], known)


def push(memory: Memory, s: Float[Array, " n"], y: Float[Array, " n"]) -> Memory:
    """The memory after the pair (s, y); a full one drops its oldest."""
    keep = jnp.array(True)
    return count(write(memory, s, y, keep), memory.slot, s @ y, keep, s)[0]
