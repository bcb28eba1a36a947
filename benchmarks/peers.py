"""Candidates that stop by tests of their own: each turns a Case into a call that returns f at its solution.

SciPy and we stop by SciPy's default tests. To a peer that has others goes the loosest tolerance, by powers of ten, that
brings it to the target.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from scipy.optimize import fmin_l_bfgs_b
from slsqp_jax import SLSQP, SLSQPConfig, ToleranceConfig

from jaxlbfgsb import minimize

from .cases import Case

CLOSE = 1e-8  # what counts as the same f: this much above it, relative to max(|f|, 1)
MOST = 2000  # iterations
TOLERANCES = [10.0**-k for k in range(2, 13)]


def target(case: Case) -> float:
    """SciPy's f, and a little more."""
    f = scipy_by_hand(case)()
    return f + CLOSE * max(abs(f), 1)


def scipy_by_hand(case: Case) -> Callable:
    return lambda: fmin_l_bfgs_b(case.by_hand, case.x0, bounds=case.pairs)[1]


def scipy_jitted(case: Case) -> Callable:
    both = jax.jit(jax.value_and_grad(case.fun))
    return lambda: fmin_l_bfgs_b(lambda x: tuple(map(np.asarray, both(x))), case.x0, bounds=case.pairs)[1]


def ours(case: Case) -> Callable:
    """minimize under jit."""
    run = jax.jit(lambda x, bounds: minimize(case.fun, x, bounds=bounds).fun)
    return _called(run, case, _box(case))


def ours_alone(case: Case) -> Callable:
    """minimize as it is called outside of jit."""
    return _called(lambda x, bounds: minimize(case.fun, x, bounds=bounds).fun, case, _box(case))


def optimistix_to(target: float, case: Case) -> Callable:
    """optimistix.BFGS, for problems without bounds."""

    @jax.jit
    def run(x: Any, tolerance: Any) -> Any:
        solver = optimistix.BFGS(tolerance, tolerance)
        found = optimistix.minimise(lambda x, _: case.fun(x), solver, x, max_steps=MOST, throw=False)
        return case.fun(found.value)

    return _loosest(run, target, case)


def slsqp_to(target: float, case: Case) -> Callable:
    """slsqp_jax.SLSQP."""
    bounds = np.stack([case.lower, case.upper], 1) if case.bounded else None

    @jax.jit
    def run(x: Any, tolerance: Any) -> Any:
        solver = SLSQP(bounds=bounds, config=SLSQPConfig(tolerance=ToleranceConfig(rtol=tolerance, max_steps=MOST)))
        fun = partial(_with_aux, case.fun)
        return case.fun(optimistix.minimise(fun, solver, x, has_aux=True, max_steps=MOST, throw=False).value)

    return _loosest(run, target, case)


def _with_aux(fun: Callable, x: Any, _: Any) -> tuple:
    return fun(x), None


def _box(case: Case) -> tuple[jax.Array, jax.Array] | None:
    return (jnp.asarray(case.lower), jnp.asarray(case.upper)) if case.bounded else None


def _called(run: Callable, case: Case, *arguments: Any) -> Callable:
    x = jnp.asarray(case.x0)
    return lambda: run(x, *arguments)


def _loosest(run: Callable, target: float, case: Case, *arguments: Any) -> Callable:
    """The run with the loosest tolerance that brings it to the target; with the strictest where none does."""
    tolerances = (t for t in TOLERANCES if run(jnp.asarray(case.x0), t, *arguments) <= target)
    return _called(run, case, next(tolerances, TOLERANCES[-1]), *arguments)
