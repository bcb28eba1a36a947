"""The first call: from a process that has loaded JAX and nothing of the problem to its minimum, at n = 10 with bounds.

Each first call has a process of its own. JAX reports what it spends on compiling and on making the module before that;
a second call says what running takes; tracing is the rest.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .cases import Case, rosenbrock
from .harness import OURS, Goal, duration, fresh, ratio, ratios, seconds, table

WORK, N = "first call", 10
PEERS = (OURS, "jaxopt.LBFGSB", "SciPy, jitted gradient")
PROGRAM = "import json; from benchmarks.compile import first_call as f; print(json.dumps(f({!r}, {!r})))"
PARTS = ("trace", "lower", "compile", "run")
EVENTS = {
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}


def unrolled(x: Any) -> Any:
    """A hundred terms, each of which stands in the program."""
    return sum(jnp.log1p((x[i % N] - jnp.cos(1.0 * i) * x[(3 * i + 1) % N] - i / 100) ** 2) for i in range(100))


OBJECTIVES = {"chained Rosenbrock": rosenbrock(N).fun, "100 unrolled terms": unrolled}


def first_call(candidate: str, objective: str) -> dict[str, float]:
    """Seconds of the first call and of its parts, in this process."""
    call = solver(candidate, rosenbrock(N)._replace(fun=OBJECTIVES[objective]))
    jax.block_until_ready(jax.jit(jnp.cos)(1.0))  # JAX itself has been started
    spent = dict.fromkeys(PARTS, 0.0)

    def listen(event: str, took: float, **_: Any) -> None:
        if event in EVENTS:
            spent[EVENTS[event]] += took

    jax.monitoring.register_event_duration_secs_listener(listen)
    whole, parts = seconds(call)[0], dict(spent)
    parts["run"] = seconds(call)[0]
    return parts | {"trace": whole - sum(parts.values()), "whole": whole}


def solver(candidate: str, case: Case) -> Callable:
    """The candidate as its users call it; what it needs is loaded."""
    x, box = jnp.asarray(case.x0), (jnp.asarray(case.lower), jnp.asarray(case.upper))
    if candidate == OURS:
        from jaxlbfgsb import minimize

        return lambda: minimize(case.fun, x, bounds=box)
    if candidate == "jaxopt.LBFGSB":
        import jaxopt

        run = jax.jit(jaxopt.LBFGSB(case.fun, maxiter=500, tol=1e-5).run)
        return lambda: run(x, bounds=box).params
    from .peers import scipy_jitted

    return scipy_jitted(case)


def measure(quick: bool = False) -> Iterator[dict]:
    for objective in list(OBJECTIVES)[: 1 if quick else None]:
        found: dict[str, list] = {name: [] for name in PEERS[: 2 if quick else None]}
        for _ in range(1 if quick else 5):
            for name, calls in found.items():
                calls.append(fresh(PROGRAM.format(name, objective)))
        for name, calls in found.items():
            middle = {part: statistics.median(call[part] for call in calls) for part in calls[0]}
            row = {"work": WORK, "case": objective, "candidate": name, "seconds": middle.pop("whole")}
            yield row | middle


def tables(rows: list[dict]) -> dict[str, str]:
    lines = [[row["case"], row["candidate"], *(duration(row[part]) for part in PARTS)] for row in rows]
    return {"compile": ratios(rows), "compile, parts": table(["", "", *PARTS], lines)}


def goals(rows: list[dict]) -> Iterator[Goal]:
    for case in dict.fromkeys(row["case"] for row in rows):
        found = 1 / ratio(rows, "jaxopt.LBFGSB", case=case)
        yield Goal(f"first call, bounded, n = 10, {case}, to jaxopt's", "≤ 0.35", f"{found:.3f}", found <= 0.35)
