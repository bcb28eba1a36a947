"""The limited memory: the m last pairs s = Δx, y = Δg and their Gram matrices.

    S Sᵀ, S Yᵀ  (m × m)       θ = yᵀy / sᵀy of the newest pair                            BLNZ §3

Rows are circular: pair k lies in row k mod m and nothing is ever rolled or permuted. What depends on time, L alone,
takes its order from `age` (0 is the newest). Rows that are not `live` hold leftovers, never cleared because that would
write all (m, n) numbers: whoever reads the memory masks them.

A push costs one (2m × n)(n × 2) product; the Gram matrices are never rebuilt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .box import Scalar, Vector


class Memory(NamedTuple):
    """The pairs, each row of Y and S one of them, and what is known of their inner products."""

    YS: Float[Array, "2 m n"]
    SS: Float[Array, "m m"]  # SS[i, j] = s_iᵀ s_j
    SY: Float[Array, "m m"]  # SY[i, j] = s_iᵀ y_j
    theta: Scalar
    pushes: Int[Array, ""]  # since the memory was last empty


def empty(n: int, m: int, dtype: jnp.dtype) -> Memory:
    """A memory of m pairs that holds none: B = I."""
    gram = jnp.zeros((m, m), dtype)
    return Memory(jnp.zeros((2, m, n), dtype), gram, gram, jnp.ones((), dtype), jnp.zeros((), int))


def forget(memory: Memory, everything: Bool[Array, ""]) -> Memory:
    """The memory without its pairs where `everything` holds; the rows stay as they are, dead."""
    return memory._replace(
        theta=jnp.where(everything, 1, memory.theta), pushes=jnp.where(everything, 0, memory.pushes)
    )


def live(memory: Memory) -> Bool[Array, " m"]:
    """True for the rows that hold a pair."""
    return jnp.arange(memory.SS.shape[0]) < memory.pushes


def age(memory: Memory) -> Int[Array, " m"]:
    """How many pairs came after each row's; 0 is the newest."""
    m = memory.SS.shape[0]
    return (memory.pushes - 1 - jnp.arange(m)) % m


def write(memory: Memory, s: Vector, y: Vector, keep: Bool[Array, ""]) -> Memory:
    """The memory with (s, y) in the row of the oldest pair, if `keep`; `count` makes it live.

    Apart from `count` so that a solver can call it outside every branch: one row is written in place, and nothing of
    size (m, n) leaves a conditional.
    """
    slot = memory.pushes % memory.YS.shape[1]
    old = jax.lax.dynamic_index_in_dim(memory.YS, slot, axis=1, keepdims=False)
    row = jnp.where(keep, jnp.stack([y, s]), old)
    return memory._replace(YS=jax.lax.dynamic_update_index_in_dim(memory.YS, row, slot, axis=1))


def count(memory: Memory, s: Vector, y: Vector, sy: Scalar, keep: Bool[Array, ""]) -> Memory:
    """The memory with the pair that `write` has just written counted in, if `keep`. sy = sᵀy."""
    m, n = memory.YS.shape[1:]
    (Yy, Ys), (Sy, Ss) = jnp.moveaxis(memory.YS @ jnp.stack([y, s], axis=1), 2, 1)
    here = jnp.arange(m) == memory.pushes % m
    row, column = here[:, None], here[None, :]
    SS = jnp.where(row, Ss[None, :], jnp.where(column, Ss[:, None], memory.SS))
    SY = jnp.where(row, jnp.where(column, sy, Ys[None, :]), jnp.where(column, Sy[:, None], memory.SY))
    return Memory(
        YS=memory.YS,
        SS=jnp.where(keep, SS, memory.SS),
        SY=jnp.where(keep, SY, memory.SY),
        theta=jnp.where(keep, jnp.sum(jnp.where(here, Yy, 0)) / sy, memory.theta),
        pushes=memory.pushes + keep.astype(int),
    )


def push(memory: Memory, s: Vector, y: Vector) -> Memory:
    """The memory after the pair (s, y); a full one drops its oldest."""
    keep = jnp.array(True)
    return count(write(memory, s, y, keep), s, y, s @ y, keep)
