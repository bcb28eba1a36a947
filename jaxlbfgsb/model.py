"""The quadratic model's matrix B, the limited memory in compact form.

    B = θI - Wᵀ M W,   W = [Y; θS] (2m × n),   M⁻¹ = [[-D, Lᵀ], [L, θ S Sᵀ]],   S Yᵀ = L + D + R    BLNZ (3.2)-(3.6)

M⁻¹ and the K of the subspace step have one shape, with A and H + C A⁻¹Cᵀ positive definite. Both are used through the
inverse of a triangular factor,

    [[-A, Cᵀ], [C, H]]⁻¹ = Gᵀ E G,   G = [[Q, 0], [R C QᵀQ, R]],   E = diag(-I, I)
    Q A Qᵀ = I,   R (H + C A⁻¹Cᵀ) Rᵀ = I

so that vᵀMv = |R..|² - |Q..|² is a difference of squares and never an indefinite solve. If A or the complement is not
positive definite G is NaN, and so is all that is made from it. Cost: O(m³), and 2m n for a product with W.

Rows of W are the paper's columns; those without a pair are zero.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .box import Scalar, Vector
from .elimination import inverse_factor
from .memory import Memory, Square, blocks, live

Pairs = Float[Array, " mm"]
Factor = Float[Array, "mm mm"]


class Model(NamedTuple):
    """B: the memory it was made from, θ, what W's rows are scaled by, and the G of M."""

    memory: Memory
    theta: Scalar
    scale: Pairs  # 1 for Y's rows, θ for S's, 0 for those without a pair
    G: Factor


def model(memory: Memory) -> Model:
    """The model of a memory; B = I if it is empty. BLNZ (3.2)."""
    alive, (theta, D, L, SS) = live(memory), blocks(memory)
    scale = jnp.concatenate([jnp.where(alive, 1, 0), jnp.where(alive, theta, 0)]).astype(D.dtype)
    return Model(memory, theta, scale, inverse_root(jnp.diag(1 / jnp.sqrt(D)), L, theta * SS))


def inverse_root(Q: Square, C: Square, H: Square) -> Factor:
    """G of [[-A, Cᵀ], [C, H]], A given by the Q with Q A Qᵀ = I."""
    CQ = C @ Q.T
    R = inverse_factor(H + CQ @ CQ.T)
    return jnp.block([[Q, jnp.zeros_like(Q)], [R @ CQ @ Q, R]])


def signs(G: Factor) -> Pairs:
    """The diagonal of E: -1 for Y's rows, 1 for S's."""
    return jnp.where(jnp.arange(len(G)) < len(G) // 2, -1, 1).astype(G.dtype)


def apply(G: Factor, v: Pairs) -> Pairs:
    """Gᵀ E G v."""
    return (signs(G) * (G @ v)) @ G


def times(B: Model, v: Vector) -> Pairs:
    """W v."""
    return B.scale * (B.memory.YS @ v).ravel()


def combine(B: Model, c: Pairs) -> Vector:
    """Wᵀ c."""
    return (B.scale * c) @ B.memory.YS.reshape(len(c), -1)
