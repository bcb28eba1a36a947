"""The covariance of a fit: NIST's certified deviations, formulas, bounds, and matrices that determine nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import peaks
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import Bounds, curve_fit

from jaxlbfgsb import Options, Result, covariance, minimize, minimize_many, nist

DATA = [nist.load(name) for name in nist.NAMES]


def at(x):
    """A result that ended at x."""
    x, one = jnp.asarray(x), jnp.array(1)
    zero, no = jnp.array(0.0), jnp.array(False)
    return Result(x, zero, 0 * x, residual=zero, status=one, iterations=one, evaluations=one, degenerate=no)


@pytest.mark.parametrize("data", DATA, ids=nist.NAMES)
def test_deviations_are_those_that_nist_certifies(data):
    def residuals(b):
        return data.y - data.model(b, jnp.asarray(data.x))

    found = covariance(residuals, at(data.certified))
    assert_allclose(np.sqrt(np.diagonal(found)), data.std, rtol=1e-6)


def line(seed=0, n=3, N=12):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(N, n)), rng.normal(size=N)
    return X, y, lambda b: jnp.asarray(X) @ b - y


@pytest.mark.parametrize("active", [(), (0,), (0, 2), (0, 1, 2)])
def test_variables_at_a_bound_are_known_and_the_others_have_the_formula_of_a_line(active):
    X, _, residuals = line()
    x = np.array([0.3, -0.2, 0.5])
    lower = np.where(np.isin(np.arange(3), active), x, -9)
    found = covariance(residuals, at(x), bounds=(lower, None))
    F = [i for i in range(3) if i not in active]
    r, expected = np.asarray(residuals(x)), np.zeros((3, 3))
    expected[np.ix_(F, F)] = r @ r / (12 - len(F)) * np.linalg.inv(X[:, F].T @ X[:, F]) if F else 0
    assert_allclose(found, expected, rtol=1e-10)


def test_rows_of_padding_are_no_degrees_of_freedom():
    X, y, residuals = line()
    X, y, weight = (np.concatenate([part, np.zeros((5, *part.shape[1:]))]) for part in (X, y, np.ones(12)))
    x, lower = np.array([0.3, -0.2, 0.5]), np.array([0.3, -9, -9])
    args = tuple(map(jnp.asarray, (X, y, weight)))

    def padded(b, X, y, weight):
        return weight * (X @ b - y)

    for bounds in None, (lower, None):
        expected = covariance(residuals, at(x), bounds=bounds)
        assert_allclose(covariance(padded, at(x), args, bounds=bounds), expected, rtol=1e-12)
        many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), at(x))
        found = covariance(padded, many, args, bounds=bounds, in_axes=(None, None))
        assert_allclose(found, jnp.stack([expected] * 2), rtol=1e-12)


def test_many_fits_of_padded_data_have_the_covariances_of_each_alone():
    X, y, _ = line()
    lengths = [12, 6, 9]
    weight = np.array([np.arange(12) < k for k in lengths], float)

    def residuals(b, X, y, weight):
        return weight * (X @ b - y)

    X, y, x = jnp.asarray(X), jnp.asarray(y), jnp.array([0.3, -0.2, 0.5])
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), at(x))
    found = covariance(residuals, many, (X, y, weight), in_axes=((None, None, 0), None))
    for C, k in zip(found, lengths, strict=True):
        assert_allclose(C, covariance(lambda b, k=k: X[:k] @ b - y[:k], at(x)), rtol=1e-12)


@pytest.mark.parametrize("bad", ["residual", "derivative"])
def test_a_row_that_is_nan_is_no_padding(bad):
    X, y, _ = line(N=4)
    (y if bad == "residual" else X)[:] = np.nan
    x = jnp.zeros(3)
    found = covariance(lambda b: jnp.asarray(X) @ b - y, at(x))
    assert_array_equal(found, np.nan if bad == "residual" else np.inf)


def test_deviations_are_those_of_curve_fit():
    t, sigma = np.linspace(0, 3, 30), np.linspace(0.05, 0.2, 30)
    y = 2 * np.exp(-0.7 * t) + sigma * np.random.default_rng(0).normal(size=30)

    def residuals(p):
        return (p[0] * jnp.exp(-p[1] * t) - y) / sigma

    def likelihood(p):
        return 0.5 * jnp.sum(residuals(p) ** 2)

    result = minimize(likelihood, jnp.ones(2), options=Options(ftol=0.0, gtol=1e-8))
    for fun, absolute, rtol in (residuals, False, 1e-5), (likelihood, True, 0.05):
        _, expected = curve_fit(lambda t, a, b: a * np.exp(-b * t), t, y, [1, 1], sigma, absolute_sigma=absolute)
        assert_allclose(covariance(fun, result), expected, rtol=rtol)


def test_a_likelihood_has_the_inverse_of_its_hessian():
    A = np.array([[4.0, 1, 0], [1, 3, 0.5], [0, 0.5, 1e-8]])
    found = covariance(lambda x: 0.5 * x @ jnp.asarray(A) @ x, at(np.zeros(3)))
    assert np.isinf(found).all()  # its determinant is negative
    A[2, 1] = A[1, 2] = 5e-5
    found = covariance(lambda x: 0.5 * x @ jnp.asarray(A) @ x, at(np.zeros(3)))
    assert_allclose(found, np.linalg.inv(A), rtol=1e-8)


def test_a_bounded_likelihood_has_that_of_the_free_variables():
    A = np.array([[4.0, 1, 0.2], [1, 3, 0.5], [0.2, 0.5, 2]])
    result = at(np.zeros(3))
    found = covariance(lambda x: 0.5 * x @ jnp.asarray(A) @ x, result, bounds=([None, 0.0, None], None))
    expected = np.zeros((3, 3))
    expected[np.ix_([0, 2], [0, 2])] = np.linalg.inv(A[np.ix_([0, 2], [0, 2])])
    assert_allclose(found, expected, rtol=1e-12)


def test_what_is_not_determined_is_infinite():
    result = at(np.ones(2))
    assert_array_equal(covariance(lambda x: jnp.full(5, x[0] + x[1]), result), np.inf)
    assert_array_equal(covariance(lambda x: x, result), np.inf)  # no residual to spare
    assert_array_equal(covariance(lambda x: (x[0] - x[1]) ** 2, result), np.inf)
    assert_array_equal(covariance(lambda x: -x @ x, result), np.inf)


def test_parameters_in_a_tree_are_in_the_order_of_its_leaves():
    _, _, residuals = line()
    result = minimize(lambda b: jnp.sum(residuals(b) ** 2), jnp.zeros(3))
    tree = result._replace(x={"a": result.x[:1], "b": result.x[1:]})
    found = covariance(lambda p: residuals(jnp.concatenate([p["a"], p["b"]])), tree)
    assert_allclose(found, covariance(residuals, result), rtol=1e-12)


BAD = {
    "fun": (lambda r: covariance(None, r), "fun must be a function"),
    "result": (lambda r: covariance(lambda x: x, r.x), "result must be a Result"),
    "pair": (lambda r: covariance(lambda x: (x, x), r), "fun must return one real floating-point array"),
    "nothing": (lambda r: covariance(lambda x: None, r), "fun must return one real floating-point array"),
    "integers": (lambda r: covariance(lambda x: jnp.arange(9), r), r"floating-point array, .* got int64\[9\]"),
    "complex": (lambda r: covariance(lambda x: x.astype(complex), r), r"floating-point array, .* got complex128\[2\]"),
    "axes of a fit": (lambda r: covariance(lambda x: x, r, in_axes=(0, 0, None)), "in_axes must be a tuple of two"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call(at(np.ones(2)))


def test_without_residuals_there_is_no_variance_and_without_a_jacobian_nothing_is_determined():
    _, _, residuals = line()
    assert_array_equal(covariance(lambda b: residuals(b) + np.nan, at(np.ones(3))), np.nan)
    assert_array_equal(covariance(lambda b: residuals(b) * np.nan, at(np.ones(3))), np.inf)


def test_bounds_of_scipy_may_differ():
    _, _, residuals = line()
    single = at(np.ones(3))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), single)
    lower = np.array([[-9.0, -9, -9], [1, -9, -9]])
    found = covariance(residuals, many, bounds=Bounds(lower, np.full((2, 3), 9.0)), in_axes=(0, 0))
    for i in range(2):
        assert_allclose(found[i], covariance(residuals, single, bounds=(lower[i], 9.0)), rtol=1e-12)


def test_many_fits_at_once():
    def residuals(p, y):
        return (p[0] * jnp.exp(-((peaks.T - p[1]) ** 2) / (2 * p[2] ** 2)) + p[3] - y) / peaks.NOISE

    x0, data = peaks.draw(40)
    upper = np.tile(peaks.UPPER, (40, 1))
    upper[::2, 0] = 0.9
    result = minimize_many(peaks.misfit, x0, data, bounds=(peaks.LOWER, upper), in_axes=(0, 0, (None, 0)))
    found = covariance(residuals, result, data, bounds=(peaks.LOWER, upper), in_axes=(0, (None, 0)))
    assert found.shape == (40, 4, 4)
    assert_array_equal(found[::2, 0], 0)
    single = jax.tree.map(lambda leaf: leaf[7], result)
    assert_allclose(found[7], covariance(residuals, single, data[7], bounds=(peaks.LOWER, upper[7])), rtol=1e-9)
