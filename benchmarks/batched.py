"""Ten thousand bounded fits of four parameters to 50 points: fits a second beside SciPy, jaxopt, optax and vmap.

The problem is tests/peaks.py's. Slow candidates do fewer of the fits. All end where their own tests stop them; the
table says which share of the fits are at SciPy's f then.
"""

import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import peaks
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import minimize, minimize_many

from .harness import OURS, Goal, faster, seconds, table, take_turns

COUNT = 10_000
WORK = f"{COUNT:,} fits, n = 4"
MANY = f"{OURS}.minimize_many"
BOUNDS = peaks.LOWER, peaks.UPPER
PAIRS = list(zip(*(side.tolist() for side in BOUNDS), strict=True))
OF_ALL = {MANY: 1, f"jax.vmap({OURS}.minimize)": 1, "optax.lbfgs projected, lax.map": 10}  # the rest do a fortieth


def by_scipy(problem: tuple[np.ndarray, np.ndarray]) -> float:
    x0, data = problem
    return fmin_l_bfgs_b(peaks.misfit_numpy, x0, args=(data,), bounds=PAIRS)[1]


def by_jaxopt(x0, data):
    return jaxopt.LBFGSB(peaks.misfit, maxiter=100, tol=1e-5).run(x0, bounds=BOUNDS, y=data).state.value


def by_optax(x0, data):
    """optax.lbfgs with its iterates projected, until the reduction is SciPy's or 100 iterations are done."""
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(lambda x: peaks.misfit(x, data))

    def step(carry):
        x, state, f, _, k = carry
        new, g = value_and_grad(x, state=state)
        updates, state = solver.update(g, state, x, value=new, grad=g, value_fn=lambda x: peaks.misfit(x, data))
        x = optax.projections.projection_box(optax.apply_updates(x, updates), *BOUNDS)
        small = (f - new) <= 2.2e-9 * jnp.maximum(jnp.maximum(jnp.abs(f), jnp.abs(new)), 1)
        return x, state, new, small & (k > 0), k + 1

    start = x0, solver.init(x0), jnp.inf, jnp.array(False), 0
    x, *_ = jax.lax.while_loop(lambda carry: ~carry[3] & (carry[4] < 100), step, start)
    return peaks.misfit(x, data)


def mapped() -> dict[str, Callable]:
    """The candidates that JAX maps over fits."""
    return {
        f"jax.vmap({OURS}.minimize)": jax.vmap(lambda x, y: minimize(peaks.misfit, x, y, bounds=BOUNDS).fun),
        "jaxopt.LBFGSB, vmap": jax.vmap(by_jaxopt),
        "jaxopt.LBFGSB, lax.map": lambda x, y: jax.lax.map(lambda xy: by_jaxopt(*xy), (x, y)),
        "optax.lbfgs projected, vmap": jax.vmap(by_optax),
        "optax.lbfgs projected, lax.map": lambda x, y: jax.lax.map(lambda xy: by_optax(*xy), (x, y)),
    }


def evaluation(x: jax.Array, data: jax.Array) -> float:
    """Seconds of one evaluation of the objective and its gradient, 64 side by side, on one core."""
    gradients = jax.vmap(jax.grad(peaks.misfit))
    repeat = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: x - 1e-12 * gradients(x, data), x))
    return take_turns({"": lambda: repeat(x)}, 5)[""].warm / (100 * len(x))


def million(count: int) -> Iterator[dict]:
    """So many fits of three parameters to twelve points."""

    def decay(p, y):
        return jnp.sum((p[0] * jnp.exp(-p[1] * t) + p[2] - y) ** 2)

    random, t = np.random.default_rng(0), np.linspace(0, 3, 12)
    truth = random.uniform([1, 0.3, -0.5], [3, 2, 0.5], (count, 3))
    data = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:] + 0.05 * random.normal(size=(count, 12))
    box = np.array([0, 0.05, -1.0]), np.array([5, 5, 1.0])
    minimize_many(decay, np.ones((min(count, 10_000), 3)), data[:10_000], bounds=box)
    took, result = seconds(lambda: minimize_many(decay, np.ones((count, 3)), data, bounds=box))
    converged = float(jnp.mean(result.converged))
    yield {"work": "fits, n = 3", "case": count, "rate": count / took, "converged": converged}


def measure(quick: bool = False) -> Iterator[dict]:
    count, rounds = (40, 1) if quick else (COUNT, 5)
    x0, data = peaks.draw(count)
    best = np.array([*map(by_scipy, zip(x0, data, strict=True))])
    x, y = jnp.asarray(x0), jnp.asarray(data)
    cores, some = len(os.sched_getaffinity(0)), count // 10
    few = list(zip(x0[:some], data[:some], strict=True))
    numbers = {"SciPy, a loop": some, f"SciPy, {cores} processes": some}
    calls: dict[str, Callable] = {MANY: lambda: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS).fun}
    with get_context("spawn").Pool(cores) as pool:
        calls["SciPy, a loop"] = lambda: [*map(by_scipy, few)]
        calls[f"SciPy, {cores} processes"] = lambda: pool.map(by_scipy, few, chunksize=50)
        for name, call in mapped().items():
            number = numbers[name] = count // OF_ALL.get(name, 40)
            calls[name] = lambda call=jax.jit(call), number=number: call(x[:number], y[:number])
        for name, times in take_turns(calls, rounds).items():
            number = numbers.get(name, count)
            there = float(np.mean(np.array(times.result) <= best[:number] * (1 + 1e-6)))
            row = {"work": WORK, "case": "", "candidate": OURS if name == MANY else name}
            yield row | {"seconds": times.warm / number, "there": there}
    spent = float(jnp.mean(minimize_many(peaks.misfit, x0, data, bounds=BOUNDS).evaluations))
    yield {"work": "objective", "evaluations": spent, "seconds": evaluation(x[:64], y[:64]) * spent / cores}
    yield from million(100 if quick else 1_000_000)


def tables(rows: list[dict]) -> dict[str, str]:
    fits = sorted((row for row in rows if row["work"] == WORK), key=lambda row: row["seconds"])
    mine = next(row["seconds"] for row in fits if row["candidate"] == OURS)
    lines = [
        [
            MANY if row["candidate"] == OURS else row["candidate"],
            1 / row["seconds"],
            faster(row["seconds"] / mine),
            f"{row['there']:.1%}",
        ]
        for row in fits
    ]
    head = ["", "fits a second", "its time / minimize_many's", "at SciPy's f"]
    (objective,) = (row for row in rows if row["work"] == "objective")
    (most,) = (row for row in rows if row["work"] == "fits, n = 3")
    share = objective["seconds"] / mine
    facts = (
        f"{objective['evaluations']:.1f} evaluations a fit; {share:.0%} of minimize_many's time is the objective's. "
        f"{most['case']:,} fits of three parameters: {most['rate']:,.0f} a second, {most['converged']:.2%} converged."
    )
    return {"batched": table(head, lines) + "\n\n" + facts}


def goals(rows: list[dict]) -> Iterator[Goal]:
    took = {row["candidate"]: row["seconds"] for row in rows if row["work"] == WORK}
    mine, loop = took.pop(OURS), took["SciPy, a loop"]
    peer = min(value for name, value in took.items() if OURS not in name)
    yield Goal(f"{WORK}, to SciPy's NumPy loop", "≥ 20", f"{loop / mine:.3g}", loop / mine >= 20)
    yield Goal(f"{WORK}, to the fastest peer", "≥ 2", f"{peer / mine:.3g}", peer / mine >= 2)
