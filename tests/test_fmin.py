"""SciPy's faces: what a caller of SciPy's own sees, and where it is nothing to rely on, what the docstring says."""

import functools
import inspect
import math
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
import scipy.optimize
from beside_scipy import (
    CREST,
    START,
    WARNS_OF_OUTPUT,
    Seen,
    agree,
    alike,
    bowl,
    compare,
    form,
    height,
    jax_valley,
    slope,
    valley,
    watch,
)
from callables import CALLBACKS, VALUES, OwnError, after, beale, scribbling, thrower, turncoat
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import Bounds, OptimizeResult, rosen, rosen_der

from jaxlbfgsb import fmin_l_bfgs_b, host, scipy_method

# Call and return


def test_signature_is_scipys():
    ours, scipys = (inspect.signature(solver) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b))
    output = {"iprint", "disp"}  # their defaults are private to each
    shown = [
        [(p.name, p.kind, None if p.name in output else p.default) for p in signature.parameters.values()]
        for signature in (ours, scipys)
    ]
    assert shown[0] == shown[1]


def test_defaults_of_iprint_and_disp_show_as_documented():
    parameters = inspect.signature(fmin_l_bfgs_b).parameters
    assert [repr(parameters[name].default) for name in ("iprint", "disp")] == ["-1", "None"]


@pytest.mark.skipif(not WARNS_OF_OUTPUT, reason="this SciPy does not warn of iprint and disp")
def test_every_argument_may_be_positional():
    agree(height, START, slope, (2.0,), 0, [(0, 1.5)] * 2, 10, 1e7, 1e-5, 1e-8, -1, 100, 100, None, lambda x: None, 20)


def test_every_argument_may_be_named():
    agree(height, x0=START, fprime=slope, args=(2.0,), approx_grad=0, bounds=[(0, 1.5)] * 2, m=10, factr=1e7,
          pgtol=1e-5, epsilon=1e-8, maxfun=100, maxiter=100, callback=lambda x: None, maxls=20)  # fmt: skip


@pytest.mark.parametrize("extra", [((), {"foo": 1}), ((None,) * 15, {}), ((), {"x0": START})], ids=str)
def test_arguments_out_of_the_signature_are_refused(extra):
    agree(bowl, START, *extra[0], **extra[1])


def test_result_is_scipys():
    agree(bowl, START)


def test_result_at_the_start_is_scipys():
    agree(bowl, np.ones(2))


@pytest.mark.parametrize("form_of_f", VALUES)
def test_f_has_the_type_that_scipy_gives_it(form_of_f):
    agree(lambda x: (VALUES[form_of_f](height(x)), slope(x)), START)


@pytest.mark.parametrize("form_of_f", VALUES)
def test_f_beside_fprime_has_the_type_that_scipy_gives_it(form_of_f):
    agree(lambda x: VALUES[form_of_f](height(x)), START, slope)


@pytest.mark.parametrize("form_of_f", ["float", "float64", "0-d", "(1,)", "list", "JAX"])
def test_f_beside_differences_has_the_type_that_scipy_gives_it(form_of_f):
    agree(lambda x: VALUES[form_of_f](height(x)), START, approx_grad=True, rtol=1e-6)


@pytest.mark.parametrize("pair", [tuple, list, lambda pair: (*pair, "more", None), lambda pair: [*pair, 3],
                                  lambda pair: np.array(pair, dtype=object)],
                         ids=["tuple", "list", "longer tuple", "longer list", "array of objects"])  # fmt: skip
def test_func_may_return_anything_whose_first_entries_are_f_and_g(pair):
    agree(lambda x: pair(bowl(x)), START)


def test_f_and_g_of_one_variable_may_come_in_one_array():
    agree(lambda x: np.append(*bowl(x)), [3.0])


def test_f_and_g_of_one_variable_may_come_in_one_jax_array():
    agree(lambda x: jnp.append(*bowl(x)), [3.0])


GRADIENTS = {
    "list": list,
    "tuple": tuple,
    "float32": lambda g: g.astype(np.float32),
    "float16": lambda g: g.astype(np.float16),
    "int": lambda g: np.rint(g).astype(int),
    "big-endian": lambda g: g.astype(">f8"),
    "column of a matrix": lambda g: np.stack([g, g], 1)[:, 0],
    "every other entry": lambda g: np.repeat(g, 2)[::2],
    "reversed": lambda g: g[::-1].copy()[::-1],
    "read-only": lambda g: np.frombuffer(g.tobytes()),
    "objects": lambda g: g.astype(object),
    "complex": lambda g: g.astype(complex),
    "JAX": jnp.asarray,
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_may_be_of_any_kind(kind):
    agree(lambda x: (height(x), GRADIENTS[kind](slope(x))), START)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_of_fprime_may_be_of_any_kind(kind):
    agree(height, START, lambda x: GRADIENTS[kind](slope(x)))


@pytest.mark.parametrize("kind", [lambda g: g.item(), lambda g: np.array(g.item()), lambda g: [g.item()], np.float32],
                         ids=["float", "0-d", "list", "float32"])  # fmt: skip
def test_gradient_of_one_variable_may_be_a_number(kind):
    agree(lambda x: (height(x), kind(slope(x)) if kind is not np.float32 else np.float32(slope(x)[0])), [3.0])


@pytest.mark.parametrize("size", [0, 1, 3])
def test_gradient_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match="gradient"):
        fmin_l_bfgs_b(lambda x: (height(x), np.ones(size)), START)


def test_gradient_of_another_size_of_fprime_is_refused():
    with pytest.raises(ValueError, match="gradient"):
        fmin_l_bfgs_b(height, START, lambda x: np.ones(3))


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)], ids=str)
def test_gradient_of_another_shape_is_ravelled(shape):
    alike(fmin_l_bfgs_b(lambda x: (height(x), slope(x).reshape(shape)), START), fmin_l_bfgs_b(bowl, START))


# x0


STARTS = {
    "list": [3.0, 4.0],
    "tuple": (3.0, 4.0),
    "int": [3, 4],
    "uint8": np.array([3, 4], np.uint8),
    "bool": [True, False],
    "number": 3.0,
    "int number": 3,
    "0-d": np.array(3.0),
    "2-D": np.array([[3.0, 4.0], [5.0, 6.0]]),
    "2-D Fortran": np.asfortranarray([[3.0, 4.0], [5.0, 6.0]]),
    "column": np.array([[3.0], [4.0]]),
    "3-D": np.arange(8.0).reshape(2, 2, 2),
    "strided": np.arange(6.0)[::3],
    "reversed": np.array([4.0, 3.0])[::-1],
    "masked": np.ma.array([3.0, 4.0]),
    "objects": np.array([3.0, 4], dtype=object),
    "numeric strings": ["3", "4"],
    "JAX": jnp.array([3.0, 4.0]),
    "JAX number": jnp.array(3.0),
}


@pytest.mark.parametrize("kind", STARTS)
def test_x0_may_be_of_any_kind(kind):
    agree(bowl, STARTS[kind])


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_x0_may_be_a_matrix():
    agree(bowl, np.matrix([[3.0, 4.0]]))


def test_x0_may_be_big_endian():
    alike(fmin_l_bfgs_b(bowl, START.astype(">f8")), fmin_l_bfgs_b(bowl, START))


@pytest.mark.parametrize("x0", [START.astype(np.float32), jnp.asarray(START, jnp.float32), START.astype(np.float16)],
                         ids=["float32", "JAX float32", "float16"])  # fmt: skip
def test_x0_with_few_bits_and_bounds_is_what_it_is_to_scipy(x0):
    agree(bowl, x0, bounds=[(0, 5)] * 2)


@pytest.mark.parametrize("x0", [CREST.astype(np.float32), jnp.asarray(CREST, jnp.float32), CREST.astype(np.longdouble)],
                         ids=["float32", "JAX float32", "longdouble"])  # fmt: skip
def test_x0_of_another_dtype_is_taken_as_float64(x0):
    seen, scipys = (
        watch(solver, valley, x)
        for solver, x in ((fmin_l_bfgs_b, x0), (scipy.optimize.fmin_l_bfgs_b, np.asarray(x0).astype(np.float64)))
    )
    compare(seen, scipys, 1e-8, True)


def test_x0_is_not_written():
    x0 = START.copy()
    fmin_l_bfgs_b(bowl, x0, bounds=[(0, 2)] * 2)
    assert_array_equal(x0, START)


@pytest.mark.parametrize("options", [{}, {"maxls": 1}, {"m": 0}, {"pgtol": np.inf}, {"factr": -1}], ids=str)
def test_x_is_not_the_memory_of_x0(options):
    x0 = START.copy()
    assert not np.shares_memory(fmin_l_bfgs_b(bowl, x0, **options)[0], x0)


def test_x0_may_be_read_only():
    x0 = START.copy()
    x0.flags.writeable = False
    agree(bowl, x0)


@pytest.mark.parametrize("x0", [["a", "b"], [[1.0], [1.0, 2.0]], object(), {}, "3x"],
                         ids=["text", "ragged", "object", "dict", "string"])  # fmt: skip
def test_what_cannot_be_x0_is_refused(x0):
    agree(bowl, x0)


@pytest.mark.parametrize("options", [{}, {"bounds": []}, {"maxfun": 0}, {"maxiter": 0}], ids=str)
def test_no_variables_are_what_they_are_to_scipy(options):
    agree(lambda x: (3.0, x.copy()), [], **options)


def test_no_variables_and_fprime_are_what_they_are_to_scipy():
    agree(height, [], slope)


# Bounds


BOUNDS = {
    "list of tuples": [(0, 0.5), (2, 3)],
    "list of lists": [[0, 0.5], [2, 3]],
    "tuple": ((0, 0.5), (2, 3)),
    "array": np.array([[0, 0.5], [2, 3]]),
    "array of int": np.array([[0, 2], [2, 3]]),
    "one side": [(2, None), (None, 0)],
    "infinities": [(2, np.inf), (-np.inf, 0)],
    "bool": [(False, True), (False, True)],
    "arrays of one entry": [(np.array([0]), np.array([0.5])), (np.array(2.0), np.array([[3.0]]))],
    "JAX": jnp.array([[0, 0.5], [2, 3]]),
    "numeric strings": [("0", "0.5"), ("2", "3")],
    "mixed": [(np.float32(0.5), None), (None, None)],
    "narrow": [(0.3, np.nextafter(0.3, 1)), (None, None)],
    "at the minimum": [(1, 5), (1, 5)],
}


@pytest.mark.parametrize("spelling", BOUNDS)
def test_bounds_may_be_spelled_as_in_scipy(spelling):
    agree(bowl, START, bounds=BOUNDS[spelling])


@pytest.mark.parametrize("spelling", BOUNDS)
def test_bounds_of_another_function_may_be_spelled_as_in_scipy(spelling):
    agree(valley, CREST, bounds=BOUNDS[spelling], maxiter=6)


@pytest.mark.parametrize("bounds", [[(None, None)] * 2, [(-np.inf, np.inf)] * 2], ids=str)
def test_absent_bounds_give_the_unbounded_run(bounds):
    alike(fmin_l_bfgs_b(valley, CREST, bounds=bounds), fmin_l_bfgs_b(valley, CREST))


BAD_BOUNDS = {
    "too few": [(0, 1)],
    "too many": [(0, 1)] * 3,
    "none": [],
    "crossed": [(0, 1), (1, 0)],
    "crossed, of infinities": [(0, 1), (np.inf, -np.inf)],
    "triples": [(0, 1, 2), (0, 1, 2)],
    "singles": [(0,), (1,)],
    "None": [None, (0, 1)],
    "numbers": (0, 1),
    "text": [("a", 1), (0, 1)],
    "arrays of two": [(np.zeros(2), 1), (0, 1)],
    "one number": 3.0,
    "a zip": zip([0, 0], [1, 1], strict=True),
    "a pair and a single": [(0, 1), (0,)],
    "a single and a pair": [(0,), (0, 1)],
    "a pair and nothing": [(0, 1), ()],
}


@pytest.mark.parametrize("spelling", BAD_BOUNDS)
def test_bad_bounds_are_refused_before_func_is_called(spelling):
    assert agree(bowl, START, bounds=BAD_BOUNDS[spelling]).calls == []


@pytest.mark.parametrize("bounds", [[(0, 1), (0, 1, 2)], [(0, 1, 2), (0, 1)]], ids=str)
def test_a_triple_among_pairs_of_bounds_is_refused(bounds):
    """SciPy cuts it off if it stands beside a pair, and refuses it among its like."""
    alone = watch(scipy.optimize.fmin_l_bfgs_b, bowl, START, bounds=[(0, 1, 2)] * 2)
    for seen in (watch(fmin_l_bfgs_b, bowl, START, bounds=bounds), watch(scipy_method, bowl, START, bounds=bounds)):
        assert (seen.calls, type(seen.error), str(seen.error)) == ([], type(alone.error), str(alone.error))


@pytest.mark.parametrize("x0", [[3, -4], [np.inf, -np.inf], [1.5, 1.5], [2, 0]], ids=str)
def test_x0_is_moved_into_the_bounds_first(x0):
    agree(valley, x0, bounds=[(0, 2)] * 2)


def boxed(seed):
    """A quadratic of four variables, a start and a box for it, half of its sides absent or equal to the start."""
    random = np.random.RandomState(seed)
    A = random.standard_normal((4, 4))
    A, centre, x0 = A @ A.T + np.eye(4), random.standard_normal(4), random.standard_normal(4)
    width = random.choice([0, 0.1, 1, np.inf], [2, 4])

    def quadratic(x):
        return (x - centre) @ A @ (x - centre) / 2, A @ (x - centre)

    return quadratic, x0, np.stack([x0 - width[0], x0 + width[1]], 1)


EACH_BOX = pytest.mark.parametrize("seed", range(20))


@EACH_BOX
def test_runs_in_random_boxes_are_scipys(seed):
    quadratic, x0, bounds = boxed(seed)
    agree(quadratic, x0, bounds=bounds)


@EACH_BOX
def test_no_point_is_outside_the_bounds(seed):
    quadratic, x0, bounds = boxed(seed)
    calls = watch(fmin_l_bfgs_b, lambda x: quadratic(x)[0], x0, bounds=bounds, approx_grad=True).calls
    assert all((bounds[:, 0] <= x).all() and (x <= bounds[:, 1]).all() for *_, x in calls)


@EACH_BOX
def test_bounds_that_hold_the_gradient_are_hit_bit_for_bit(seed):
    quadratic, x0, bounds = boxed(seed)
    x, _, found = fmin_l_bfgs_b(quadratic, x0, bounds=bounds)
    held = abs(found["grad"]) > 1e-3
    assert_array_equal(x[held], np.where(found["grad"] > 0, *bounds.T)[held])


def test_gradient_in_the_result_is_not_projected():
    seen = agree(bowl, START, bounds=[(2, 5), (None, None)])
    assert_array_equal(seen.result[2]["grad"], slope(seen.result[0]))


@pytest.mark.parametrize("bounds", [[(2, 2), (None, None)], [(3, 3), (0, 1)], [(2, 2), (5, 5)]], ids=str)
def test_equal_bounds_fix_a_variable(bounds):
    agree(bowl, START, bounds=bounds)


@pytest.mark.parametrize("bounds", [[(np.nan, 1), (0, 1)], [(0, np.nan), (0, 1)], [(np.inf, np.inf), (0, 1)],
                                    [(0, 1), (-np.inf, -np.inf)]], ids=str)  # fmt: skip
def test_bounds_without_a_number_between_are_refused_before_func_is_called(bounds):
    seen = watch(fmin_l_bfgs_b, bowl, START, bounds=bounds)
    assert (type(seen.error), seen.calls) == (ValueError, [])


@pytest.mark.parametrize("bounds", [Bounds([0, 2], [0.5, 3]), Bounds([0, 2])], ids=str)
def test_bounds_may_be_an_object_of_scipys(bounds):
    alike(fmin_l_bfgs_b(valley, CREST, bounds=bounds),
          fmin_l_bfgs_b(valley, CREST, bounds=np.transpose([bounds.lb, np.broadcast_to(bounds.ub, 2)])))  # fmt: skip


@pytest.mark.parametrize("bounds", [Bounds(), Bounds([], []), Bounds(0, 1)], ids=str)
def test_a_bounds_object_without_variables_is_no_bounds(bounds):
    alike(fmin_l_bfgs_b(bowl, [], bounds=bounds), scipy.optimize.fmin_l_bfgs_b(bowl, []))


def test_equal_bounds_are_no_trouble_to_differences():
    x, _, found = fmin_l_bfgs_b(height, START, approx_grad=True, bounds=[(2, 2), (None, None)])
    assert_allclose([*x, found["grad"][0]], [2, 1, 0], atol=1e-6)


def test_equal_bounds_of_all_variables_are_no_trouble_to_differences():
    x, f, found = fmin_l_bfgs_b(height, START, approx_grad=True, bounds=[(2, 2), (5, 5)])
    assert (*x, f, found["funcalls"], found["warnflag"]) == (2, 5, height(np.array([2, 5])), 1, 0)


# Other arguments


SEVERAL = {
    "callback before bounds": {"callback": 3, "bounds": [(0, 1)]},
    "callback before the length": {"callback": 3, "x0": []},
    "length before order": {"bounds": [(1, 0)]},
    "order before maxls": {"bounds": [(1, 0)] * 2, "maxls": 0},
    "maxls before m": {"maxls": 0, "m": -1},
    "m before factr": {"m": -1, "factr": -1},
    "factr before m = 0": {"m": 0, "factr": -1},
    "m = 0 before n = 0": {"m": 0, "x0": []},
    "factr before n = 0": {"factr": -1, "x0": []},
}


@pytest.mark.parametrize("names", SEVERAL)
def test_the_first_of_several_errors_is_scipys(names):
    agree(bowl, **{"x0": START} | SEVERAL[names], message="m before" not in names and "before m" not in names)


@pytest.mark.skipif(not WARNS_OF_OUTPUT, reason="this SciPy does not warn of iprint and disp")
@pytest.mark.parametrize("bad", [{"callback": 3}, {"bounds": [(0, 1)]}, {"maxls": 0}], ids=str)
def test_the_callback_is_looked_at_before_and_all_else_after_the_warning(bad):
    agree(bowl, START, iprint=1, **bad)


@pytest.mark.parametrize("maxls", [
    0, -1, 0.0, np.nan, 1.5, None, "3", np.int64(3), 3, np.array(3), np.array([3]), 2**31 - 1, 2**31, 2**32 + 5,
    10**20, -(10**20), np.inf
])  # fmt: skip
def test_maxls_is_what_it_is_to_scipy(maxls):
    agree(valley, CREST, maxls=maxls, maxiter=4)


@pytest.mark.parametrize("m", [0, 1, 3, np.int64(10)])
def test_m_is_what_it_is_to_scipy(m):
    agree(valley, CREST, m=m, maxiter=8)


@pytest.mark.parametrize("m", [-1, 2.5, 10.0, None, "10", 10**6])
def test_what_cannot_be_m_is_refused_with_scipys_exception(m):
    agree(bowl, START, m=m, message=False)


def test_true_is_no_m():
    """SciPy finds out at the end."""
    both = [watch(solver, bowl, START, m=True) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]
    assert [type(seen.error) for seen in both] == [TypeError, TypeError]


@pytest.mark.parametrize("factr", [0, 10, 1e15, np.inf, np.nan, -1, -np.inf, 1, np.float32(1e12), True])
def test_factr_is_what_it_is_to_scipy(factr):
    agree(valley, CREST, factr=factr, maxiter=30, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [
    np.array(1e-3), np.array([1e-3]), np.array([[1e-3]]), np.array([]), jnp.array(1e-3), jnp.array([1e-3]), np.array(1)
], ids=repr)  # fmt: skip
@pytest.mark.parametrize(("name", "unit"), [("factr", 1e12), ("pgtol", 1.0)])
def test_tolerances_in_arrays_are_what_they_are_to_scipy(name, unit, tolerance):
    agree(valley, CREST, **{name: tolerance * unit}, maxiter=30, rtol=1e-6)


@pytest.mark.parametrize("factr", [None, "1e7", [1.0, 2.0], 1j])
def test_what_cannot_be_factr_is_refused_with_scipys_exception(factr):
    agree(bowl, START, factr=factr, message=False)


@pytest.mark.parametrize("pgtol", [0, 1e-3, 1, 1e3, np.inf, -1, np.nan, -np.inf, np.float32(1), True])
def test_pgtol_is_what_it_is_to_scipy(pgtol):
    agree(valley, CREST, pgtol=pgtol, maxiter=30, rtol=1e-6)


@pytest.mark.parametrize("pgtol", [None, "1", [1.0, 2.0], 1j])
def test_what_cannot_be_pgtol_is_refused_with_scipys_exception(pgtol):
    agree(bowl, START, pgtol=pgtol, message=False)


LIMITS = {
    "maxfun=None": {"maxfun": None},
    "maxiter=None": {"maxiter": None},
    "both": {"maxiter": None, "maxfun": None},
    "text": {"maxiter": "3"},
    "infinite": {"maxfun": math.inf, "maxiter": math.inf},
    "fractional maxiter": {"maxiter": 2.5},
    "fractional maxfun": {"maxfun": 3.5},
    "NaN": {"maxfun": math.nan, "maxiter": math.nan},
}


@pytest.mark.parametrize("names", LIMITS)
def test_limits_are_what_they_are_to_scipy(names):
    agree(valley, CREST, **LIMITS[names], rtol=1e-6)


@pytest.mark.parametrize("names", LIMITS)
def test_limits_are_not_looked_at_before_they_are_needed(names):
    agree(bowl, np.ones(2), **LIMITS[names])


@pytest.mark.parametrize("callback", [3, "text", [], max, object()], ids=["3", "text", "[]", "max", "object"])
def test_what_cannot_be_a_callback_is_refused(callback):
    agree(bowl, START, callback=callback)


@pytest.mark.parametrize("func", [None, 3, "text"])
def test_what_cannot_be_func_is_refused(func):
    agree(func, START, slope, message=False)


@pytest.mark.parametrize("args", [(2.0,), [2.0], np.array([2.0]), {2.0: None}, jnp.array([2.0])], ids=str)
def test_args_may_be_any_iterable(args):
    agree(bowl, START, args=args)


@pytest.mark.parametrize("args", [(2.0,), [2.0], np.array([2.0])], ids=str)
def test_args_go_to_fprime_too(args):
    agree(height, START, slope, args=args)


def test_args_may_be_text():
    agree(lambda x, *letters: bowl(x, len(letters)), START, args="abc")


def test_args_go_to_func_beside_differences():
    agree(height, START, args=(2.0,), approx_grad=1, rtol=1e-6)


@pytest.mark.parametrize("args", [2.0, 3])
def test_args_that_are_no_iterable_are_refused(args):
    agree(bowl, START, args=args)


def test_args_may_hold_anything():
    agree(lambda x, *args: bowl(x), START, args=(object(), zip("a"), map(len, []), {"b": None}, lambda: 3))


@pytest.mark.parametrize("args", [(1.0, 2.0), "abc"], ids=str)
def test_a_wrong_number_of_args_is_func_s_own_error(args):
    agree(bowl, START, args=args)


NO_SCALARS = {
    "array": lambda x: x,
    "empty": lambda x: np.zeros(0),
    "pair": bowl,
    "list": lambda x: [1.0, 2.0],
}
NO_NUMBERS = {"None": lambda x: None, "complex": lambda x: 1j, "text": lambda x: "a", "dict": lambda x: {}}


@pytest.mark.parametrize("route", [{"fprime": slope}, {"approx_grad": True}], ids=["fprime", "approx_grad"])
@pytest.mark.parametrize("kind", NO_SCALARS | NO_NUMBERS)
def test_f_that_is_no_scalar_is_refused(kind, route):
    agree((NO_SCALARS | NO_NUMBERS)[kind], START, **route)


@pytest.mark.parametrize("kind", NO_SCALARS | NO_NUMBERS)
def test_f_in_a_pair_that_is_no_scalar_is_refused(kind):
    agree(lambda x: ((NO_SCALARS | NO_NUMBERS)[kind](x), slope(x)), START)


THROWN = [
    OwnError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    FloatingPointError,
    MemoryError,
    TypeError,
    StopIteration,
]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize(("whose", "kind"), [
    (whose, kind) for whose in ("pair", "func", "fprime", "approx_grad", "callback") for kind in THROWN
    if (whose, kind) != ("callback", StopIteration)
])  # fmt: skip
def test_exceptions_come_through_as_they_are(whose, kind, after):
    error = kind("mine")
    options = {
        "pair": lambda: {"func": thrower(error, after, valley)},
        "func": lambda: {"func": thrower(error, after, rosen), "fprime": rosen_der},
        "fprime": lambda: {"func": rosen, "fprime": thrower(error, after, rosen_der)},
        "approx_grad": lambda: {"func": thrower(error, after, rosen), "approx_grad": True},
        "callback": lambda: {"func": valley, "callback": thrower(error, after, lambda x: None)},
    }[whose]()
    with pytest.raises(kind) as caught:
        fmin_l_bfgs_b(x0=CREST, **options)
    assert caught.value is error


@pytest.mark.parametrize("kind", [OwnError, KeyboardInterrupt])
@pytest.mark.parametrize("x64", [True, False])
def test_an_exception_leaves_nothing_behind(kind, x64):
    alone = fmin_l_bfgs_b(valley, CREST)
    with jax.enable_x64(x64):
        with pytest.raises(kind):
            fmin_l_bfgs_b(thrower(kind(), 3, valley), CREST)
        assert jax.config.jax_enable_x64 is x64
        alike(fmin_l_bfgs_b(valley, CREST), alone)


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_fprime_may_name_differences(scheme):
    agree(rosen, CREST, scheme, rtol=1e-5, maxiter=5)


def test_fprime_may_name_the_complex_step():
    agree(lambda x: np.sum((x - 1) ** 2), START, "cs")


@pytest.mark.parametrize("fprime", [True, 3, "4-point", slope(START)], ids=str)
def test_fprime_that_is_nothing_of_the_kind_is_refused(fprime):
    with pytest.raises(TypeError, match="fprime"):
        fmin_l_bfgs_b(height, START, fprime)


@pytest.mark.skipif(not WARNS_OF_OUTPUT, reason="this SciPy does not warn of iprint and disp")
@pytest.mark.parametrize(
    "given", [{"iprint": -1}, {"iprint": 99}, {"disp": None}, {"disp": 1}, {"disp": 0, "iprint": 0}], ids=str
)
def test_iprint_and_disp_warn_as_in_scipy(given):
    agree(bowl, START, **given)


@pytest.mark.skipif(not WARNS_OF_OUTPUT, reason="this SciPy does not warn of iprint and disp")
def test_the_warning_of_disp_points_to_the_caller():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        fmin_l_bfgs_b(bowl, START, disp=0)
        scipy.optimize.fmin_l_bfgs_b(bowl, START, disp=0)
    assert [one.category for one in heard] == [DeprecationWarning] * 2
    assert [(one.filename, one.lineno) for one in heard[1:]] == [(heard[0].filename, heard[0].lineno + 1)]


@pytest.mark.parametrize("given", [{}, {"iprint": 101}, {"disp": 101}], ids=str)
def test_nothing_is_printed(capfd, given):
    watch(fmin_l_bfgs_b, valley, CREST, **given)
    assert capfd.readouterr() == ("", "")


# Stopping


def halt(x):
    raise StopIteration


def downhill(x):
    """A gradient that points the wrong way."""
    return rosen(x), -rosen_der(x)


STOPS = {  # SciPy's reasons to stop, each in several ways
    "gradient": ("CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL", 0, bowl, {}),
    "gradient at the start": ("CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL", 0, bowl, {"pgtol": 1e9}),
    "reduction": ("CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH", 0, valley, {"factr": 1e13}),
    "maxiter": ("STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT", 1, valley, {"maxiter": 3}),
    "maxfun": ("STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT", 1, valley, {"maxfun": 5}),
    "both limits": ("STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT", 1, valley, {"maxfun": 1, "maxiter": 1}),
    "callback": ("STOP: CALLBACK REQUESTED HALT", 2, valley, {"callback": halt}),
    "callback at maxiter": ("STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT", 1, valley, {"callback": halt, "maxiter": 1}),
    "callback past maxfun": ("STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT", 1, valley,
                             {"callback": halt, "maxfun": 1}),
    "callback with convergence": ("STOP: CALLBACK REQUESTED HALT", 2, valley, {"callback": halt, "factr": np.inf}),
    "abnormal": ("ABNORMAL: ", 2, downhill, {"maxls": 5}),
    "abnormal past maxfun": ("ABNORMAL: ", 1, downhill, {"maxls": 5, "maxfun": 5}),
    "abnormal at maxiter": ("ABNORMAL: ", 1, downhill, {"maxls": 5, "maxiter": 0}),
    "n = 0": ("ERROR: N <= 0", 2, lambda x: (0.0, x), {"x0": []}),
    "n = 0 past maxfun": ("ERROR: N <= 0", 1, lambda x: (0.0, x), {"x0": [], "maxfun": 0}),
    "m = 0": ("ERROR: M <= 0", 2, bowl, {"m": 0}),
    "m = 0 at maxiter": ("ERROR: M <= 0", 1, bowl, {"m": 0, "maxiter": 0}),
    "factr < 0": ("ERROR: FACTR < 0", 2, bowl, {"factr": -1}),
    "factr < 0 past maxfun": ("ERROR: FACTR < 0", 1, bowl, {"factr": -1, "maxfun": 0}),
}  # fmt: skip


@pytest.mark.parametrize("way", STOPS)
def test_every_reason_to_stop_is_reached(way):
    task, warnflag, func, options = STOPS[way]
    *_, found = agree_up_to_f(func, **{"x0": CREST} | options).result
    assert (found["task"], found["warnflag"]) == (task, warnflag)


def agree_up_to_f(func: Callable, *args: Any, rtol: float = 1e-9, **options: Any) -> Seen:
    """`agree`, where SciPy's f after ABNORMAL may be that of its last trial."""
    ours, scipys = (watch(solver, func, *args, **options) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b))
    x, f, found = scipys.result
    if found["task"] == "ABNORMAL: ":
        f = type(f)(func(x)[0])
    compare(ours, scipys._replace(result=(x, f, found)), rtol, True)
    return ours


@pytest.mark.parametrize("limits", [{"maxiter": 0}, {"maxfun": 0}, {"maxiter": -1, "maxfun": -1}], ids=str)
def test_the_gradient_at_x0_is_tested_before_limits(limits):
    assert agree(bowl, np.ones(2), **limits).result[2]["warnflag"] == 0


@pytest.mark.parametrize("maxiter", [-1, 0, 1, 2, 3, 4])
def test_maxiter_ends_the_run_where_scipy_ends_it(maxiter):
    agree(valley, CREST, maxiter=maxiter)


def test_limits_are_tested_before_convergence():
    assert agree(bowl, START, maxiter=2).result[2]["warnflag"] == 1


@pytest.mark.parametrize("maxfun", range(-1, 12))
def test_maxfun_ends_the_run_where_scipy_ends_it(maxfun):
    agree(valley, CREST, maxfun=maxfun)


@pytest.mark.parametrize("maxfun", [1, 2, 3, 6, 9, 12, 15, 16])
def test_maxfun_counts_the_calls_for_differences(maxfun):
    agree(rosen, CREST, approx_grad=True, maxfun=maxfun, rtol=1e-5)


@pytest.mark.parametrize("limits", [{"maxfun": a, "maxiter": b} for a in (2, 4, 6) for b in (1, 2, 3)], ids=str)
def test_both_limits_end_the_run_where_scipy_ends_it(limits):
    agree(valley, CREST, **limits)


@pytest.mark.parametrize("turn", [1, 2, 4, 6, 9])
def test_a_search_that_fails_ends_where_scipys_does(turn):
    both = [watch(solver, turncoat(turn), CREST, callback=lambda x: None, maxls=8)
            for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]  # fmt: skip
    ours, scipys = (seen._replace(result=(seen.result[0], 0.0, seen.result[2])) for seen in both)
    compare(ours, scipys, 1e-9, True)


@pytest.mark.parametrize("maxls", [1, 2, 3, 5])
def test_maxls_ends_searches_where_scipy_ends_them(maxls):
    agree_up_to_f(valley, CREST, maxls=maxls, maxiter=12)


def test_f_after_abnormal_is_the_value_at_x():
    x, f, found = fmin_l_bfgs_b(valley, CREST, maxls=1)
    assert (f, found["task"], *x) == (rosen(CREST), "ABNORMAL: ", *CREST)


@pytest.mark.parametrize("limits", [{"maxiter": 4}, {"maxfun": 9}], ids=str)
def test_a_function_unbounded_below_is_followed_to_the_limit(limits):
    assert agree(lambda x: (-float(np.sum(x)), -np.ones(2)), START, **limits).result[2]["warnflag"] == 1


def test_minus_infinity_is_a_convergence():
    """An exponential, unbounded below: the searches go to where it overflows."""

    def abyss(x):
        with np.errstate(over="ignore"):
            return -float(np.sum(np.exp(x))), -np.exp(x)

    both = [solver(abyss, np.ones(2)) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]
    ours, scipys = ((f, found["task"], found["warnflag"]) for _, f, found in both)
    assert ours == scipys == (-np.inf, "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH", 0)


def test_x_is_the_last_iterate_and_not_the_best_point():
    """The first trial has a wrong value, lower than any other; its slope is too steep for the search to end there."""

    def noisy(x):
        return bowl(x)[0] - 500 * (28.5 < np.linalg.norm(x - 1) < 29.5), slope(x)

    seen = agree(noisy, [31.0, 1.0], maxiter=1)
    assert min(noisy(x)[0] for *_, x in seen.calls) < seen.result[1] - 100


# Counting


def test_funcalls_is_the_number_of_calls_of_func_that_returns_pairs():
    seen = agree(valley, CREST, rtol=1e-6)
    assert seen.result[2]["funcalls"] == len(seen.calls)


def test_func_and_fprime_are_called_once_for_each_point():
    seen = agree(rosen, CREST, rosen_der, rtol=1e-6)
    assert [name for name, *_ in seen.calls] == ["func"] * len(seen.calls)


def test_fprime_is_called_after_func_at_the_same_point():
    seen = agree(rosen, CREST, fprime=rosen_der, rtol=1e-6)
    assert [name for name, *_ in seen.calls] == ["func", "fprime"] * seen.result[2]["funcalls"]


def test_calls_for_differences_are_counted():
    seen = agree(height, START, approx_grad=True, rtol=1e-6)
    assert seen.result[2]["funcalls"] == len(seen.calls) == 3 * 3


def test_nit_is_the_number_of_callbacks():
    seen = agree(valley, CREST, callback=lambda x: None, rtol=1e-6)
    assert seen.result[2]["nit"] == sum(name == "callback" for name, *_ in seen.calls)


# Callback


@pytest.mark.parametrize("kind", CALLBACKS)
def test_callback_is_called_as_scipy_calls_it(kind):
    agree(valley, CREST, callback=CALLBACKS[kind], maxiter=4)


@pytest.mark.parametrize("options", [{"maxiter": 1}, {"maxfun": 1}, {"factr": np.inf}, {}], ids=str)
def test_callback_is_called_before_any_test(options):
    agree(valley, CREST, callback=lambda x: None, rtol=1e-6, **options)


def test_callback_may_keep_its_arrays():
    kept = []
    seen = agree(valley, CREST, callback=kept.append, maxiter=5)
    assert_array_equal(kept[:5], [x for name, _, x in seen.calls if name == "callback"])


def test_callback_may_write_into_its_array():
    agree(valley, CREST, callback=lambda x: x.fill(np.nan), maxiter=5)


def test_result_in_a_callback_is_an_optimize_result():
    kinds = set()
    agree(valley, CREST, callback=lambda intermediate_result: kinds.add(type(intermediate_result)), maxiter=2)
    assert kinds == {OptimizeResult}


def test_result_in_a_callback_has_scipys_fields_and_values():
    kept = []
    agree(valley, CREST, callback=lambda intermediate_result: kept.append(intermediate_result), maxiter=4)
    ours, scipys = kept[:4], kept[4:]
    assert [list(result) for result in ours] == [list(result) for result in scipys]
    assert_allclose([result.fun for result in ours], [result.fun for result in scipys], rtol=1e-9)


def test_results_in_a_callback_are_its_own():
    kept = []

    def callback(intermediate_result):
        kept.append(intermediate_result)
        intermediate_result.x += 0

    fmin_l_bfgs_b(valley, CREST, callback=callback, maxiter=4)
    assert [rosen(result.x) for result in kept] == [result.fun for result in kept]


def test_writing_into_a_result_does_not_move_the_run():
    def spoil(intermediate_result):
        intermediate_result.x.fill(np.nan)

    alike(fmin_l_bfgs_b(valley, CREST, callback=spoil), fmin_l_bfgs_b(valley, CREST))


@pytest.mark.parametrize("number", [1, 3, 7])
def test_stop_iteration_ends_the_run_at_that_iterate(number):
    assert agree(valley, CREST, callback=after(number)).result[2]["nit"] == number


def test_callback_is_not_called_without_an_iteration():
    assert [name for name, *_ in agree(bowl, np.ones(2), callback=halt).calls] == ["func"]


# Differences


DIFFERENCES = {
    "default": {},
    "step": {"epsilon": 1e-5},
    "backward": {"epsilon": -1e-6},
    "a step for each": {"epsilon": np.array([1e-6, 1e-5])},
    "a list of steps": {"epsilon": [1e-6, -1e-5]},
    "JAX steps": {"epsilon": jnp.array([1e-6, 1e-5])},
    "no step": {"epsilon": 0},
    "None": {"epsilon": None},
    "tiny step": {"epsilon": 1e-30},
    "an int": {"epsilon": 1},
    "large in a box": {"epsilon": 0.3, "bounds": [(0.9, 3.05), (None, 4.1)]},
    "larger than the box": {"epsilon": 0.3, "bounds": [(2.9, 3.05), (3.9, 4.05)]},
    "backward in a box": {"epsilon": -0.3, "bounds": [(2.9, 3.05), (3.9, 4.05)]},
    "at the upper bounds": {"bounds": [(None, 3), (None, 4)]},
    "at the lower bounds": {"bounds": [(3, None), (4, None)], "epsilon": -1e-6},
    "truthy": {"approx_grad": "yes"},
    "int": {"approx_grad": 1},
    "array": {"approx_grad": np.array([True])},
    "with fprime": {"fprime": slope},
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_differences_are_scipys(kind):
    agree(height, START, rtol=1e-6, maxiter=5, **{"approx_grad": True} | DIFFERENCES[kind])


@pytest.mark.parametrize("x0", [[1e10, -1e10], [1e10, 1.0], [-3e9, 0.0], np.array([1e5, 1e5], np.float32)], ids=str)
def test_steps_that_are_lost_in_x_are_replaced_as_in_scipy(x0):
    agree(lambda x: float(np.sum(np.sqrt(1 + x * x))), x0, bounds=[(-1e11, 1e11)] * 2, approx_grad=True, maxiter=1,
          rtol=1e-6)  # fmt: skip


def test_fprime_is_not_called_beside_approx_grad():
    seen = agree(height, START, fprime=slope, approx_grad=True, rtol=1e-6)
    assert {name for name, *_ in seen.calls} == {"func"}


def regression(fmin_l_bfgs_b):
    """The example on SciPy's page."""
    X = np.arange(0, 10, 1)
    M = 2
    B = 3
    Y = M * X + B

    def func(parameters, *args):
        x = args[0]
        y = args[1]
        m, b = parameters
        y_model = m * x + b
        error = sum(np.power((y - y_model), 2))
        return error

    initial_values = np.array([0.0, 1.0])
    x_opt, f_opt, info = fmin_l_bfgs_b(func, x0=initial_values, args=(X, Y), approx_grad=True)
    free = x_opt, f_opt, info
    bounds = [(0, 5), (5, 10)]
    x_opt, f_opt, info = fmin_l_bfgs_b(func, x0=initial_values, args=(X, Y), approx_grad=True, bounds=bounds)
    return free, (x_opt, f_opt, info)  # fmt: skip


def test_the_example_on_scipys_page_runs_with_only_the_import_changed():
    ours, scipys = regression(fmin_l_bfgs_b), regression(scipy.optimize.fmin_l_bfgs_b)
    assert form(ours) == form(scipys)
    assert_allclose(ours[0][0], scipys[0][0], rtol=1e-6)
    assert_allclose([*ours[1][0], ours[1][1]], [*scipys[1][0], scipys[1][1]], rtol=1e-6)


# Objectives are arbitrary Python


class Cup:
    """An objective with a method, a call and a memory."""

    def __init__(self):
        self.history = []

    def __call__(self, x):
        self.history.append(x)
        return valley(x)

    method = __call__


BUFFER = np.zeros(2)


def buffered(x):
    """Returns the same array every time."""
    BUFFER[:] = rosen_der(x)
    return rosen(x), BUFFER


def branching(x):
    """|x₀| + x₁² by branches, loops, math and exceptions."""
    try:
        sign = {True: 1, False: -1}[x[0] > 0]
        return sum(abs(v) if i == 0 else math.pow(v, 2) for i, v in enumerate(x)), [sign, 2 * float(x[1])]
    except KeyError:
        return math.inf, [0, 0]


def special(x):
    gamma = scipy.special.gammaln(1 + x**2)
    return float(gamma.sum() + 1), scipy.special.digamma(1 + x**2) * 2 * x


def linear_algebra(x):
    A = np.array([[3.0, 1.0], [1.0, 2.0]])
    return float(np.linalg.norm(np.linalg.cholesky(A).T @ x) ** 2), 2 * np.linalg.solve(np.linalg.inv(A), x)


OBJECTIVES = {
    "bound method": lambda: Cup().method,
    "callable object": Cup,
    "partial": lambda: functools.partial(bowl, centre=2.0),
    "writes into x": lambda: scribbling,
    "one buffer": lambda: buffered,
    "branches": lambda: branching,
    "special functions": lambda: special,
    "linear algebra": lambda: linear_algebra,
    "jitted pair": lambda: jax.jit(lambda x: (jnp.sum((x - 1) ** 2), 2 * (x - 1))),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_objectives_may_be_any_python(kind):
    both = [
        watch(solver, OBJECTIVES[kind](), CREST, maxiter=6) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)
    ]
    if kind == "jitted pair":  # it is traced first
        both[0] = both[0]._replace(calls=both[1].calls)
    compare(*both, 1e-9, True)


def test_points_may_be_kept():
    cup = Cup()
    seen = agree(cup, CREST, maxiter=6)
    assert_array_equal(cup.history[: len(seen.calls)], [x for *_, x in seen.calls])


def test_gradient_in_the_result_is_not_the_memory_of_the_user_s():
    assert not np.shares_memory(fmin_l_bfgs_b(buffered, CREST)[2]["grad"], BUFFER)


def test_runs_are_repeatable_bit_for_bit():
    alike(fmin_l_bfgs_b(valley, CREST), fmin_l_bfgs_b(valley, CREST))


def test_func_may_call_fmin_l_bfgs_b():
    def nested(x):
        inner = fmin_l_bfgs_b(bowl, x + 9, maxiter=1, callback=lambda y: None)
        assert inner[2]["nit"] == 1
        return valley(x)

    alike(fmin_l_bfgs_b(nested, CREST), fmin_l_bfgs_b(valley, CREST))


def test_threads_get_the_results_that_they_get_alone():
    starts = [np.array([a, b]) for a in np.linspace(-2, 2, 8) for b in (-1.0, 0.5)]
    alone = [fmin_l_bfgs_b(valley, x0) for x0 in starts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x0: fmin_l_bfgs_b(valley, x0), starts))
    for one, other in zip(alone, together, strict=True):
        alike(one, other)


def test_threads_that_come_first_to_a_size_get_the_results_that_they_get_alone():
    host._programs.cache_clear()
    start = threading.Barrier(4)

    def run(_):
        start.wait()
        return fmin_l_bfgs_b(valley, CREST)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(4)))
    for one in together:
        alike(one, fmin_l_bfgs_b(valley, CREST))


# NaN and infinity


BROKEN = {
    "gradient": lambda x: (1.0, np.full(2, np.nan)),
    "one entry of the gradient": lambda x: (1.0, np.array([np.nan, 1.0])),
    "infinite gradient": lambda x: (1.0, np.full(2, np.inf)),
    "value": lambda x: (math.nan, np.ones(2)),
    "both": lambda x: (math.nan, np.full(2, np.nan)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_start_that_is_not_finite_ends_as_in_scipy(kind):
    both = [watch(solver, BROKEN[kind], START).result for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]
    ours, scipys = ((*x, found["task"], found["warnflag"], found["nit"]) for x, _, found in both)
    assert ours == scipys


@pytest.mark.parametrize("x0", [[np.nan, 1.0], [np.nan, np.nan], [np.inf, 0.0], [-np.inf, np.inf]], ids=str)
def test_x0_that_is_not_finite_ends_as_in_scipy(x0):
    both = [watch(solver, bowl, x0).result for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]
    assert [(found["task"], found["warnflag"]) for *_, found in both] == [("ABNORMAL: ", 2)] * 2
    assert_array_equal(both[0][0], both[1][0])


@pytest.mark.parametrize("kind", BROKEN)
def test_a_start_that_is_not_finite_ends_at_once(kind):
    assert len(watch(fmin_l_bfgs_b, BROKEN[kind], START).calls) == 1


def log_barrier(outside):
    """x - log x, with another value where there is no logarithm."""

    def func(x):
        return (float(np.sum(x - np.log(x))), 1 - 1 / x) if (x > 0).all() else (outside, np.full(x.shape, outside))

    return func


@pytest.mark.parametrize("outside", [np.inf, np.nan])
def test_a_trial_value_that_is_not_finite_shortens_the_step(outside):
    x, _, found = fmin_l_bfgs_b(log_barrier(outside), [5.0, 0.2])
    assert_allclose([*x, found["warnflag"]], [1, 1, 0], atol=1e-5)


def test_nan_is_not_passed_to_func():
    calls = watch(fmin_l_bfgs_b, log_barrier(np.nan), [5.0, 0.2]).calls
    assert not np.isnan([x for *_, x in calls]).any()


@pytest.mark.parametrize("slope_there", [0.0, -1.0])
def test_minus_infinity_ends_the_run_as_convergence(slope_there):
    def func(x):
        return (-math.inf, np.full(2, slope_there)) if (x < 2.5).any() else bowl(x, -5.0)

    both = [watch(solver, func, START).result for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b)]
    assert [(f, found["warnflag"]) for _, f, found in both] == [(-np.inf, 0)] * 2


# Path and end point


def quartic(x):
    return float(np.sum(x**4 + x**2)), 4 * x**3 + 2 * x


def logistic(x):
    A = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 2.0], [-1.5, 0.3, 0.2], [2.0, 1.0, 1.0]])
    z = A @ x
    return float(np.sum(np.logaddexp(0, z)) + x @ x / 2), A.T @ scipy.special.expit(z) + x


PATHS = {
    "bowl": (bowl, START, None),
    "Beale": (beale, [1.0, 1.0], None),
    "Beale in a box": (beale, [1.0, 1.0], [(0, 2), (-1, 0.3)]),
    "quartic": (quartic, [1.0, -2.0, 3.0, 0.5], None),
    "quartic in a box": (quartic, [1.0, -2.0, 3.0, 0.7], [(0.5, 2), (None, -1), (0, None), (0.6, 0.8)]),
    "logistic": (logistic, [1.0, 1.0, 1.0], None),
    "logistic in a box": (logistic, [1.0, 1.0, 1.0], [(0, None), (-0.1, 2), (None, 0.5)]),
    "valley in a box": (valley, CREST, [(-2, 0.5), (None, 2)]),
    "gammas": (special, [1.3, -0.8], None),
    "concave in a box": (lambda x: (-float(x @ x), -2 * x), [0.1, -0.2, 0.3], [(-1, 2)] * 3),
    "chain in a box": (valley, np.linspace(-1, 1, 7), [(-1.5, 0.8)] * 7),
}


@pytest.mark.parametrize("problem", PATHS)
def test_points_counts_and_end_are_scipys(problem):
    func, x0, bounds = PATHS[problem]
    agree(func, x0, bounds=bounds, rtol=1e-7 if "valley" in problem or "chain" in problem else 1e-9)


@pytest.mark.parametrize("problem", PATHS)
def test_points_counts_and_end_of_differences_are_scipys(problem):
    func, x0, bounds = PATHS[problem]
    agree(lambda x: func(x)[0], x0, bounds=bounds, approx_grad=True, maxiter=4, rtol=1e-5)


@pytest.mark.parametrize("problem", PATHS)
def test_points_counts_and_end_with_few_pairs_are_scipys(problem):
    func, x0, bounds = PATHS[problem]
    agree(func, x0, bounds=bounds, m=3, maxiter=15, rtol=1e-7)


# float64


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("options", [{}, {"approx_grad": True, "maxiter": 4}], ids=str)
def test_runs_are_in_float64(x64, options):
    with jax.enable_x64(x64):
        agree(valley if not options else rosen, CREST, rtol=1e-6, **options)


@pytest.mark.parametrize("x64", [True, False])
def test_the_flag_is_the_user_s_in_func_and_callback_and_afterwards(x64):
    flags = []

    def func(x):
        flags.append(jax.config.jax_enable_x64)
        return bowl(x)

    with jax.enable_x64(x64):
        fmin_l_bfgs_b(func, START, callback=lambda x: flags.append(jax.config.jax_enable_x64))
        assert {*flags, jax.config.jax_enable_x64} == {x64}


def test_a_size_compiled_without_the_flag_is_that_compiled_with_it():
    host._programs.cache_clear()
    with jax.enable_x64(False):
        without = fmin_l_bfgs_b(valley, CREST)
    host._programs.cache_clear()
    alike(without, fmin_l_bfgs_b(valley, CREST))


@pytest.mark.parametrize("x64", [True, False])
def test_gradients_of_jax_are_in_float64(x64):
    with jax.enable_x64(x64):
        x, _, found = fmin_l_bfgs_b(lambda x: jnp.sum((x - 1 / 3) ** 2), jnp.zeros(2), pgtol=1e-14)
    assert_allclose([*x, found["warnflag"]], [1 / 3, 1 / 3, 0], rtol=1e-13)


@pytest.mark.parametrize("x64", [True, False])
def test_the_flag_is_the_user_s_after_a_function_that_jax_cannot_trace(x64):
    with jax.enable_x64(x64):
        with pytest.raises(TypeError):
            fmin_l_bfgs_b(lambda x: math.cos(x[0]), START)
        assert jax.config.jax_enable_x64 is x64


def test_runs_are_scipys_with_jit_disabled():
    with jax.disable_jit():
        agree(valley, CREST, maxiter=5)


# Nothing here is SciPy's own solver


@pytest.fixture
def _no_solvers_of_scipys(monkeypatch):
    """Every optimizer of SciPy raises."""

    def refuse(*args, **options):
        raise AssertionError("an optimizer of SciPy's was called")

    optimize = scipy.optimize
    for module in (
        optimize,
        optimize._lbfgsb_py,
        optimize._optimize,
        optimize._minimize,
        optimize._tnc,
        optimize._slsqp_py,
    ):
        for name in dir(module):
            named = name.startswith(("fmin", "minimize", "_minimize", "root", "least_squares", "approx_derivative"))
            if named and inspect.isfunction(getattr(module, name)):
                monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(optimize._lbfgsb_py._lbfgsb, "setulb", refuse)


@pytest.mark.usefixtures("_no_solvers_of_scipys")
@pytest.mark.parametrize("route", [(valley,), (rosen, rosen_der), (rosen, None, (), True), (jax_valley,)],
                         ids=["pair", "fprime", "approx_grad", "jax.grad"])  # fmt: skip
def test_fmin_l_bfgs_b_calls_no_optimizer_of_scipys(route):
    func, *rest = route
    assert fmin_l_bfgs_b(func, CREST, *rest)[2]["warnflag"] == 0


@pytest.mark.usefixtures("_no_solvers_of_scipys")
@pytest.mark.parametrize("jac", [rosen_der, None, "2-point", "3-point"], ids=["jac", "None", "2-point", "3-point"])
def test_scipy_method_calls_no_optimizer_of_scipys(jac):
    assert scipy_method(rosen, CREST, jac=jac, bounds=[(None, None), (0, None)]).success


@pytest.mark.usefixtures("_no_solvers_of_scipys")
def test_the_oracle_calls_scipys():
    """Else the tests above could not fail."""
    with pytest.raises(AssertionError, match="was called"):
        scipy.optimize.fmin_l_bfgs_b(valley, CREST)
