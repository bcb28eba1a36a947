"""The problems of tests/problems.py: who solves them, and the evaluations and the time that takes.

A problem is solved by those that come within 1e-6 of the least f that any finds, relative to max(|f|, 1). Each first
runs until it has spent its budget or stops by itself; then again until that f, which is what counts. All evaluate the
same JAX function; SciPy does so from Python, the others in one program. Performance profiles: Dolan, Moré, Math. Prog.
91 (2002).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from problems import PROBLEMS, Problem

from . import loops
from .harness import OURS, Goal, faster, profile, table, take_turns

CLOSE = 1e-6
COSTS = ("evaluations", "seconds")
CANDIDATES = {
    OURS: loops.ours,
    "SciPy, jitted gradient": loops.by_scipy,
    "jaxopt.LBFGSB": loops.by_jaxopt,
    "optax.lbfgs projected": loops.by_optax,
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
    bounded = loops.bounded(problem)
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
    head = ["", "", "solved", *(f"{what}, to ours" for what in COSTS)]
    return {"reliability": table(head, lines), "reliability, lost": table(["solved by others alone", ""], lost(rows))}


def lost(rows: list[dict]) -> list[list[str]]:
    """The problems that others solve and we do not, and who."""
    solved: dict[str, list[str]] = {}
    for row in rows:
        solved.setdefault(row["problem"], []).extend([row["candidate"]] if row["evaluations"] is not None else [])
    return [[name, ", ".join(who)] for name, who in solved.items() if who and OURS not in who]


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
