"""Whole runs, compiled, as functions of the f to stop at: what a candidate needs for the same f as another.

A problem has fun, x0, lower and upper: a Case, or one of tests/problems.py. x0 and box are constants of the program.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import Box, Options, init
from jaxlbfgsb.loop import form

from .cases import Case

BUDGET = 3000  # evaluations


class Run(NamedTuple):
    """Where a loop is; it ends where least ≤ target, at its own end or with the budget spent."""

    carry: Any
    least: Any
    evaluations: Any
    done: Any


def loop(body: Callable[[Run], Run], start: Callable[[], Run]) -> Callable:
    """The loop as a function of the target: the least f and the evaluations."""

    @jax.jit
    def run(target: float) -> tuple[Any, Any]:
        def more(run: Run) -> Any:
            return ~run.done & (run.least > target) & (run.evaluations < BUDGET)

        end = jax.lax.while_loop(more, body, start())
        return end.least, end.evaluations

    return run


def bounded(problem: Any) -> bool:
    return bool(np.isfinite([problem.lower, problem.upper]).any())


def ours(problem: Any) -> Callable:
    """The loop of `minimize`."""
    both, options = jax.value_and_grad(problem.fun), Options(ftol=0.0, gtol=0.0)
    box = Box(jnp.asarray(problem.lower), jnp.asarray(problem.upper)) if bounded(problem) else None
    x = jnp.asarray(problem.x0)
    start, unfold, update, running = form(lambda x, box, _: init(x, box), x, box, options)

    def body(run: Run) -> Run:
        carry = update(run.carry, *both(unfold(run.carry).x))
        state = unfold(carry)
        return Run(carry, state.iterate.f, state.evaluations, ~running(carry))

    return loop(body, lambda: Run(start, jnp.inf, 0, False))


def by_jaxopt(problem: Any) -> Callable:
    """jaxopt.LBFGSB's update."""
    solver, box = jaxopt.LBFGSB(problem.fun), (jnp.asarray(problem.lower), jnp.asarray(problem.upper))

    def body(run: Run) -> Run:
        x, state = solver.update(*run.carry, box)
        return Run((x, state), jnp.fmin(run.least, state.value), state.num_fun_eval, state.error == 0)

    def start() -> Run:
        x = jnp.clip(jnp.asarray(problem.x0), *box)
        state = solver.init_state(x, box)
        return Run((x, state), state.value, state.num_fun_eval, state.error == 0)

    return loop(body, start)


def by_optax(problem: Any) -> Callable:
    """optax.lbfgs, the params projected on the bounds after each update as optax's documentation has it.

    Value and gradient then have to be computed anew. Without bounds they are taken from its state.
    """
    tx, fun, has_box = optax.lbfgs(), problem.fun, bounded(problem)
    both = jax.value_and_grad(fun) if has_box else optax.value_and_grad_from_state(fun)

    def body(run: Run) -> Run:
        x, state = run.carry
        own = 1 if has_box else jnp.where(jnp.isfinite(optax.tree.get(state, "value")), 0, 1)
        f, g = both(x) if has_box else both(x, state=state)
        updates, state = tx.update(g, state, x, value=f, grad=g, value_fn=fun)
        new = optax.apply_updates(x, updates)
        if has_box:
            new = optax.projections.projection_box(new, problem.lower, problem.upper)
        least = jnp.fmin(run.least, f if has_box else optax.tree.get(state, "value"))
        spent = run.evaluations + own + optax.tree.get(state, "num_linesearch_steps")
        return Run((new, state), least, spent, jnp.all(new == x))

    def start() -> Run:
        x = jnp.clip(jnp.asarray(problem.x0), problem.lower, problem.upper)
        return Run((x, tx.init(x)), jnp.inf, 0, False)

    return loop(body, start)


def by_scipy(problem: Any) -> Callable:
    """SciPy with the jitted gradient, left by an exception at the target."""
    both = jax.jit(jax.value_and_grad(problem.fun))
    bounds = list(zip(problem.lower, problem.upper, strict=True)) if bounded(problem) else None

    def run(target: float) -> tuple[float, int]:
        values = []

        def fun(x):
            f, g = both(x)
            values.append(float(f))
            if values[-1] <= target:
                raise StopIteration
            return values[-1], np.asarray(g)

        with suppress(StopIteration):
            fmin_l_bfgs_b(fun, problem.x0, bounds=bounds, factr=0, pgtol=0, maxfun=BUDGET)
        return float(np.nanmin(values)), len(values)

    return run


def to(target: float, make: Callable, case: Case) -> Callable:
    """One of these as a call that returns f at the target."""
    run = make(case)
    return lambda: run(target)[0]
