"""The same training loop with `lbfgsb` and with `optax.lbfgs`, on the problems of the tests, as reliability.py has it.

Both loops are compiled as a whole and have no test of convergence.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import PROBLEMS, Problem

from jaxlbfgsb import Options, is_done, lbfgsb

from .harness import OURS, Goal, faster, table
from .loops import Run, by_optax, loop
from .reliability import COSTS, compare, costs, times_ours

OPTAX = "optax.lbfgs and projection"


def by_lbfgsb(problem: Problem) -> Callable:
    """One step of lbfgsb: one evaluation. What counts are values at params inside the bounds."""
    lower, upper = jnp.asarray(problem.lower), jnp.asarray(problem.upper)
    tx = lbfgsb(lower, upper, options=Options(ftol=0.0, gtol=0.0))

    def body(run: Run) -> Run:
        params, state = run.carry
        value, grads = jax.value_and_grad(problem.fun)(params)
        inside = jnp.all((lower <= params) & (params <= upper))
        updates, state = tx.update(grads, state, params, value=value)
        least = jnp.where(inside, jnp.fmin(run.least, value), run.least)
        return Run((optax.apply_updates(params, updates), state), least, run.evaluations + 1, is_done(state))

    x = jnp.asarray(problem.x0)
    return loop(body, lambda: Run((x, tx.init(x)), jnp.inf, 0, False))


def measure(quick: bool = False) -> Iterator[dict]:
    for problem in PROBLEMS[:2] if quick else PROBLEMS:
        yield from compare(problem, {OURS: by_lbfgsb, OPTAX: by_optax}, 1 if quick else 5)
        jax.clear_caches()


def tables(rows: list[dict]) -> dict[str, str]:
    lines = []
    for kind, bounded in (("with bounds", True), ("without", False)):
        some = [row for row in rows if row["bounded"] == bounded]
        solved = [int(np.isfinite(values).sum()) for values in costs(some, "evaluations").values()]
        evaluations, seconds = (times_ours(some, OPTAX, what) for what in COSTS)
        lines.append(
            [f"{len(some) // 2} problems {kind}", *map("{} solved".format, solved), evaluations, faster(seconds)]
        )
    return {"optax loop": table(["", "lbfgsb", OPTAX, *(f"{what}, optax / lbfgsb" for what in COSTS)], lines)}


def goals(_: list[dict]) -> list[Goal]:
    return []
