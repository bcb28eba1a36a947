"""Gaussian elimination of small matrices, as a loop of rank-two updates.

    [A  r]  →  [Δ  c], Δ diagonal: A⁻¹r = Δ⁻¹c         [A  I]  →  [U  L], G = diag(U)^-½ L: G A Gᵀ = I

For matrices this small a call of LAPACK costs more than the work, wakes threads that only wait, and under vmap is one
call for each matrix. No pivoting: all that is eliminated here is positive definite, and NaN if it turns out not to be.
Cost: one pass over the matrix for two pivots.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def eliminate(A: Float[Array, "n k"], above: bool = False) -> Float[Array, "n k"]:
    """A with its first n columns eliminated below the diagonal, or on both sides of it; NaN below a pivot ≤ 0."""
    n = len(A)

    def factors(column: Array, row: Array, i: Array) -> Array:
        """What to take of the row of pivot i from each other one."""
        at = jax.lax.broadcasted_iota(int, column.shape, 0)
        return jnp.where(at != i if above else at > i, column / positive(jax.lax.dynamic_slice_in_dim(row, i, 1, 1)), 0)

    def two_pivots(half: Array, A: Array) -> Array:  # in one kernel, for at this size a kernel costs what two cost
        i = 2 * half
        j = jnp.minimum(i + 1, n - 1)
        first, second = (jax.lax.dynamic_slice_in_dim(A, k, 1, 0) for k in (i, j))
        left, right = (jax.lax.dynamic_slice_in_dim(A, k, 1, 1) for k in (i, j))
        left = factors(left, first, i)
        right = right - left * jax.lax.dynamic_slice_in_dim(first, j, 1, 1)
        second = second - jax.lax.dynamic_slice_in_dim(left, j, 1, 0) * first
        return A - left * first - jnp.where(i < j, factors(right, second, j), 0) * second

    return jax.lax.fori_loop(0, -(-n // 2), two_pivots, A)


def positive(pivot: Array) -> Array:
    """The pivot, NaN if it is not positive."""
    return jnp.where(pivot > 0, pivot, jnp.nan)


def solve(A: Float[Array, "n n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
    """A⁻¹ r; NaN if A is not positive definite."""
    n = len(A)
    eliminated = eliminate(jnp.concatenate([A, r[:, None]], axis=1), above=True)
    return eliminated[:, n] / positive(jnp.diagonal(eliminated))


def inverse_factor(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower triangular G with G A Gᵀ = I, so A⁻¹ = GᵀG; NaN if A is not positive definite."""
    n = len(A)
    upper, lower = jnp.split(eliminate(jnp.concatenate([A, jnp.eye(n, dtype=A.dtype)], axis=1)), 2, axis=1)
    return lower / jnp.sqrt(jnp.diagonal(upper))[:, None]
