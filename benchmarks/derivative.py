"""The reverse derivative of a solution: what it costs, and how accurate it is where the problem is ill-conditioned.

The time of the solve is taken off. The unit is n products with the Hessian in one vmap and one Cholesky factorization.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np

from jaxlbfgsb import minimize

from .harness import OURS, Goal, table, take_turns

COST, ERROR = "derivative, cost", "derivative, relative error"
JAXOPT = "jaxopt, conjugate gradients on normal equations"


def banded(x, c):
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2) + jnp.sum((x - c) ** 4) + jnp.sum((x - c) ** 2)


def dense(n: int) -> Callable:
    A = jnp.asarray(np.random.default_rng(0).standard_normal((n, n)) / np.sqrt(n))
    return lambda x, c: jnp.sum(jnp.log(jnp.cosh(A @ x - c))) + jnp.sum(x**2) / 20


def programs(fun: Callable, c: jax.Array) -> dict[str, Callable]:
    """Functions of c: the unit, and for us and for jaxopt the solve and the gradient through it."""
    n = len(c)
    start = minimize(fun, jnp.zeros(n), c, bounds=(-1.0, 1.0)).x  # the solve takes one evaluation: what is left is ours
    box = jnp.full(n, -1.0), jnp.full(n, 1.0)

    def unit(c: Any) -> Any:
        gradient = jax.grad(lambda x: fun(x, c))
        return jnp.linalg.cholesky(jax.vmap(lambda v: jax.jvp(gradient, (start,), (v,))[1])(jnp.eye(n)))

    solves = {
        OURS: lambda c: minimize(fun, start, c, bounds=(-1.0, 1.0)).x,
        JAXOPT: lambda c: jaxopt.LBFGSB(fun, maxiter=500, tol=1e-5).run(start, box, c).params,
    }
    gradients = {
        f"{name}, gradient": jax.grad(lambda c, solve=solve: jnp.sum(jnp.sin(solve(c))))
        for name, solve in solves.items()
    }
    return {"unit": unit} | solves | gradients


def cost(name: str, fun: Callable, n: int, rounds: int) -> Iterator[dict]:
    c = jnp.asarray(np.random.default_rng(1).standard_normal(n))
    compiled, compiling = {}, {}
    for program, call in programs(fun, c).items():
        begun = time.perf_counter()
        compiled[program] = jax.jit(call).lower(c).compile()
        compiling[program] = time.perf_counter() - begun
    took = take_turns({program: lambda call=call: call(c) for program, call in compiled.items()}, rounds)
    for who in (OURS, JAXOPT):
        units = (took[f"{who}, gradient"].warm - took[who].warm) / took["unit"].warm
        longer = compiling[f"{who}, gradient"] / compiling[who]
        yield {"work": COST, "case": name, "n": n, "candidate": who, "units": units, "compile": longer}


def errors(condition: float, n: int = 40) -> dict[str, float]:
    """The relative error of the gradient of Σ x by c, for ½ xᵀQx - cᵀx, by method."""
    random = np.random.default_rng(2)
    U = np.linalg.qr(random.standard_normal((n, n)))[0]
    Q = jnp.asarray((U * np.logspace(0, np.log10(condition), n)) @ U.T)
    c = jnp.asarray(random.standard_normal(n))
    exact, best = np.linalg.solve(Q, np.ones(n)), jnp.asarray(np.linalg.solve(Q, c))
    wide = jnp.full(n, -jnp.inf), jnp.full(n, jnp.inf)

    def fun(x: Any, c: Any) -> Any:
        return x @ Q @ x / 2 - c @ x

    solves = {
        "dense": lambda c: minimize(fun, best, c, linear_solver="dense").x,
        "conjugate gradients": lambda c: minimize(fun, best, c, linear_solver="cg").x,
        "jaxopt": lambda c: jaxopt.LBFGSB(fun).run(best, wide, c).params,
    }
    found = {name: jax.jit(jax.grad(lambda c, solve=solve: jnp.sum(solve(c))))(c) for name, solve in solves.items()}
    return {name: float(np.linalg.norm(g - exact) / np.linalg.norm(exact)) for name, g in found.items()}


def measure(quick: bool = False) -> Iterator[dict]:
    n = 20 if quick else 1000
    for name, fun in (("banded Hessian", banded), (f"dense, {n:,} × {n:,} data", dense(n))):
        yield from cost(name, fun, n, 1 if quick else 9)
    for condition in (1e2, 1e8) if quick else (1e2, 1e4, 1e6, 1e8, 1e10, 1e12):
        for name, error in errors(condition).items():
            row = {"work": ERROR, "case": condition, "candidate": name}
            yield row | {"error": error if np.isfinite(error) else None}


def tables(rows: list[dict]) -> dict[str, str]:
    costs, found = ([row for row in rows if row["work"] == work] for work in (COST, ERROR))
    cases, conditions = (list(dict.fromkeys(row["case"] for row in part)) for part in (costs, found))
    lines = [[who, *(row["units"] for row in costs if row["candidate"] == who)] for who in (OURS, JAXOPT)] + [
        [
            "compile time of solve and derivative, over that of the solve",
            *(r["compile"] for r in costs if r["candidate"] == OURS),
        ]
    ]
    accuracy = [
        [name, *("NaN" if row["error"] is None else f"{row['error']:.0e}" for row in found if row["candidate"] == name)]
        for name in dict.fromkeys(row["candidate"] for row in found)
    ]
    head = ["relative error at condition", *(f"{condition:.0e}" for condition in conditions)]
    return {COST: table([f"n = {costs[0]['n']:,}, reverse", *cases], lines), ERROR: table(head, accuracy)}


def goals(_: list[dict]) -> list[Goal]:
    return []
