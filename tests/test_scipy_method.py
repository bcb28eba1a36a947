"""scipy_method: what `scipy.optimize.minimize` does with it is what it does with its own L-BFGS-B."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
import scipy
import scipy.optimize
from beside_scipy import (
    CREST,
    START,
    WARNS_OF_OUTPUT,
    Seen,
    bowl,
    compare,
    height,
    jax_valley,
    slope,
    valley,
    watch,
)
from callables import CALLBACKS, VALUES, OwnError, after, beale, scribbling, thrower, turncoat
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import Bounds, NonlinearConstraint, OptimizeWarning, rosen, rosen_der

from jaxlbfgsb import scipy_method


def agree_minimize(
    *args: Any, direct: bool = False, rtol: float = 1e-9, options: dict | None = None, **named: Any
) -> Seen:
    """What can be seen of SciPy's minimize with our method, or of the method alone, checked to be SciPy's."""
    scipys = watch(scipy.optimize.minimize, *args, method="L-BFGS-B", options=options, **named)
    if direct:
        ours = watch(scipy_method, *args, **named, **options or {})
    else:
        ours = watch(scipy.optimize.minimize, *args, method=scipy_method, options=options, **named)
    warned = [(category, text.replace("jaxlbfgsb.scipy_method", "L-BFGS-B")) for category, text in ours.warned]
    compare(ours._replace(warned=warned), scipys, rtol, True)
    return ours


EACH_WAY = pytest.mark.parametrize("direct", [False, True], ids=["by minimize", "direct"])


@EACH_WAY
def test_result_with_jac_is_scipys(direct):
    agree_minimize(rosen, CREST, jac=rosen_der, options={"maxiter": 8}, direct=direct)


@EACH_WAY
def test_result_of_pairs_is_scipys(direct):
    agree_minimize(valley, CREST, jac=True, options={"maxiter": 8}, direct=direct)


@EACH_WAY
@pytest.mark.parametrize("jac", [None, False, "unknown"])
def test_result_without_jac_is_that_of_absolute_differences(direct, jac):
    agree_minimize(rosen, CREST, jac=jac, options={"maxiter": 4}, direct=direct, rtol=1e-5)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
@pytest.mark.parametrize("bounds", [None, [(-2, 0.5), (1, 2)]], ids=str)
@pytest.mark.parametrize("step", [None, 1e-6, [1e-6, -1e-5]], ids=str)
def test_result_of_relative_differences_is_scipys(jac, bounds, step):
    options = {"maxiter": 4, "finite_diff_rel_step": step}
    agree_minimize(rosen, CREST, jac=jac, bounds=bounds, options=options, direct=True, rtol=1e-5)


def test_result_of_the_complex_step_is_scipys():
    agree_minimize(lambda x: np.sum((x - 1) ** 2), START, jac="cs", direct=True)


@pytest.mark.parametrize("jac", ["2-point", "3-point", "cs"])
def test_differences_of_a_truth_are_refused_as_in_scipy(jac):
    ways = scipy_method, functools.partial(scipy.optimize.minimize, method="L-BFGS-B")
    ours, scipys = (watch(way, lambda x: bool(np.sum(x).real > 0), START, jac=jac) for way in ways)
    assert (type(ours.error), str(ours.error)) == (type(scipys.error), str(scipys.error))


def test_a_scalar_without_jac_is_never_differentiated_by_jax():
    seen = agree_minimize(lambda x: float(jax_valley(x)), CREST, options={"maxiter": 2}, direct=True, rtol=1e-5)
    assert seen.result.nfev == len(seen.calls)


OPTIONS = {
    "maxcor": {"maxcor": 3, "maxiter": 12},
    "ftol": {"ftol": 0.1},
    "gtol": {"gtol": 1.0},
    "maxfun": {"maxfun": 5},
    "maxiter": {"maxiter": 3},
    "maxls": {"maxls": 3, "maxiter": 2},
    "m = 0": {"maxcor": 0},
    "ftol < 0": {"ftol": -1},
    "maxls = 0": {"maxls": 0},
    "one unknown": {"foo": 3, "maxiter": 1},
    "two unknown": {"foo": 3, "bar": None, "maxiter": 1},
    "fmin's names": {"factr": 3, "pgtol": 1, "maxiter": 1},
    "ftol = None": {"ftol": None},
    "gtol = None": {"gtol": None},
    "no tolerances": {"ftol": None, "gtol": None},
    "ftol in an array": {"ftol": np.array([0.1])},
    "gtol in an array": {"gtol": np.array([1.0])},
    "maxls too large": {"maxls": 2**31},
    "no use of workers": {"workers": "x", "maxiter": 1},
}


@EACH_WAY
@pytest.mark.parametrize("names", OPTIONS)
def test_options_are_scipys(direct, names):
    agree_minimize(valley, CREST, jac=True, options=OPTIONS[names], direct=direct, rtol=1e-6)


@pytest.mark.skipif(not WARNS_OF_OUTPUT, reason="this SciPy does not warn of iprint and disp")
@pytest.mark.parametrize("names", [{"disp": True}, {"disp": None}, {"iprint": 1}, {"disp": 0, "iprint": 99}], ids=str)
def test_options_of_output_warn_as_in_scipy(names):
    agree_minimize(bowl, START, jac=True, options=names)


@pytest.mark.parametrize("eps", [1e-5, np.array([1e-5, 1e-6]), -1e-6], ids=str)
def test_eps_is_the_absolute_step(eps):
    agree_minimize(rosen, CREST, options={"eps": eps, "maxiter": 3}, rtol=1e-5)


TOLERANCES = [(0.3, {}), (0.3, {"ftol": 1e-9}), (0.3, {"gtol": 1e-5}), (0.3, {"ftol": 1e-9, "gtol": 1e-5}), (0, {}),
              (1e-3, {"ftol": 0}), (0.3, {"ftol": None}), (0.3, {"gtol": None})]  # fmt: skip


@EACH_WAY
@pytest.mark.parametrize(("tol", "options"), TOLERANCES, ids=str)
def test_tol_sets_the_tolerances_that_are_not_given(direct, tol, options):
    if direct:
        scipys = watch(scipy.optimize.minimize, valley, CREST, jac=True, method="L-BFGS-B", tol=tol, options=options)
        compare(watch(scipy_method, valley, CREST, jac=True, tol=tol, **options), scipys, 1e-6, True)
    else:
        agree_minimize(valley, CREST, jac=True, tol=tol, options=options, rtol=1e-6)


@EACH_WAY
@pytest.mark.parametrize("x0", [3.0, [3, 4], START.reshape(1, 2), [[3.0], [4.0]], [True, False], []], ids=str)
def test_x0_of_minimize_may_be_what_it_may_be_to_scipy(direct, x0):
    agree_minimize(bowl, x0, jac=True, direct=direct)


@EACH_WAY
@pytest.mark.parametrize("args", [2.0, (2.0,), np.array(2.0)], ids=str)
def test_args_of_minimize_need_not_be_a_tuple(direct, args):
    agree_minimize(bowl, START, args=args, jac=True, direct=direct)


WIDE_BOUNDS = {
    "Bounds": Bounds([0, 2], [0.5, 3]),
    "Bounds of numbers": Bounds(0, 0.5),
    "Bounds of a lower number": Bounds(2),
    "one pair for all": [(0, 0.5)],
    "one row": np.array([[0, 0.5]]),
    "open sides": [(None, 0.5), (2, None)],
    "open Bounds": Bounds([-np.inf, 2], [0.5, np.inf]),
    "crossed": [(1, 0), (0, 1)],
    "crossed Bounds": Bounds([1, 0], [0, 1]),
    "too many": [(0, 1)] * 3,
    "too long Bounds": Bounds([0] * 3, [1] * 3),
}


@EACH_WAY
@pytest.mark.parametrize("spelling", WIDE_BOUNDS)
def test_bounds_of_minimize_are_what_they_are_to_scipy(direct, spelling):
    agree_minimize(bowl, START, jac=True, bounds=WIDE_BOUNDS[spelling], direct=direct)


@EACH_WAY
@pytest.mark.parametrize("jac", [slope, True, None], ids=["callable", "True", "None"])
@pytest.mark.parametrize("bounds", [[(2, 2), (None, None)], [(None, 3), (5, 5)], Bounds([2, 0], [2, 2])], ids=str)
def test_fixed_variables_are_what_they_are_to_scipy(direct, jac, bounds):
    func = bowl if jac is True else height
    agree_minimize(func, START, jac=jac, bounds=bounds, direct=direct, callback=lambda x: None, rtol=1e-6)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_fixed_variables_are_taken_out_of_relative_differences(jac):
    agree_minimize(height, START, jac=jac, bounds=[(2, 2), (None, None)], direct=True, rtol=1e-6)


def test_results_in_a_callback_hold_the_fixed_variables():
    kept = []

    def callback(intermediate_result):
        kept.append(intermediate_result.x.copy())

    for method in (scipy_method, "L-BFGS-B"):
        scipy.optimize.minimize(height, START, bounds=[(2, 2), (None, None)], callback=callback, method=method)
    ours, scipys = np.split(np.array(kept), 2)
    assert_allclose(ours, scipys, rtol=1e-6)


@EACH_WAY
@pytest.mark.parametrize("jac", [slope, True, None], ids=["callable", "True", "None"])
def test_all_variables_fixed_are_what_they_are_to_scipy(direct, jac):
    func, bounds = bowl if jac is True else height, [(2, 2), (5, 5)]
    scipys = scipy.optimize.minimize(func, START, jac=jac, bounds=bounds, method="L-BFGS-B")
    if direct:
        ours = scipy_method(func, START, jac=jac, bounds=bounds)
    else:
        ours = scipy.optimize.minimize(func, START, jac=jac, bounds=bounds, method=scipy_method)
    assert [(key, str(value)) for key, value in ours.items()] == [(key, str(value)) for key, value in scipys.items()]


def fixed(solver, func, **options):
    return watch(solver, func, START, bounds=[(2, 2), (5, 5)], **options)


@pytest.mark.parametrize("form_of_f", VALUES)
@pytest.mark.parametrize("jac", [slope, True, None], ids=["callable", "True", "None"])
def test_f_where_all_variables_are_fixed_has_the_type_that_scipy_gives_it(jac, form_of_f):
    def func(x):
        f = VALUES[form_of_f](height(x))
        return (f, slope(x)) if jac is True else f

    alone, *both = (
        scipy_method,
        *(functools.partial(scipy.optimize.minimize, method=m) for m in (scipy_method, "L-BFGS-B")),
    )
    alone, ours, scipys = (fixed(solver, func, jac=jac).result.fun for solver in (alone, *both))
    assert (type(alone), str(alone)) == (type(ours), str(ours)) == (type(scipys), str(scipys))


@pytest.mark.parametrize("options", [{"foo": 1}, {"maxls": 0}, {"ftol": None}, {"maxcor": -1}], ids=str)
def test_options_are_not_looked_at_where_all_variables_are_fixed(options):
    by_minimize = [
        fixed(scipy.optimize.minimize, bowl, jac=True, method=m, options=options) for m in (scipy_method, "L-BFGS-B")
    ]
    for seen in (fixed(scipy_method, bowl, jac=True, **options), *by_minimize):
        assert (seen.error, seen.warned, seen.result.nfev) == (None, [], 1)


@EACH_WAY
@pytest.mark.parametrize("bounds", [None, [(0, 1)], Bounds(), Bounds([], [])], ids=str)
def test_no_variables_in_a_box_are_what_they_are_to_scipy(direct, bounds):
    scipys = scipy.optimize.minimize(bowl, [], jac=True, bounds=bounds, method="L-BFGS-B")
    if direct:
        ours = scipy_method(bowl, [], jac=True, bounds=bounds)
    else:
        ours = scipy.optimize.minimize(bowl, [], jac=True, bounds=bounds, method=scipy_method)
    assert [(key, str(value)) for key, value in ours.items()] == [(key, str(value)) for key, value in scipys.items()]


def test_func_may_write_into_x_where_all_variables_are_fixed():
    assert_array_equal(scipy_method(lambda x: scribbling(x)[0], START, bounds=[(2, 2), (5, 5)]).x, [2, 5])


@pytest.mark.parametrize("unused", [{"hess": lambda x: np.eye(2)}, {"hessp": lambda x, p: p},
                                    {"constraints": [NonlinearConstraint(height, 0, 1)]},
                                    {"constraints": {"type": "eq", "fun": height}}],
                         ids=["hess", "hessp", "constraint", "old constraint"])  # fmt: skip
def test_arguments_of_minimize_without_use_warn_as_in_scipy(unused):
    agree_minimize(bowl, START, jac=True, **unused)


def test_an_unknown_option_is_an_optimize_warning():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: foo"):
        scipy_method(bowl, START, jac=True, foo=3)


@EACH_WAY
@pytest.mark.parametrize("kind", sorted(CALLBACKS.keys() - {"builtin"}))
def test_callback_of_minimize_is_called_as_scipy_calls_it(direct, kind):
    agree_minimize(valley, CREST, jac=True, callback=CALLBACKS[kind], options={"maxiter": 3}, direct=direct)


@EACH_WAY
@pytest.mark.parametrize("options", [{}, {"maxiter": 3}, {"maxfun": 1}], ids=str)
def test_stop_iteration_ends_minimize_with_scipys_status_and_message(direct, options):
    callback = after(1 if "maxfun" in options else 3)
    seen = agree_minimize(valley, CREST, jac=True, callback=callback, options=options, direct=direct)
    assert seen.result.status == 99


@pytest.mark.parametrize("kind", [OwnError, KeyboardInterrupt])
@pytest.mark.parametrize("whose", ["func", "jac", "callback"])
def test_exceptions_come_through_minimize_as_they_are(whose, kind):
    error = kind("mine")
    values = {"func": rosen, "jac": rosen_der, "callback": lambda x: None}
    func, jac, callback = (thrower(error, 2, value) if name == whose else value for name, value in values.items())
    with pytest.raises(kind) as caught:
        scipy.optimize.minimize(func, CREST, jac=jac, callback=callback, method=scipy_method)
    assert caught.value is error


def test_workers_may_be_a_map():
    points = []

    def workers(function, iterable):
        points.extend(map(np.copy, iterable))
        return map(function, points[-2:])

    alone = scipy_method(rosen, CREST, maxiter=3)
    result = scipy_method(rosen, CREST, maxiter=3, workers=workers)
    assert_array_equal(result.x, alone.x)
    assert len(points) == result.nfev - result.njev


@EACH_WAY
@pytest.mark.parametrize("workers", [0, 1.0, 1.5, True, "1"])
def test_workers_are_read_as_in_scipy(direct, workers):
    agree_minimize(height, START, options={"workers": workers}, direct=direct, rtol=1e-6)


@pytest.mark.parametrize("workers", [-2, "x"])
def test_what_cannot_be_workers_is_refused_with_scipys_exception(workers):
    methods = scipy_method, "L-BFGS-B"
    ours, scipys = (
        watch(scipy.optimize.minimize, height, START, method=method, options={"workers": workers}) for method in methods
    )
    assert ours.calls == []
    assert (type(ours.error), str(ours.error)) == (type(scipys.error), str(scipys.error))


@pytest.mark.parametrize("workers", [1, None])
def test_one_worker_is_none(workers):
    assert_array_equal(scipy_method(rosen, CREST, workers=workers).x, scipy_method(rosen, CREST).x)


@pytest.mark.parametrize("method", [None, "fork"])
def test_workers_may_be_processes(method, monkeypatch):
    monkeypatch.setattr("jaxlbfgsb.contract.get_start_method", lambda allow_none: method)
    assert_array_equal(scipy_method(rosen, CREST, maxiter=2, workers=2).x, scipy_method(rosen, CREST, maxiter=2).x)


def test_runs_of_minimize_are_in_float64_without_the_flag():
    with jax.enable_x64(False):
        agree_minimize(valley, CREST, jac=True, options={"maxiter": 8})


# hess_inv


def of_hess_inv(*args: Any, **options: Any) -> list:
    """Our hess_inv and SciPy's, of pairs."""
    return [scipy.optimize.minimize(*args, jac=True, method=method, **options).hess_inv
            for method in (scipy_method, "L-BFGS-B")]  # fmt: skip


@pytest.mark.parametrize("iterations", [2, 3, 6, 10])
def test_pairs_of_hess_inv_are_scipys_before_the_memory_wraps(iterations):
    ours, scipys = of_hess_inv(valley, CREST, options={"maxiter": iterations})
    assert (ours.n_corrs, ours.shape, ours.dtype) == (scipys.n_corrs, scipys.shape, scipys.dtype)
    assert_allclose(ours.sk, scipys.sk, rtol=1e-6)
    assert_allclose(ours.yk, scipys.yk, rtol=1e-6)


@pytest.mark.parametrize("iterations", [0, 1])
def test_hess_inv_is_the_identity_before_a_pair_is_used(iterations):
    x0 = np.ones(2) if iterations == 0 else CREST
    ours, scipys = of_hess_inv(valley, x0, options={"maxiter": iterations})
    assert ours.n_corrs == scipys.n_corrs == 0
    assert_array_equal(ours.todense(), np.eye(2))


@pytest.mark.parametrize("iterations", [5, 6, 7, 8, 9, 13])
def test_pairs_of_hess_inv_are_scipys_in_the_order_of_time_after_the_memory_has_wrapped(iterations):
    ours, scipys = of_hess_inv(valley, CREST, options={"maxiter": iterations, "maxcor": 3})
    oldest = (iterations - 1) % 3  # the row that SciPy would overwrite next
    assert_allclose(ours.sk, np.roll(scipys.sk, -oldest, 0), rtol=1e-6)
    assert_allclose(ours.yk, np.roll(scipys.yk, -oldest, 0), rtol=1e-6)


@pytest.mark.parametrize("iterations", [2, 5, 6, 7, 8, 9, 13])
def test_hess_inv_takes_the_newest_y_to_the_newest_s(iterations):
    H, _ = of_hess_inv(valley, CREST, options={"maxiter": iterations, "maxcor": 3})
    assert_allclose(H @ H.yk[-1], H.sk[-1], rtol=1e-8)


@pytest.mark.parametrize("iterations", [2, 5, 6, 7, 8, 9, 13])
def test_pairs_of_hess_inv_are_the_differences_of_the_iterates_before_the_last(iterations):
    path = [CREST]
    result = scipy_method(valley, CREST, jac=True, maxiter=iterations, maxcor=3, callback=path.append)
    steps = np.diff(path, axis=0)[:-1][-3:]
    turns = np.diff([rosen_der(x) for x in path], axis=0)[:-1][-3:]
    assert_allclose([result.hess_inv.sk, result.hess_inv.yk], [steps, turns], rtol=1e-10)


@pytest.mark.parametrize("turn", [2, 4, 6, 9])
def test_hess_inv_after_a_search_that_failed_is_scipys(turn):
    ours, scipys = (
        scipy.optimize.minimize(turncoat(turn), CREST, jac=True, method=method, options={"maxls": 8}).hess_inv
        for method in (scipy_method, "L-BFGS-B")
    )
    assert_allclose(ours.todense(), scipys.todense())


def test_hess_inv_in_a_box_is_scipys():
    ours, scipys = of_hess_inv(beale, [1.0, 1.0], bounds=[(0, 2), (-1, 0.3)])
    assert_allclose(ours.todense(), scipys.todense(), rtol=1e-6)


def test_hess_inv_of_pairs_that_were_skipped_is_scipys():
    """Concave: no pair has the curvature that is asked for."""
    ours, scipys = of_hess_inv(lambda x: (-float(x @ x), -2 * x), [0.1, -0.2, 0.3], bounds=[(-1, 2)] * 3)
    assert ours.n_corrs == scipys.n_corrs == 0
