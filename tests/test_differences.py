"""Finite differences: SciPy's points and values, the box kept to the ulp, and close to the true gradient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize._numdiff import approx_derivative

from jaxlbfgsb.differences import SCHEMES, gradient

REAL = ("2-point", "3-point")
EACH_SCHEME = pytest.mark.parametrize("scheme", SCHEMES)
EACH_REAL_SCHEME = pytest.mark.parametrize("scheme", REAL)
EACH_SEED = pytest.mark.parametrize("seed", range(20))


def wave(x):
    """Smooth, with another slope along each variable, and of complex numbers too."""
    return np.sum(np.arange(1, x.size + 1) * x / (3 + x**2) + 0.1 * x**2)


def slope(x):
    return np.arange(1, x.size + 1) * (3 - x**2) / (3 + x**2) ** 2 + 0.2 * x


def ours(x, lower=None, upper=None, function=wave, **options):
    """The points that `gradient` wants, its result and its count."""
    points = []

    def values(asked):
        for point in asked:
            points.append(point.copy())
            yield function(point)

    lower, upper = (np.full(x.shape, end) if side is None else side
                    for side, end in ((lower, -np.inf), (upper, np.inf)))  # fmt: skip
    g, count = gradient(values, x, function(x), lower, upper, **options)
    return points, g, count


def scipys(x, lower=-np.inf, upper=np.inf, scheme="2-point", absolute=None, relative=None):
    points = []

    def function(point):
        points.append(point.copy())
        return wave(point)

    g = approx_derivative(function, x, scheme, relative, absolute, wave(x), (lower, upper))
    return points, g


def compare(x, *box, **options):
    """Checks points bit for bit, and values up to the noise of differences, against SciPy."""
    (points, g, _), (scipys_points, scipys_g) = ours(x, *box, **options), scipys(x, *box, **options)
    assert_array_equal(points, scipys_points)
    assert_allclose(g, scipys_g, rtol=1e-12)


def draw(seed):
    """A point of five variables with entries of many sizes, zero among them."""
    random = np.random.RandomState(seed)
    x = random.standard_normal(5) * 10.0 ** random.randint(-8, 9, 5)
    return np.where(random.uniform(size=5) < 0.1, 0, x)


def draw_box(seed):
    """A box around it: each side far, near, very near or at x."""
    random, x = np.random.RandomState(1000 + seed), draw(seed)
    below, above = random.choice([np.inf, 1, 1e-3, 1e-8, 1e-9, 1e-12, 0], [2, 5]) * np.maximum(1, abs(x))
    tight = below + above == 0
    return x, x - below, np.where(tight, x + 1, x + above)


STEPS = {
    "usual": {},
    "absolute": {"absolute": 1e-8},
    "absolute, backward": {"absolute": -1e-6},
    "large": {"absolute": 0.3},
    "lost in x": {"absolute": 1e-30},
    "zero": {"absolute": 0.0},
    "absolute for each": {"absolute": np.array([1e-8, -1e-7, 1e-6, 1e-30, -0.5])},
    "relative": {"relative": 1e-7},
    "relative, backward": {"relative": -1e-7},
    "relative for each": {"relative": np.array([1e-8, -1e-7, 1e-6, 1e-30, -0.5])},
}
EACH_STEP = pytest.mark.parametrize("step", STEPS)


@EACH_SCHEME
@EACH_STEP
@pytest.mark.parametrize("seed", range(5))
def test_points_and_values_are_scipys(scheme, step, seed):
    compare(draw(seed), scheme=scheme, **STEPS[step])


@EACH_SCHEME
@EACH_STEP
@EACH_SEED
def test_points_and_values_in_a_box_are_scipys(scheme, step, seed):
    compare(*draw_box(seed), scheme=scheme, **STEPS[step])


@EACH_SCHEME
@pytest.mark.parametrize("n", [1, 2, 30])
def test_points_and_values_are_scipys_for_other_sizes(scheme, n):
    compare(np.linspace(-1, 2, n), scheme=scheme)


@EACH_REAL_SCHEME
@pytest.mark.parametrize("side", [0, 1])
def test_points_and_values_at_a_bound_are_scipys(scheme, side):
    x = np.array([0.3, -2.0, 1e6])
    box = [np.full(3, -np.inf), np.full(3, np.inf)]
    box[side] = x
    compare(x, *box, scheme=scheme)


@EACH_REAL_SCHEME
@EACH_STEP
@EACH_SEED
def test_no_point_is_outside_the_box(scheme, step, seed):
    x, lower, upper = draw_box(seed)
    points, *_ = ours(x, lower, upper, scheme=scheme, **STEPS[step])
    assert all((lower <= point).all() and (point <= upper).all() for point in points)


@given(
    x=st.floats(-1e6, 1e6),
    below=st.floats(0, 1),
    above=st.floats(0, 1),
    step=st.floats(-1, 1),
    scheme=st.sampled_from(REAL),
)
def test_no_point_is_outside_any_box(x, below, above, step, scheme):
    lower, x, upper = np.array([x - below]), np.array([x]), np.array([x + above])
    points, *_ = ours(x, lower, upper, scheme=scheme, absolute=step)
    assert all(lower <= point <= upper for point in points)


@given(x=st.floats(-1e6, 1e6), ulps=st.integers(1, 3), at_lower=st.booleans())
def test_a_box_of_some_ulps_has_room_for_a_forward_difference(x, ulps, at_lower):
    far = x
    for _ in range(ulps):
        far = np.nextafter(far, np.inf if at_lower else -np.inf)
    lower, upper = np.sort([[x], [far]], 0)
    points, g, _ = ours(np.array([x]), lower, upper, lambda point: point[0] - x)
    assert_array_equal([*points, g], [[far], [1]])


@EACH_SCHEME
def test_a_variable_without_room_has_no_derivative(scheme):
    x, lower, upper = np.ones(3), np.array([0.0, 1.0, -np.inf]), np.array([2.0, 1.0, np.inf])
    _, g, _ = ours(x, lower, upper, scheme=scheme)
    assert_array_equal(np.isnan(g), [False, True, False])


@EACH_SCHEME
def test_a_variable_without_room_is_not_moved(scheme):
    x, lower, upper = np.ones(3), np.array([0.0, 1.0, -np.inf]), np.array([2.0, 1.0, np.inf])
    points, *_ = ours(x, lower, upper, scheme=scheme)
    assert {point[1] for point in points} == {1}


@EACH_SCHEME
def test_nothing_is_asked_where_no_variable_has_room(scheme):
    points, g, count = ours(np.ones(2), np.ones(2), np.ones(2), scheme=scheme)
    assert (points, count, np.isnan(g).all()) == ([], 0, True)


@EACH_SCHEME
@EACH_SEED
def test_count_is_that_of_the_points(scheme, seed):
    points, _, count = ours(*draw_box(seed), scheme=scheme)
    assert count == len(points)


@EACH_SCHEME
def test_x_is_not_written(scheme):
    x = np.array([1.0, 2.0])
    ours(x, scheme=scheme)
    assert_array_equal(x, [1, 2])


@EACH_SCHEME
def test_points_are_arrays_of_their_own(scheme):
    kept = []
    gradient(lambda points: [kept.append(point) or wave(point) for point in points], np.ones(2), wave(np.ones(2)),
             np.full(2, -np.inf), np.full(2, np.inf), scheme=scheme)  # fmt: skip
    assert not any(np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i])


ACCURACY = {"2-point": 1e-6, "3-point": 1e-9, "cs": 1e-14}


@pytest.mark.parametrize("scheme", ACCURACY)
@pytest.mark.parametrize("seed", range(10))
def test_values_are_close_to_the_gradient(scheme, seed):
    x = np.random.RandomState(seed).uniform(-2, 2, 4)
    _, g, _ = ours(x, scheme=scheme)
    assert_allclose(g, slope(x), rtol=0, atol=ACCURACY[scheme] * 10)


@EACH_REAL_SCHEME
@pytest.mark.parametrize("seed", range(10))
def test_values_at_bounds_are_close_to_the_gradient(scheme, seed):
    random = np.random.RandomState(seed)
    x = random.uniform(-2, 2, 4)
    at_lower = random.uniform(size=4) < 0.5
    _, g, _ = ours(x, np.where(at_lower, x, -9), np.where(at_lower, 9, x), scheme=scheme)
    assert_allclose(g, slope(x), rtol=0, atol=ACCURACY[scheme] * 100)


@EACH_REAL_SCHEME
def test_differences_of_a_line_are_exact_to_rounding_where_the_step_is_not_a_number_of_two_bits(scheme):
    """The step is divided by as it is after rounding."""
    _, g, _ = ours(np.array([1e5]), function=lambda x: x[0], scheme=scheme, absolute=1e-9 * 3)
    assert_array_equal(g, [1])


def test_central_differences_of_a_parabola_are_exact_at_a_bound_too():
    _, g, _ = ours(np.array([1.0]), np.array([1.0]), None, lambda x: x[0] ** 2, scheme="3-point", absolute=0.25)
    assert_array_equal(g, [2])
