"""The problems of tests/problems.py: who solves them, and the evaluations and the time that takes.

A problem is solved by those that come within 1e-6 of the least f that any finds, relative to max(|f|, 1). Each first
runs until it has spent its budget or stops by itself; then again until that f, which is what counts. All evaluate the
same JAX function; SciPy does so from Python, the others in one program. Performance profiles: Dolan, Moré, Math. Prog.
91 (2002).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
from matplotlib.figure import Figure
from problems import PROBLEMS, Problem
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import Box, Options, Status, init, step

from .harness import OURS, Goal, faster, profile, table, take_turns

BUDGET, CLOSE = 3000, 1e-6
COSTS = ("evaluations", "seconds")


class Run(NamedTuple):
    """Where a loop is; it ends where f ≤ target, at its own end or with the budget spent."""

    carry: Any
    least: Any
    evaluations: Any
    done: Any


def loop(start: Callable[[], Run], body: Callable[[Run], Run]) -> Callable:
    """The loop, compiled as a whole, as a function of the target: the least f and the evaluations."""

    @jax.jit
    def run(target: float) -> tuple[Any, Any]:
        end = jax.lax.while_loop(
            lambda run: ~run.done & (run.least > target) & (run.evaluations < BUDGET), body, start()
        )
        return end.least, end.evaluations

    return run


def ours(problem: Problem) -> Callable:
    """The solver's own steps, one evaluation each."""
    box, both, options = Box(*map(jnp.asarray, problem[3:5])), jax.value_and_grad(problem.fun), Options(0.0, 0.0)
    bounded = box if np.isfinite(problem[3:5]).any() else None

    def body(run: Run) -> Run:
        state = step(both, run.carry, bounded, options)
        return Run(state, state.iterate.f, state.evaluations, state.status != Status.RUNNING)

    return loop(lambda: Run(init(jnp.asarray(problem.x0), bounded), jnp.inf, 0, False), body)


def by_jaxopt(problem: Problem) -> Callable:
    """jaxopt.LBFGSB, its update in a while_loop."""
    solver, box = jaxopt.LBFGSB(problem.fun), tuple(map(jnp.asarray, problem[3:5]))

    def body(run: Run) -> Run:
        x, state = solver.update(*run.carry, box)
        return Run((x, state), jnp.fmin(run.least, state.value), state.num_fun_eval, state.error == 0)

    def start() -> Run:
        x = jnp.clip(jnp.asarray(problem.x0), *box)
        state = solver.init_state(x, box)
        return Run((x, state), state.value, state.num_fun_eval, state.error == 0)

    return loop(start, body)


def by_optax(problem: Problem) -> Callable:
    """optax.lbfgs, the params projected on the bounds after each update as optax's documentation has it.

    Value and gradient then have to be computed anew, where they could otherwise be taken from its state.
    """
    tx, fun, box = optax.lbfgs(), problem.fun, tuple(map(jnp.asarray, problem[3:5]))
    bounded = bool(np.isfinite(problem[3:5]).any())
    from_state = optax.value_and_grad_from_state(fun)

    def body(run: Run) -> Run:
        x, state = run.carry
        known = ~bounded & jnp.isfinite(optax.tree.get(state, "value"))
        f, g = jax.value_and_grad(fun)(x) if bounded else from_state(x, state=state)
        updates, state = tx.update(g, state, x, value=f, grad=g, value_fn=fun)
        new = optax.projections.projection_box(optax.apply_updates(x, updates), *box)
        spent = run.evaluations + jnp.where(known, 0, 1) + optax.tree.get(state, "num_linesearch_steps")
        return Run((new, state), jnp.fmin(run.least, f), spent, jnp.all(new == x))

    def start() -> Run:
        x = jnp.clip(jnp.asarray(problem.x0), *box)
        return Run((x, tx.init(x)), jnp.inf, 0, False)

    return loop(start, body)


def by_scipy(problem: Problem) -> Callable:
    """SciPy with the jitted gradient, left by an exception at the target."""
    both = jax.jit(jax.value_and_grad(problem.fun))

    def run(target: float) -> tuple[float, int]:
        values = []

        def fun(x):
            f, g = both(x)
            values.append(float(f))
            if values[-1] <= target:
                raise StopIteration
            return values[-1], np.asarray(g)

        keywords = {"bounds": problem.bounds, "factr": 0, "pgtol": 0, "maxfun": BUDGET}
        with suppress(StopIteration):
            fmin_l_bfgs_b(fun, problem.x0, **keywords)
        return float(np.nanmin(values)), len(values)

    return run


CANDIDATES = {
    OURS: ours,
    "SciPy, jitted gradient": by_scipy,
    "jaxopt.LBFGSB": by_jaxopt,
    "optax.lbfgs projected": by_optax,
}


def compare(problem: Problem, candidates: dict[str, Callable], rounds: int) -> Iterator[dict]:
    """For each candidate: evaluations and seconds to the f that the best of them finds, or None."""
    runs = {name: make(problem) for name, make in candidates.items()}
    with ThreadPoolExecutor() as threads:  # what compiles need not wait
        ends = threads.map(lambda run: float(run(-jnp.inf)[0]), runs.values())
    least = dict(zip(runs, ends, strict=True))
    best = min(value for value in least.values() if np.isfinite(value))
    target = best + CLOSE * max(abs(best), 1)
    found = take_turns({name: lambda run=run: run(target) for name, run in runs.items()}, rounds)
    bounded = bool(np.isfinite(problem[3:5]).any())
    for name, times in found.items():
        solved = least[name] <= target
        row = {"problem": problem.name, "bounded": bounded, "candidate": name, "least": least[name]}
        yield row | {"evaluations": int(times.result[1]) if solved else None, "seconds": times.warm if solved else None}


def measure(quick: bool = False) -> Iterator[dict]:
    for problem in PROBLEMS[:2] if quick else PROBLEMS:
        yield from compare(problem, CANDIDATES, 1 if quick else 5)
        jax.clear_caches()


def costs(rows: list[dict], what: str) -> dict[str, list[float]]:
    """What each problem costs each candidate, inf where it is not solved."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["candidate"], []).append(np.inf if row[what] is None else row[what])
    return found


def times_ours(rows: list[dict], name: str, what: str) -> float:
    """The median over the problems that both solve of the candidate's cost over ours."""
    peer, mine = (np.array(costs(rows, what).get(who, [])) for who in (name, OURS))
    both = np.isfinite(peer) & np.isfinite(mine)
    return float(np.median(peer[both] / mine[both])) if both.any() else np.nan


def tables(rows: list[dict]) -> dict[str, str]:
    lines = []
    for kind, bounded in (("with bounds", True), ("without", False)):
        some = [row for row in rows if row["bounded"] == bounded]
        for name, values in costs(some, "evaluations").items():
            solved = f"{np.isfinite(values).sum()} of {len(values)}"
            lines.append(
                [kind, name, solved, times_ours(some, name, COSTS[0]), faster(times_ours(some, name, COSTS[1]))]
            )
    return {"reliability": table(["", "", "solved", *(f"{what}, to ours" for what in COSTS)], lines)}


def picture(rows: list[dict]) -> Figure:
    """The share of the problems solved within a factor of the least evaluations, and of the least time."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2, sharey=True), COSTS, strict=True):
        for name, (factors, share) in profile(costs(rows, what)).items():
            axes.step([1, *factors, 100], [0, *share, share[-1]], where="post", label=name)
        axes.set(xscale="log", xlim=(1, 100), ylim=(0, 1), xlabel=f"{what}, to the least of all")
    figure.axes[0].set_ylabel("share of the problems solved")
    figure.axes[0].legend(loc="lower right")
    return figure


def goals(rows: list[dict]) -> Iterator[Goal]:
    work = "evaluations on the problem list, ours to those of"
    for name, limit in (("SciPy, jitted gradient", 1.0), ("jaxopt.LBFGSB", 1 / 2.9)):
        found = 1 / times_ours(rows, name, "evaluations")
        yield Goal(f"{work} {name}, median", f"≤ {limit:.2f}", f"{found:.2f}", found <= limit)
