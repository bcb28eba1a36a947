"""The quadratic model's matrix B, the limited memory in compact form.

    B = θI - Wᵀ M W,   W = [Y; θS] (2m × n),   M⁻¹ = [[-D, Lᵀ], [L, θ S Sᵀ]],   S Yᵀ = L + D + R    BLNZ (3.2)-(3.6)

M⁻¹ and the K of the subspace step have one shape, [[-A, Cᵀ], [C, H]] with A and A^-½-free complement
H + C A⁻¹Cᵀ = J Jᵀ positive definite. Neither is ever inverted: both are kept as one triangular F with

    [[-A, Cᵀ], [C, H]] = F E Fᵀ,   F = [[A^½, 0], [-C A^-½ᵀ, J]],   E = diag(-I, I),   so M = F⁻ᵀ E F⁻¹

A Cholesky factor that does not exist is NaN, and so is all that is made from it. Cost: m³ for F, 2m n for a product
with W. Rows of W are the paper's columns; those without a pair are zero.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Float

from .box import Scalar, Vector
from .memory import Memory, Square, blocks, live

Pairs = Float[Array, " 2m"]
Triangle = Float[Array, "2m 2m"]


class Model(NamedTuple):
    """B: the memory it was made from, what W's rows are scaled by, and the factor F of M⁻¹."""

    memory: Memory
    theta: Scalar
    scale: Pairs  # 1 for Y's rows, θ for S's, 0 for dead ones
    F: Triangle


def model(memory: Memory) -> Model:
    """The model of a memory; B = I if it is empty. BLNZ (3.2)."""
    alive, (theta, D, L, SS) = live(memory), blocks(memory)
    root = jnp.sqrt(D)
    scale = jnp.concatenate([jnp.where(alive, 1, 0), jnp.where(alive, theta, 0)])
    return Model(memory, theta, scale.astype(D.dtype), triangle(jnp.diag(root), L / root[None, :], theta * SS))


def triangle(root: Square, CA: Square, H: Square) -> Triangle:
    """F of [[-A, Cᵀ], [C, H]], from A = root rootᵀ, C A^-½ᵀ and H."""
    J = linalg.cholesky(H + CA @ CA.T, symmetrize_input=False)
    return jnp.block([[root, jnp.zeros_like(J)], [-CA, J]])


def signs(F: Triangle) -> Pairs:
    """The diagonal of E: -1 for Y's rows, 1 for S's."""
    return jnp.where(jnp.arange(len(F)) < len(F) // 2, -1, 1).astype(F.dtype)


def forward(F: Triangle, v: Float[Array, "2m k"]) -> Float[Array, "2m k"]:
    """F⁻¹ v."""
    return linalg.triangular_solve(F, v, left_side=True, lower=True)


def solve(F: Triangle, v: Pairs) -> Pairs:
    """(F E Fᵀ)⁻¹ v."""
    inner = signs(F)[:, None] * forward(F, v[:, None])
    return linalg.triangular_solve(F, inner, left_side=True, lower=True, transpose_a=True)[:, 0]


def times(B: Model, v: Vector) -> Pairs:
    """W v."""
    return B.scale * (B.memory.YS @ v).ravel()


def combine(B: Model, c: Pairs) -> Vector:
    """Wᵀ c."""
    return (B.scale * c) @ B.memory.YS.reshape(len(c), -1)
