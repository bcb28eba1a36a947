"""The solver's own time an evaluation: that of a solve less that of its objective; and of how many kernels."""

from collections.abc import Callable, Iterator

import hlo
import jax
import jax.numpy as jnp
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import minimize

from . import peers
from .cases import Case, rosenbrock
from .harness import OURS, Goal, ratios, take_turns

WORK = "own time an evaluation"


def alone(case: Case, evaluations: int) -> Callable:
    """So many evaluations of the JAX objective and its gradient, one after the other, in one program."""
    both, x0 = jax.value_and_grad(case.fun), jnp.asarray(case.x0)

    @jax.jit
    def run(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def again(_: int, found: tuple) -> tuple:
            return both(x + 0 * found[0])  # which the compiler cannot know to be x: else it would evaluate once

        return jax.lax.fori_loop(0, evaluations, again, (jnp.zeros(()), x))

    return lambda: run(x0)


def kernels(case: Case) -> int:
    """Instructions of the compiled loop body, those of its branches counted in, parameters and the like not."""
    run = jax.jit(lambda x, *bounds: minimize(case.fun, x, bounds=bounds).fun)
    return hlo.loop_instructions(run.lower(*map(jnp.asarray, case[2:])).compile().as_text()).total()


def measure(quick: bool = False) -> Iterator[dict]:
    for n in (4,) if quick else (2, 10, 20, 50, 100):
        case = rosenbrock(n)
        count = fmin_l_bfgs_b(case.by_hand, case.x0, bounds=case.pairs)[2]["funcalls"]
        times = take_turns(
            {
                OURS: peers.ours(case),
                "SciPy": peers.scipy_by_hand(case),
                "JAX objective": alone(case, count),
                "NumPy objective": lambda case=case, count=count: [case.by_hand(case.x0) for _ in range(count)],
            },
            3 if quick else 50,
        )
        for name, objective in ((OURS, "JAX objective"), ("SciPy", "NumPy objective")):
            whole, part = times[name].warm / count, times[objective].warm / count
            row = {"work": WORK, "case": f"n = {n}", "n": n, "candidate": name, "seconds": whole - part}
            yield row | {"objective": part} | ({"kernels": kernels(case)} if name == OURS else {})


def tables(rows: list[dict]) -> dict[str, str]:
    return {"overhead": ratios(rows)}


def goals(rows: list[dict]) -> Iterator[Goal]:
    here = {row["candidate"]: row for row in rows if row["n"] == 10}
    mine, peer = here[OURS]["seconds"], here["SciPy"]["seconds"]
    measured = (
        f"{mine / peer:.2f}: {mine * 1e6:.1f} µs; {here[OURS]['kernels']} kernels, those of the objective among them"
    )
    yield Goal(f"{WORK} at n = 10, to SciPy's", "≤ 0.35", measured, mine / peer <= 0.35)
