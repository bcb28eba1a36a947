"""SciPy's faces of the solver: `fmin_l_bfgs_b`, and a method for `scipy.optimize.minimize`.

Arguments, counts, results and messages are SciPy's, and so are the points at which func is called and their order
(docs/from_scipy.md). The loop over `host.advance` is here: it calls func, and decides what SciPy's own loop decides
between evaluations, the limits and the callback. Where SciPy's behaviour is nothing to rely on, the notes of
`fmin_l_bfgs_b` say what happens in its place.
"""

import inspect
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from . import contract, host, objectives
from .differences import SCHEMES, Vector
from .objectives import Objective
from .status import Status

EPS = float(np.finfo(np.float64).eps)
FTOL = 1e7 * EPS
TASKS = {
    Status.GRADIENT: "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL",
    Status.REDUCTION: "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH",
    Status.ITERATIONS: "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT",
    Status.EVALUATIONS: "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT",
    Status.ABNORMAL: "ABNORMAL: ",
    Status.NON_FINITE: "ABNORMAL: ",
}
HALTED = "STOP: CALLBACK REQUESTED HALT"


def fmin_l_bfgs_b(
    func: Callable,
    x0: Any,
    fprime: Callable | None = None,
    args: Iterable[Any] = (),
    approx_grad: Any = 0,
    bounds: Any = None,
    m: int = 10,
    factr: float = 1e7,
    pgtol: float = 1e-5,
    epsilon: Any = 1e-8,
    iprint: Any = contract.NO_IPRINT,
    maxfun: float = 15000,
    maxiter: float = 15000,
    disp: Any = contract.NO_DISP,
    callback: Callable | None = None,
    maxls: int = 20,
) -> tuple[Vector, float, dict[str, Any]]:
    """A local minimizer of func(x, *args) over l ≤ x ≤ u: `scipy.optimize.fmin_l_bfgs_b`, and jax.grad if need be.

    Takes SciPy's arguments, calls func where SciPy calls it, and returns what SciPy returns. Computes in float64 on the
    CPU, whatever `jax_enable_x64` says. Not for use inside jit, vmap or grad: `jaxlbfgsb.minimize` is.

    Args:
      func: any Python, called with a new array of float64, `(n,)`, and args. Returns f if fprime is given or
        approx_grad is true, else (f, g). If it returns f alone, the gradient is jax.grad's: func is then traced,
        again at a later call where what it reaches may have changed, and runs compiled and in float64. What one reaches
        that is jitted already is constant from the first call on. A RuntimeWarning tells if what was traced has another
        value at x0.
      x0: where to begin, `(n,)` or anything that ravels to it; moved into the bounds first.
      fprime: the gradient of func at (x, *args), `(n,)`.
      args: further arguments for func and fprime.
      approx_grad: whether to take forward differences of func; wins over fprime.
      bounds: a pair (low, high) for each entry of x, None or ±inf where there is none; or a `scipy.optimize.Bounds`.
        No evaluation is outside, not by one ulp.
      m: how many pairs (Δx, Δg) the model of the Hessian remembers.
      factr: stop when (f_k - f_{k+1}) / max(|f_k|, |f_{k+1}|, 1) ≤ factr ε, ε = 2.2e-16.
      pgtol: stop when max |P(x - g) - x| ≤ pgtol.
      epsilon: the step of the differences, a number or `(n,)`.
      iprint, disp: without effect; whoever passes one gets SciPy's DeprecationWarning.
      maxfun: calls of func after which no iteration begins; those for differences count.
      maxiter: iterations allowed; the first is always made.
      callback: called after each iteration as callback(xk), or as callback(intermediate_result=OptimizeResult(x, fun))
        if that is its one parameter's name. StopIteration raised in it ends the run.
      maxls: evaluations allowed in one line search.

    Returns:
      The tuple (x, f, d).

      - x: the last iterate, `(n,)`.
      - f: func's value there.
      - d: `grad`, the gradient there, not projected; `task`, why it ended; `funcalls`, the number of calls of func;
        `nit`, that of iterations; `warnflag`, 0 if converged, 1 if a limit was reached, 2 otherwise.

    Raises:
      ValueError, TypeError: as SciPy's, for arguments that cannot be right. What func, fprime and callback raise comes
        through as it is.

    Notes:
      Not as in SciPy, where that is nothing to rely on:

      - A trial value of NaN or inf counts as +inf: the step is shortened and the fit goes on. At -inf it ends. A start
        that is not finite ends at once, and NaN is never passed to func unless x0 holds it.
      - After `ABNORMAL` f is the value at x, not that at the last trial.
      - x is float64 also if x0 is float32. A gradient of another size than x is a ValueError; one of another shape is
        ravelled.
      - A row of three among the bounds is a ValueError, also beside pairs; an object of `Bounds` may be used.
      - NaN among the bounds, and a lower bound of inf or an upper one of -inf, are a ValueError before any work.
      - A fixed variable, low = high, is no trouble to approx_grad; its entry of `grad` is 0 then.
      - The arrays in an `intermediate_result` are the callback's own.
      - fprime may be '2-point', '3-point' or 'cs', differences with relative steps; anything else that cannot be called
        is a TypeError.
      - func must return a tuple, a list or an array for a pair, not a dict; [b] is taken for the bound b.
      - A complex x0 is one ComplexWarning, not two.
      - A StopIteration that func raises in the differences of approx_grad is passed on; SciPy takes it for their end.
      - A start whose squared gradient leaves the range of float64 ends as ABNORMAL after one evaluation.

    Examples:
      >>> import numpy as np
      >>> from jaxlbfgsb import fmin_l_bfgs_b
      >>> x, f, d = fmin_l_bfgs_b(lambda x: np.sum((x - 2.0) ** 2), np.zeros(2), bounds=[(None, 1), (0, None)])
      >>> print(x, f, d["task"])
      [1. 2.] 1.0 CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL

    References:
      Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16 (1995); Zhu, Byrd, Lu, Nocedal, ACM TOMS 23 (1997), Algorithm 778;
      Morales, Nocedal, ACM TOMS 38 (2011); the contract of scipy.optimize.fmin_l_bfgs_b.
    """
    args = (*args,)
    contract.refuse_traced(x0, bounds, args, factr, pgtol, epsilon)
    report = _reporter(callback)
    contract.warn_of_output(iprint, disp)
    ftol = factr * EPS
    x = np.asarray(x0).ravel().astype(np.float64)
    lower, upper = contract.box(bounds, len(x))
    x, calls = np.clip(x, lower, upper), Counter()
    differences = partial(objectives.by_differences, func, args, calls, lower=lower, upper=upper)
    if approx_grad:
        evaluate = differences(absolute=epsilon)
    elif callable(fprime):
        evaluate = objectives.with_fprime(func, fprime, args, calls)
    elif isinstance(fprime, str) and fprime in SCHEMES:
        evaluate = differences(scheme=fprime)
    elif fprime is None:
        evaluate = objectives.own(func, args, calls)
    else:
        raise TypeError(f"fprime must be a function of x and args or None, got {type(fprime).__name__}")
    with contract.unguarded():
        end = _solve(evaluate, x, lower, upper, calls, m, ftol, pgtol, maxls, maxfun, maxiter, report)
    found = {"grad": end.g, "task": end.task, "funcalls": calls["fun"], "nit": end.iterations, "warnflag": end.warnflag}
    return end.x, end.f, found


def scipy_method(
    fun: Callable,
    x0: Any,
    args: Any = (),
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable | None = None,
    *,
    tol: float | None = None,
    maxcor: int = 10,
    ftol: Any = contract.NO_FTOL,
    gtol: Any = contract.NO_GTOL,
    eps: Any = 1e-8,
    maxfun: float = 15000,
    maxiter: float = 15000,
    maxls: int = 20,
    finite_diff_rel_step: Any = None,
    workers: Any = None,
    iprint: Any = contract.NO_IPRINT,
    disp: Any = contract.NO_DISP,
    **unknown: Any,
) -> Any:
    """The result of `scipy.optimize.minimize(fun, x0, ..., method=scipy_method)`: that of its method 'L-BFGS-B'.

    Args:
      fun, x0, args, bounds, callback: as for SciPy's minimize.
      jac: the gradient of fun; True if fun returns (f, g); None for forward differences with the absolute step `eps`;
        '2-point', '3-point' or 'cs' for differences with relative steps. Never jax.grad unasked: pass jax.grad(fun).
        SciPy's minimize hands a method of its user None in place of a string: call this function by itself for those.
      hess, hessp, constraints: not used; a RuntimeWarning says so.
      tol: ftol and gtol, where these are not given.
      maxcor, ftol, gtol, eps, maxfun, maxiter, maxls, finite_diff_rel_step, workers: SciPy's options. `workers` is a
        map, or a number of processes, for the differences.
      iprint, disp: without effect, and deprecated by SciPy.
      unknown: any other option, an OptimizeWarning.

    Returns:
      An `OptimizeResult` with fun, jac, nfev, njev, nit, status, message, x, success and hess_inv, a
      `LbfgsInvHessProduct`. Its pairs are in the order of time: it takes the newest y to the newest s also when the
      memory has wrapped around, where SciPy's own does not.

    Raises:
      ValueError, TypeError: as SciPy's; also for bounds that are NaN.

    Examples:
      >>> import numpy as np
      >>> from scipy.optimize import minimize, rosen, rosen_der
      >>> from jaxlbfgsb import scipy_method
      >>> minimize(rosen, np.zeros(4), jac=rosen_der, bounds=[(0, 0.5)] * 4, method=scipy_method).x.round(4)
      array([0.5   , 0.2622, 0.078 , 0.0061])

    References:
      The contract of scipy.optimize.minimize(method='L-BFGS-B'); `fmin_l_bfgs_b`.
    """
    from scipy.optimize import LbfgsInvHessProduct, OptimizeResult

    args = args if isinstance(args, tuple) else (args,)
    contract.refuse_traced(x0, bounds, args, tol, ftol, gtol, eps)
    contract.warn_of_unused(hess, hessp, constraints)
    x = np.atleast_1d(np.asarray(x0)).astype(np.float64)
    if x.ndim != 1:
        raise ValueError("'x0' must only have one dimension.")
    lower, upper = contract.wide_box(bounds, len(x))
    x = np.clip(x, lower, upper)
    free = lower < upper
    if bounds is not None and not free.any():
        value, message = fun(x.copy(), *args), "All independent variables were fixed by bounds."
        value = value[0] if jac is True else value
        return OptimizeResult(x=x, fun=value, success=True, message=message, nfev=1, njev=0, nhev=0)
    given = callable(jac) or jac is True
    whole, free = x, free | given
    report = _reporter(callback, free, whole)
    contract.warn_of_unknown(unknown)
    contract.warn_of_output(iprint, disp, stacklevel=4)
    ftol, gtol = (
        given if given is not absent else usual if tol is None else tol
        for given, absent, usual in ((ftol, contract.NO_FTOL, FTOL), (gtol, contract.NO_GTOL, 1e-5))
    )
    ftol = ftol / EPS * EPS  # as SciPy, which refuses here what is no number

    fun = fun if free.all() else partial(_at_free, fun, whole, free)
    x, lower, upper, calls = x[free], lower[free], upper[free], Counter()
    with contract.unguarded(), ExitStack() as resources:
        if jac is True:
            evaluate = objectives.in_pairs(fun, args, calls)
        elif given:
            evaluate = objectives.with_fprime(fun, jac, args, calls)
        else:
            scheme = jac if isinstance(jac, str) and jac in SCHEMES else "2-point"
            step = {"relative": finite_diff_rel_step} if scheme is jac else {"absolute": eps}
            values = contract.mapping(workers, resources)
            evaluate = objectives.by_differences(
                fun, args, calls, values, scheme=scheme, lower=lower, upper=upper, **step
            )
        end = _solve(evaluate, x, lower, upper, calls, maxcor, ftol, gtol, maxls, maxfun, maxiter, report)
    pairs = host.pairs_used(*end.last) if end.last else np.zeros((2, 0, len(x)))
    result = OptimizeResult(
        fun=end.f,
        jac=_filled(np.full(len(free), np.nan), free, end.g),
        nfev=calls["fun"],
        njev=calls["grad"],
        nit=end.iterations,
        status=end.warnflag,
        message=end.task,
        x=_filled(whole, free, end.x),
        success=end.warnflag == 0,
        hess_inv=LbfgsInvHessProduct(*pairs) if free.all() else None,
    )
    if end.halted:
        result.update(success=False, status=99, message="`callback` raised `StopIteration`.")
    return result


class _End(NamedTuple):
    """How a run ended."""

    x: Vector
    f: Any
    g: Vector
    iterations: int
    task: str
    warnflag: int
    halted: bool
    last: tuple[np.ndarray, host.Run] | None  # what `host.pairs_used` wants to know, if there was a run


def _solve(
    evaluate: Objective,
    x: Vector,
    lower: Vector,
    upper: Vector,
    calls: Counter,
    m: Any,
    ftol: float,
    pgtol: Any,
    maxls: Any,
    maxfun: Any,
    maxiter: Any,
    report: Callable | None,
) -> _End:
    """The run from x. SciPy evaluates there before it looks at maxls, pgtol and m; so does this."""
    n, (f, packed) = len(x), evaluate(x, host.asking(x))
    if not maxls > 0:
        raise ValueError("maxls must be positive.")
    (maxls,) = array("i", [maxls])  # what C takes for an int
    ftol, pgtol = math.ldexp(ftol, 0), math.ldexp(pgtol, 0)  # and for a double: Decimal, but no text
    m = contract.memory_size(m)
    iterations, halted, iterate, last, run = 0, False, None, None, None
    refused = "ERROR: FACTR < 0" if ftol < 0 else "ERROR: M <= 0" if m == 0 else "ERROR: N <= 0" if n == 0 else None
    if refused:
        task, iterate = refused, (x, np.array(0.0), np.zeros(n))
    elif not np.isfinite(x).all():
        task, iterate = TASKS[Status.NON_FINITE], (x, *_read(f, packed, n))
    else:
        task, run = None, host.start(x, lower, upper, m, ftol, pgtol, maxls)

    while task is None and run is not None:
        before, run = run.reply, host.advance(run, packed)
        last, status = (before, run), run.status
        value, g = _read(f, packed, n)
        bottomless = value == -np.inf and iterate is not None
        moved = run.iterations > iterations or bottomless
        if moved or iterate is None:
            iterate = x, value, g
        if moved:
            iterations += 1
            halted = report is not None and report(x.copy(), value)
            task = (
                TASKS[Status.ITERATIONS] if iterations >= maxiter
                else TASKS[Status.EVALUATIONS] if calls["fun"] > maxfun
                else HALTED if halted
                else None
            )  # fmt: skip
        if bottomless:
            status = Status.GRADIENT if np.all(abs(np.clip(x - g, lower, upper) - x) <= pgtol) else Status.REDUCTION
        if task is None and status != Status.RUNNING:
            task = TASKS[Status(status)]
        if task is None:
            last_x, x = x, run.x
            if (x != last_x).any():  # SciPy remembers the last point
                f, packed = evaluate(x, run.answer)

    assert iterate is not None
    assert task is not None
    converged = task.startswith("CONVERGENCE")
    warnflag = 0 if converged else 1 if calls["fun"] > maxfun or iterations >= maxiter else 2
    x, f, g = iterate
    return _End(x.copy(), f, g.copy(), iterations, task, warnflag, halted, last)


def _read(f: Any, packed: Any, n: int) -> tuple[Any, Vector]:
    """func's value and the gradient."""
    packed = np.asarray(packed)
    return float(packed[0]) if f is None else f, packed[1 : n + 1]


def _reporter(callback: Callable | None, free: Bool[np.ndarray, " n"] | None = None, fixed: Any = None) -> Any:
    """(x, f) ↦ whether the callback asks to stop, x being the values at `free` and `fixed` those elsewhere."""
    if callback is None:
        return None
    named = set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def report(x: Vector, f: Any) -> bool:
        x = x if free is None else _filled(fixed, free, x)
        try:
            if named:
                from scipy.optimize import OptimizeResult

                callback(intermediate_result=OptimizeResult(x=x, fun=f))
            else:
                callback(x)
        except StopIteration:
            return True
        return False

    return report


def _filled(whole: Vector, free: Bool[np.ndarray, " n"], part: Vector) -> Vector:
    """A copy of `whole` with `part` for its free entries."""
    whole = whole.astype(np.result_type(whole, part))  # the part of jac='cs' is complex
    whole[free] = part
    return whole


def _at_free(fun: Callable, whole: Vector, free: Bool[np.ndarray, " n"], part: Vector, *args: Any) -> Any:
    """fun of all variables, given the free ones."""
    return fun(_filled(whole, free, part), *args)
