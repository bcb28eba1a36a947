"""Elimination of small matrices against NumPy's LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import elimination

EPS = np.finfo(float).eps
NOT_POSITIVE = pytest.mark.parametrize("pivot", [0.0, -1.0, np.nan])
eliminate = jax.jit(elimination.eliminate)
solve, inverse_factor = jax.jit(elimination.solve), jax.jit(elimination.inverse_factor)


def definite(seed, n):
    """A random positive definite matrix, its condition number up to 1e8, and what rounding may do relative to it."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    condition = 10 ** rng.uniform(0, 8)
    A = Q @ np.diag(condition ** np.linspace(-1, 0, n)) @ Q.T
    return (A + A.T) / 2, 10 * n * EPS * condition


every_matrix = pytest.mark.parametrize(("seed", "n"), [(seed, n) for n in (1, 4, 5, 24) for seed in range(6)])


@every_matrix
def test_elimination_makes_an_upper_triangle(seed, n):
    A, rounding = definite(seed, n)
    assert_allclose(np.tril(eliminate(A), -1), np.zeros((n, n)), rtol=0, atol=rounding)


@every_matrix
def test_solution_solves(seed, n):
    A, rounding = definite(seed, n)
    r = np.random.default_rng(seed).normal(size=n)
    expected = np.linalg.solve(A, r)
    assert_allclose(solve(A, r), expected, rtol=0, atol=rounding * np.linalg.norm(expected))


@every_matrix
def test_inverse_factor_makes_the_identity(seed, n):
    A, rounding = definite(seed, n)
    G = inverse_factor(A)
    assert_allclose(G @ A @ G.T, np.eye(n), rtol=0, atol=rounding)


@every_matrix
def test_inverse_factor_is_lower_triangular(seed, n):
    G = inverse_factor(definite(seed, n)[0])
    assert_array_equal(np.triu(G, 1), np.zeros((n, n)))


@NOT_POSITIVE
def test_solution_with_a_pivot_that_is_not_positive_is_nan(pivot):
    A, _ = definite(0, 4)
    A[2, 2] = pivot
    assert jnp.isnan(solve(A, np.ones(4))).all()


@NOT_POSITIVE
def test_inverse_factor_with_a_pivot_that_is_not_positive_is_nan_from_there(pivot):
    A, _ = definite(0, 4)
    A[2, 2] = pivot
    assert jnp.isnan(jnp.diagonal(inverse_factor(A))[2:]).all()
