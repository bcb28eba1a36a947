"""Finite differences beside SciPy's: the same points and values, and none outside the box."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize._numdiff import approx_derivative

from jaxlbfgsb import differences


def smooth(x):
    return np.sum(np.exp(x) * np.cos(2 * x)) + x[0] * x[-1]


@pytest.fixture(params=range(60))
def case(request):
    """A point in a box with tight, wide and missing bounds, and a step."""
    random = np.random.RandomState(request.param)
    n = random.randint(1, 6)
    x = random.normal(size=n) * 10.0 ** random.randint(-2, 2, n)
    lower = x - np.where(random.rand(n) < 0.3, 0, 10.0 ** random.randint(-9, 1, n))
    upper = x + np.where((random.rand(n) < 0.3) & (lower < x), 0, 10.0 ** random.randint(-9, 1, n))
    missing = random.rand(2, n) < 0.3
    step = [None, 1e-8, -1e-8, 1e-3, 10.0 ** random.randint(-9, 0, n)][request.param % 5]
    return x, np.where(missing[0], -np.inf, lower), np.where(missing[1], np.inf, upper), step


def watched(points):
    def values(function, many):
        for point in many:
            points.append(point.copy())
            yield function(point)

    return values


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("scheme", differences.SCHEMES)
def test_points_and_values_are_scipys(scheme, kind, case):
    x, lower, upper, step = case
    ours, scipys = [], []
    f = smooth(x)
    g, count = differences.gradient(
        lambda many: watched(ours)(smooth, many), x, f, lower, upper, scheme, **{kind: step}
    )
    names = {"absolute": "abs_step", "relative": "rel_step"}
    expected = approx_derivative(
        lambda x: (scipys.append(x.copy()), smooth(x))[1], x, scheme, f0=f, bounds=(lower, upper), **{names[kind]: step}
    )
    assert count == len(ours) == len(scipys)
    assert_allclose(ours, scipys, rtol=3e-16, atol=0)
    assert_allclose(g, np.ravel(expected), rtol=1e-4, atol=1e-4 * abs(f))


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_no_point_is_outside_the_box(scheme, case):
    x, lower, upper, step = case
    points = []
    differences.gradient(lambda many: watched(points)(smooth, many), x, smooth(x), lower, upper, scheme, step)
    assert all(np.all((lower <= point) & (point <= upper)) for point in points)


def test_fixed_variables_have_no_derivative_and_cost_nothing():
    x = np.array([1.0, 2.0])
    points = []
    g, count = differences.gradient(lambda many: watched(points)(smooth, many), x, smooth(x), x - [0, 1], x)
    assert_array_equal([np.isnan(g[0]), np.isnan(g[1]), count], [True, False, 1])
