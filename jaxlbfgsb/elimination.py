"""Gaussian elimination of small matrices, as a loop of rank-one updates.

    [[P, Q], [Qᵀ, R]]  →  R - Qᵀ P⁻¹ Q         [[A, r], [-I, 0]]  →  A⁻¹r         [A  I]  →  G with G A Gᵀ = I

For matrices this small a call of LAPACK costs more than the work, wakes threads that only wait, and under vmap is one
call for each matrix. No pivoting: all that is eliminated here is positive definite, and all NaN if it turns out not to
be. Cost: one pass over the matrix for each pivot.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def eliminate(A: Float[Array, "n k"], count: int) -> Float[Array, "n k"]:
    """A with its first `count` columns eliminated below the diagonal; NaN from the first pivot that is not positive."""

    def pivot(i: Array, A: Array) -> Array:
        row, column = jax.lax.dynamic_slice_in_dim(A, i, 1, 0), jax.lax.dynamic_slice_in_dim(A, i, 1, 1)
        here = jax.lax.dynamic_slice_in_dim(row, i, 1, 1)
        below = jax.lax.broadcasted_iota(int, A.shape, 0) > i
        return jnp.where(below, A - column * (row / jnp.where(here > 0, here, jnp.nan)), A)

    return jax.lax.fori_loop(0, count, pivot, A)


def solve(A: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
    """A⁻¹ r; NaN if A is not positive definite."""
    n = len(A)
    above, below = jnp.concatenate([A, r[:, None]], axis=1), -jnp.eye(n, n + 1, dtype=A.dtype)
    return eliminate(jnp.concatenate([above, below]), n)[n:, n]


def inverse_factor(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower triangular G with G A Gᵀ = I, so A⁻¹ = GᵀG; NaN if A is not positive definite."""
    n = len(A)
    upper, lower = jnp.split(eliminate(jnp.concatenate([A, jnp.eye(n, dtype=A.dtype)], axis=1), n), 2, axis=1)
    return lower / jnp.sqrt(jnp.diagonal(upper))[:, None]
