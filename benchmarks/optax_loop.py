"""The same training loop with `lbfgsb` and with `optax.lbfgs`, on the problems of the tests.

Run `python benchmarks/optax_loop.py`; it takes a quarter of an hour. optax.lbfgs knows no bounds, so its params are
projected on them after each update, as optax's documentation has it; value and gradient then have to be computed anew,
where they could otherwise be taken from its state. Both loops are compiled as a whole and have no test of convergence.
Each first runs until it finds nothing better or has spent its budget; a problem counts as solved by those that come
within 1e-6 of the least f that either found, relative to max(|f|, 1). Evaluations and time are those until that value,
of the problems that both solve.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import PROBLEMS, Problem

from jaxlbfgsb import Options, is_done, lbfgsb

BUDGET, CLOSE, REPEATS = 3000, 1e-6, 5


class Run(NamedTuple):
    """A loop under way: it stops where f ≤ target, at its own end, or with BUDGET evaluations spent."""

    params: jax.Array
    state: tuple
    least: jax.Array
    evaluations: jax.Array
    done: jax.Array


def ours(problem: Problem) -> Callable:
    """One step of lbfgsb: one evaluation."""
    lower, upper = jnp.asarray(problem.lower), jnp.asarray(problem.upper)
    tx = lbfgsb(lower, upper, options=Options(ftol=0.0, gtol=0.0))

    def step(run: Run) -> Run:
        value, grads = jax.value_and_grad(problem.fun)(run.params)
        inside = jnp.all((lower <= run.params) & (run.params <= upper))
        updates, state = tx.update(grads, run.state, run.params, value=value)
        least = jnp.where(inside, jnp.fmin(run.least, value), run.least)
        return Run(optax.apply_updates(run.params, updates), state, least, run.evaluations + 1, is_done(state))

    return loop(tx, step, jnp.asarray(problem.x0))


def peers(problem: Problem) -> Callable:
    """One step of optax.lbfgs and a projection: the evaluations of its line search, and one where it was projected."""
    tx, fun = optax.lbfgs(memory_size=10), problem.fun
    lower, upper = jnp.asarray(problem.lower), jnp.asarray(problem.upper)
    bounded = bool(np.isfinite([problem.lower, problem.upper]).any())
    value_and_grad = optax.value_and_grad_from_state(fun)

    def step(run: Run) -> Run:
        known = jnp.isfinite(optax.tree.get(run.state, "value"))
        if bounded:
            (value, grad), own = jax.value_and_grad(fun)(run.params), 1
        else:
            (value, grad), own = value_and_grad(run.params, state=run.state), jnp.where(known, 0, 1)
        updates, state = tx.update(grad, run.state, run.params, value=value, grad=grad, value_fn=fun)
        params = optax.projections.projection_box(optax.apply_updates(run.params, updates), lower, upper)
        spent = own + optax.tree.get(state, "num_linesearch_steps")
        end = jnp.all(params == run.params)
        return Run(params, state, jnp.fmin(run.least, value), run.evaluations + spent, end)

    return loop(tx, step, jnp.clip(jnp.asarray(problem.x0), lower, upper))


def loop(tx: optax.GradientTransformationExtraArgs, step: Callable, params: jax.Array) -> Callable:
    """The whole loop, compiled, as a function of the target: the least f and the evaluations."""

    @jax.jit
    def run(target: float) -> tuple[jax.Array, jax.Array]:
        begin = Run(params, tx.init(params), jnp.array(jnp.inf), jnp.array(0), jnp.array(False))
        end = jax.lax.while_loop(lambda r: ~r.done & (r.least > target) & (r.evaluations < BUDGET), step, begin)
        return end.least, end.evaluations

    return run


def measure(problem: Problem) -> list[tuple[bool, int, float]]:
    """Of each of the two loops: whether it solves the problem, and its evaluations and seconds for that."""
    loops = [ours(problem), peers(problem)]
    least = np.array([float(run(-jnp.inf)[0]) for run in loops])
    best = np.nanmin(least)
    target = best + CLOSE * max(abs(best), 1)
    found = []
    for run, value in zip(loops, least, strict=True):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            _, evaluations = jax.block_until_ready(run(target))
            times.append(time.perf_counter() - start)
        found.append((bool(value <= target), int(evaluations), statistics.median(times)))
    return found


def report(title: str, problems: list[Problem]) -> None:
    rows = [measure(problem) for problem in problems]
    both = np.array([row for row in rows if row[0][0] and row[1][0]])
    print(f"\n{title}: {len(rows)} problems, {len(both)} solved by both\n")
    print("| | solved | evaluations, in all | ms, in all |")
    print("|---|---|---|---|")
    for which, name in enumerate(("lbfgsb", "optax.lbfgs")):
        solved, (_, evaluations, seconds) = sum(row[which][0] for row in rows), both[:, which].sum(0)
        print(f"| {name} | {solved} | {evaluations:.0f} | {seconds * 1e3:.1f} |")
    _, evaluations, seconds = np.median(both[:, 1] / both[:, 0], 0)
    print(f"\nMedian of optax.lbfgs / lbfgsb: evaluations {evaluations:.2f}, time {seconds:.2f}")
    for which, name in enumerate(("lbfgsb", "optax.lbfgs")):
        unsolved = [problem.name for problem, row in zip(problems, rows, strict=True) if not row[which][0]]
        print(f"Not solved by {name}: {', '.join(unsolved) or 'none'}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}")
    bounded = [bool(np.isfinite([problem.lower, problem.upper]).any()) for problem in PROBLEMS]
    report("Bounded", [problem for problem, is_bounded in zip(PROBLEMS, bounded, strict=True) if is_bounded])
    report("Without bounds", [problem for problem, is_bounded in zip(PROBLEMS, bounded, strict=True) if not is_bounded])
