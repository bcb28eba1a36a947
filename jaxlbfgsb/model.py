"""The quadratic model's matrix B, limited memory in compact form.

    B = θI - Wᵀ M W,   W = [Y; θS] (2m × n),   M⁻¹ = [[-D, Lᵀ], [L, θ S Sᵀ]],   S Yᵀ = L + D + R      BLNZ (3.2)-(3.4)

M⁻¹ and the K of the subspace step have one shape, [[-A, Cᵀ], [C, H]] with A and H + C A⁻¹ Cᵀ = J Jᵀ positive definite.
They are never inverted; both are kept as one triangular F with

    [[-A, Cᵀ], [C, H]] = F E Fᵀ,   F = [[A^½, 0], [-C A^-½ᵀ, J]],   E = diag(-I, I)

so that M = F⁻ᵀ E F⁻¹ and, for few variables, B = θI - VᵀEV with V = F⁻¹W (`dense`). Cost: m³/3 for F, 2m n for a
product with W. A failed Cholesky factor is NaN, and so is all that is made from it.

Rows of W are the paper's columns. Rows of the memory that hold no pair are zero here, with 1 on the diagonals.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Float

from .box import Scalar, Vector
from .memory import Memory, age, live

Square = Float[Array, "m m"]
Pairs = Float[Array, " 2m"]


class Model(NamedTuple):
    """B as the solver uses it: the memory it was made from, the mask of W's rows, and the factor of M⁻¹."""

    memory: Memory
    rows: Pairs  # 1 for Y's live rows, θ for S's, 0 for dead ones
    F: Float[Array, "2m 2m"]


def model(memory: Memory) -> Model:
    """The model B of a memory; θI if it is empty."""
    alive, theta = live(memory), memory.theta
    D, L, SS = blocks(memory)
    root = jnp.sqrt(D)
    CA = L / root[None, :]
    rows = jnp.concatenate([jnp.where(alive, 1, 0), jnp.where(alive, theta, 0)])
    return Model(memory, rows, triangle(jnp.diag(root), CA, theta * SS))


def blocks(memory: Memory) -> tuple[Float[Array, " m"], Square, Square]:
    """D, L and S Sᵀ of the live pairs; where a pair is dead, 1 on the diagonal and 0 beside it."""
    ages, alive = age(memory), live(memory)
    both = alive[:, None] & alive[None, :]
    D = jnp.where(alive, jnp.diagonal(memory.SY), 1)
    L = jnp.where(both & (ages[:, None] < ages[None, :]), memory.SY, 0)  # later s against earlier y
    return D, L, jnp.where(both, memory.SS, jnp.eye(len(alive), dtype=D.dtype))


def triangle(root: Square, CA: Square, H: Square) -> Float[Array, "2m 2m"]:
    """F of [[-A, Cᵀ], [C, H]], from A = root rootᵀ, C A^-½ᵀ and H."""
    J = linalg.cholesky(H + CA @ CA.T, symmetrize_input=False)
    return jnp.block([[root, jnp.zeros_like(J)], [-CA, J]])


def solve(F: Float[Array, "2m 2m"], v: Float[Array, "2m k"], *, transpose: bool = False) -> Float[Array, "2m k"]:
    """F⁻¹ v, or F⁻ᵀ v."""
    return linalg.triangular_solve(F, v, left_side=True, lower=True, transpose_a=transpose)


def signs(F: Float[Array, "2m 2m"]) -> Pairs:
    """The diagonal of E: -1 for Y's rows, 1 for S's."""
    m = len(F) // 2
    return jnp.where(jnp.arange(2 * m) < m, -1, 1).astype(F.dtype)


def inverse(F: Float[Array, "2m 2m"], v: Pairs) -> Pairs:
    """(F E Fᵀ)⁻¹ v."""
    inner = signs(F)[:, None] * solve(F, v[:, None])
    return solve(F, inner, transpose=True)[:, 0]


def times(B: Model, v: Vector) -> Pairs:
    """W v."""
    return B.rows * (B.memory.YS.reshape(len(B.rows), -1) @ v)


def combine(B: Model, c: Pairs) -> Vector:
    """Wᵀ c."""
    return (B.rows * c) @ B.memory.YS.reshape(len(B.rows), -1)


def dense(B: Model) -> Float[Array, "n n"]:
    """B itself, for few variables."""
    W = B.rows[:, None] * B.memory.YS.reshape(len(B.rows), -1)
    V = solve(B.F, W)
    return B.memory.theta * jnp.eye(W.shape[1], dtype=W.dtype) - V.T @ (signs(B.F)[:, None] * V)


def scalar(B: Model) -> Scalar:
    """θ."""
    return B.memory.theta
