"""The candidates: each turns a Case into a call without arguments that returns f at its solution.

A peer is stopped as soon as its f is the target; one that only stops by a test of its own is given the loosest
tolerance, by powers of ten, that brings it there. That favours the peers: SciPy and we stop by SciPy's default tests.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import optimistix
from scipy.optimize import fmin_l_bfgs_b
from slsqp_jax import SLSQP, SLSQPConfig, ToleranceConfig

from jaxlbfgsb import Box, Status, init, minimize, step

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


def ours_to(target: float, case: Case) -> Callable:
    """The solver's own steps until f is the target."""
    both = jax.value_and_grad(case.fun)

    @jax.jit
    def run(x: Any, bounds: Any, target: Any) -> Any:
        box = None if bounds is None else Box(*bounds)
        return jax.lax.while_loop(
            lambda state: (state.status == Status.RUNNING) & (state.iterate.f > target),
            lambda state: step(both, state, box),
            init(x, box),
        ).iterate.f

    return _called(run, case, _box(case), target)


def jaxopt_to(target: float, case: Case) -> Callable:
    """jaxopt.LBFGSB, its update in a while_loop."""
    solver = jaxopt.LBFGSB(case.fun)

    @jax.jit
    def run(x: Any, bounds: Any, target: Any) -> Any:
        _, state = jax.lax.while_loop(
            lambda carry: (carry[1].value > target) & (carry[1].iter_num < MOST),
            lambda carry: tuple(solver.update(*carry, bounds)),
            (x, solver.init_state(x, bounds)),
        )
        return state.value

    return _called(run, case, (jnp.asarray(case.lower), jnp.asarray(case.upper)), target)


def optax_to(target: float, case: Case) -> Callable:
    """optax.lbfgs in a while_loop, for problems without bounds."""
    solver, both = optax.lbfgs(), optax.value_and_grad_from_state(case.fun)

    @jax.jit
    def run(x: Any, target: Any) -> Any:
        def more(carry: tuple) -> Any:
            return (carry[2] > target) & (optax.tree.get(carry[1], "count") < MOST)

        def body(carry: tuple) -> tuple:
            x, state, _ = carry
            f, g = both(x, state=state)
            updates, state = solver.update(g, state, x, value=f, grad=g, value_fn=case.fun)
            return optax.apply_updates(x, updates), state, optax.tree.get(state, "value")

        return jax.lax.while_loop(more, body, (x, solver.init(x), jnp.inf))[2]

    return _called(run, case, target)


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
    return _loosest(_slsqp(case), target, case)


def slsqp_once(case: Case) -> Callable:
    """The same at its default tolerance."""
    return _called(_slsqp(case), case, ToleranceConfig().rtol)


def _slsqp(case: Case) -> Callable:
    bounds = np.stack([case.lower, case.upper], 1) if case.bounded else None

    @jax.jit
    def run(x: Any, tolerance: Any) -> Any:
        solver = SLSQP(bounds=bounds, config=SLSQPConfig(tolerance=ToleranceConfig(rtol=tolerance, max_steps=MOST)))
        fun = partial(_with_aux, case.fun)
        return case.fun(optimistix.minimise(fun, solver, x, has_aux=True, max_steps=MOST, throw=False).value)

    return run


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
