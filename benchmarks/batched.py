"""Ten thousand bounded fits of four parameters: minimize_many beside SciPy, jaxopt, optax and vmap.

Run `python benchmarks/batched.py`. The problem is tests/peaks.py's. The candidates take turns in one process; rates are
medians and only their ratios mean anything on a shared machine. `--million` adds a million fits of three parameters.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import jaxopt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from scipy.optimize import fmin_l_bfgs_b  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import peaks  # noqa: E402

from jaxlbfgsb import minimize, minimize_many  # noqa: E402

COUNT, ROUNDS = 10_000, 5
BOUNDS = peaks.LOWER, peaks.UPPER
PAIRS = list(zip(*(side.tolist() for side in BOUNDS), strict=True))


def by_scipy(problem: tuple[np.ndarray, np.ndarray]) -> tuple[float, int]:
    x0, data = problem
    _, f, facts = fmin_l_bfgs_b(peaks.misfit_numpy, x0, args=(data,), bounds=PAIRS)
    return f, facts["funcalls"]


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


def rates(candidates: dict[str, tuple[Callable, int]]) -> dict[str, float]:
    """Fits a second of each candidate, a call and how many fits it does; all of them taking turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round in range(ROUNDS + 1):
        for name, (call, _) in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if round:  # the first compiles
                times[name].append(time.perf_counter() - start)
    return {name: candidates[name][1] / statistics.median(values) for name, values in times.items()}


def million() -> None:
    """A million fits of three parameters to twelve points beside ten thousand of them."""

    def decay(p, y):
        return jnp.sum((p[0] * jnp.exp(-p[1] * t) + p[2] - y) ** 2)

    rng, t = np.random.default_rng(0), np.linspace(0, 3, 12)
    for count in (10_000, 1_000_000):
        truth = rng.uniform([1, 0.3, -0.5], [3, 2, 0.5], (count, 3))
        data = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:] + 0.05 * rng.normal(size=(count, 12))
        x0 = np.ones((count, 3))
        for _ in range(2):
            start = time.perf_counter()
            result = minimize_many(decay, x0, data, bounds=(np.array([0, 0.05, -1.0]), np.array([5, 5, 1.0])))
            rate = count / (time.perf_counter() - start)
        print(f"{count} fits of 3 parameters: {rate:.0f} fits/s, {float(jnp.mean(result.converged)):.2%} converged")


if __name__ == "__main__":
    x0, data = peaks.draw(COUNT)
    some, few = COUNT // 10, COUNT // 40
    cores = len(os.sched_getaffinity(0))
    x, y = jnp.asarray(x0), jnp.asarray(data)
    mapped = {
        "jax.vmap(minimize)": (jax.vmap(lambda x, y: minimize(peaks.misfit, x, y, bounds=BOUNDS).fun), COUNT),
        "jaxopt.LBFGSB, vmap": (jax.vmap(by_jaxopt), few),
        "jaxopt.LBFGSB, lax.map": (lambda x, y: jax.lax.map(lambda xy: by_jaxopt(*xy), (x, y)), few),
        "optax.lbfgs projected, vmap": (jax.vmap(by_optax), few),
        "optax.lbfgs projected, lax.map": (lambda x, y: jax.lax.map(lambda xy: by_optax(*xy), (x, y)), some),
    }
    compiled = {name: (jax.jit(call), count) for name, (call, count) in mapped.items()}
    with get_context("spawn").Pool(cores) as pool:
        candidates: dict[str, tuple[Callable, int]] = {
            "minimize_many": (lambda: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS), COUNT),
            "SciPy, a loop": (
                lambda: [by_scipy(problem) for problem in zip(x0[:some], data[:some], strict=True)],
                some,
            ),
            f"SciPy, {cores} processes": (
                lambda: pool.map(by_scipy, zip(x0[:some], data[:some], strict=True), chunksize=50),
                some,
            ),
        } | {
            name: (lambda call=call, count=count: call(x[:count], y[:count]), count)
            for name, (call, count) in compiled.items()
        }
        found = rates(candidates)
    best = np.array([f for f, _ in map(by_scipy, zip(x0, data, strict=True))])
    result = minimize_many(peaks.misfit, x0, data, bounds=BOUNDS)
    objective = jax.jit(lambda x, y: jax.lax.fori_loop(
        0, 100, lambda _, x: x - 1e-12 * jax.vmap(jax.grad(peaks.misfit))(x, y), x))  # fmt: skip
    start = time.perf_counter()
    jax.block_until_ready(objective(x[:64], y[:64]))
    start = time.perf_counter()
    jax.block_until_ready(objective(x[:64], y[:64]))
    alone = (time.perf_counter() - start) / 6400 * float(jnp.sum(result.evaluations)) / cores

    print("| | fits a second, to SciPy's loop |\n|---|---|")
    for name, rate in sorted(found.items(), key=lambda item: -item[1]):
        print(f"| {name} | {rate / found['SciPy, a loop']:.2f} |")
    print(f"\nSciPy's loop: {found['SciPy, a loop']:.0f} fits/s; minimize_many: {found['minimize_many']:.0f} fits/s")
    print(f"fits at SciPy's f to 1e-6: {np.mean(result.fun <= best * (1 + 1e-6)):.2%}")
    print(f"evaluations a fit: {float(jnp.mean(result.evaluations)):.1f}")
    print(f"share of the time in the objective: {alone * found['minimize_many'] / COUNT:.0%}")
    if "--million" in sys.argv:
        million()
