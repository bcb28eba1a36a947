"""The box: exact on every coordinate, no tolerance where none is needed."""

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import box as kernels
from jaxlbfgsb.box import Box

N = 6


def on_numpy(kernel):
    """The compiled kernel, NumPy in and NumPy out."""
    compiled = jax.jit(kernel)
    return lambda *args: np.asarray(compiled(*args))


project, projected_gradient = on_numpy(kernels.project), on_numpy(kernels.projected_gradient)
breakpoints, path_end = on_numpy(kernels.breakpoints), on_numpy(kernels.path_end)
can_move, reach = on_numpy(kernels.can_move), on_numpy(kernels.reach)


@st.composite
def coordinate(draw, inside=True):
    """(x, l, u, g) with any relation of the four to each other; x outside the bounds if not `inside`."""
    # Float32 numbers, so that one strategy serves both dtypes; no subnormal one, which XLA flushes to zero.
    magnitude = st.floats(2.0**-30, 2.0**30, width=32)
    number = st.one_of(st.just(0.0), magnitude, magnitude.map(lambda a: -a))
    low, x, up = sorted(draw(number) for _ in range(3))
    lower, upper = draw(st.sampled_from([low, x, -np.inf])), draw(st.sampled_from([up, x, np.inf]))
    return x if inside else draw(number), lower, upper, draw(number)


def points(inside=True):
    """x, box and g of N coordinates, in either dtype."""

    def arrays(drawn):
        coordinates, dtype = drawn
        x, lower, upper, g = np.array(coordinates, dtype).T
        return x, Box(lower, upper), g

    coordinates = st.lists(coordinate(inside), min_size=N, max_size=N)
    return st.tuples(coordinates, st.sampled_from([np.float32, np.float64])).map(arrays)


@given(points(inside=False))
def test_projection_is_inside_or_exactly_on_a_bound(drawn):
    x, box, _ = drawn
    p = project(x, box)
    assert all(((p == x) & (box.lower < x) & (x < box.upper)) | (p == box.lower) | (p == box.upper))


@given(points(inside=False))
def test_projection_equals_its_oracle(drawn):
    x, box, _ = drawn
    assert_array_equal(project(x, box), oracles.project(x, *box))


@given(points())
def test_projection_leaves_feasible_points_alone(drawn):
    x, box, _ = drawn
    assert_array_equal(project(x, box), x)


@given(points())
def test_projected_gradient_is_zero_exactly_where_first_order(drawn):
    x, box, g = drawn
    first_order = (g == 0) | ((g > 0) & (x == box.lower)) | ((g < 0) & (x == box.upper))
    assert_array_equal(projected_gradient(x, g, box) == 0, first_order)


@given(points())
def test_projected_gradient_equals_its_formula(drawn):
    x, box, g = drawn
    rounding = 2 * np.finfo(x.dtype).eps * (np.abs(x) + np.abs(g))
    assert all(np.abs(projected_gradient(x, g, box) - (oracles.project(x - g, *box) - x)) <= rounding)


@given(points())
def test_projected_gradient_is_never_longer_than_the_gradient(drawn):
    x, box, g = drawn
    assert all(np.abs(projected_gradient(x, g, box)) <= np.abs(g))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projected_gradient_keeps_a_small_gradient_where_x_is_huge(dtype):
    x, g = np.array([1e20, -1e20], dtype), np.array([1e-5, -1e-5], dtype)
    none = Box(np.full(2, -np.inf, dtype), np.full(2, np.inf, dtype))
    assert_array_equal(projected_gradient(x, g, none), -g)


@given(points())
def test_breakpoints_are_never_negative_nor_nan(drawn):
    assert all(breakpoints(drawn[0], drawn[2], drawn[1]) >= 0)


@given(points())
def test_breakpoints_equal_their_oracle(drawn):
    x, box, g = drawn
    expected = [oracles.breakpoint(*i) for i in zip(*(np.asarray(v, float) for v in (x, g, *box)), strict=True)]
    assert_allclose(breakpoints(x, g, box), expected, rtol=2 * np.finfo(x.dtype).eps)


@given(points())
def test_breakpoints_are_infinite_exactly_where_no_bound_is_met(drawn):
    x, box, g = drawn
    never = (g == 0) | ((g > 0) & np.isinf(box.lower)) | ((g < 0) & np.isinf(box.upper))
    assert_array_equal(np.isinf(breakpoints(x, g, box)), never)


@given(points())
def test_path_is_at_its_end_at_the_breakpoint(drawn):
    x, box, g = drawn
    t, end = breakpoints(x, g, box), path_end(x, g, box)
    rounding = 4 * np.finfo(x.dtype).eps * (np.abs(x) + np.abs(end))
    assert all(np.isinf(t) | (np.abs(x - np.where(np.isinf(t), 0, t) * g - end) <= rounding))


@given(points())
def test_path_ends_on_the_bound_that_the_gradient_pushes_to(drawn):
    x, box, g = drawn
    assert_array_equal(path_end(x, g, box), np.select([g > 0, g < 0], box, x))


@given(points())
def test_can_move_equals_its_oracle(drawn):
    x, box, g = drawn
    assert_array_equal(can_move(x, g, box), [oracles.movable(*i) for i in zip(x, g, *box, strict=True)])


@given(points())
def test_reach_ends_on_the_bound_ahead(drawn):
    x, box, d = drawn
    step = reach(x, d, box)
    bound = np.where(d > 0, box.upper, box.lower)
    rounding = 4 * np.finfo(x.dtype).eps * (np.abs(x) + np.abs(bound))
    assert all(np.isinf(step) | (np.abs(x + np.where(np.isinf(step), 0, step) * d - bound) <= rounding))


@given(points())
def test_reach_is_infinite_exactly_where_no_bound_is_ahead(drawn):
    x, box, d = drawn
    never = (d == 0) | ((d > 0) & np.isinf(box.upper)) | ((d < 0) & np.isinf(box.lower))
    assert_array_equal(np.isinf(reach(x, d, box)), never)
