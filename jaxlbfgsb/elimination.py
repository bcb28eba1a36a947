"""Gaussian elimination of small matrices, as a loop of rank-one updates.

    [A  r]  →  [Δ  c], Δ diagonal: A⁻¹r = Δ⁻¹c         [A  I]  →  [U  L], G = diag(U)^-½ L: G A Gᵀ = I

For matrices this small a call of LAPACK costs more than the work, wakes threads that only wait, and under vmap is one
call for each matrix. No pivoting: all that is eliminated here is positive definite, and all NaN if it turns out not to
be. Cost: one pass over the matrix for each pivot.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def eliminate(A: Float[Array, "n k"], above: bool = False) -> Float[Array, "n k"]:
    """A with its first n columns eliminated below the diagonal, or on both sides of it; NaN below a pivot ≤ 0."""

    def pivot(i: Array, A: Array) -> Array:
        row, column = jax.lax.dynamic_slice_in_dim(A, i, 1, 0), jax.lax.dynamic_slice_in_dim(A, i, 1, 1)
        here = jax.lax.dynamic_slice_in_dim(row, i, 1, 1)
        at = jax.lax.broadcasted_iota(int, column.shape, 0)
        factor = jnp.where(at != i if above else at > i, column / jnp.where(here > 0, here, jnp.nan), 0)
        return A - factor * row

    return jax.lax.fori_loop(0, len(A), pivot, A)


def solve(A: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
    """A⁻¹ r; NaN if A is not positive definite."""
    n = len(A)
    eliminated = eliminate(jnp.concatenate([A, r[:, None]], axis=1), above=True)
    pivots = jnp.diagonal(eliminated)
    return eliminated[:, n] / jnp.where(pivots > 0, pivots, jnp.nan)


def inverse_factor(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower triangular G with G A Gᵀ = I, so A⁻¹ = GᵀG; NaN if A is not positive definite."""
    n = len(A)
    upper, lower = jnp.split(eliminate(jnp.concatenate([A, jnp.eye(n, dtype=A.dtype)], axis=1)), 2, axis=1)
    return lower / jnp.sqrt(jnp.diagonal(upper))[:, None]
