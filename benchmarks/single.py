"""One problem at a time: first call and warm calls, beside SciPy and jaxopt; without bounds, optax and optimistix too.

Run `python benchmarks/single.py`. All candidates take turns in one process; times are medians and only their ratios
mean anything on a shared machine. SciPy's BLAS has one thread: on a busy machine more of them wait for each other, and
SciPy is a hundred times slower. The problem is chained Rosenbrock in a box that is active at the solution.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import jaxopt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import optimistix  # noqa: E402
from scipy.optimize import fmin_l_bfgs_b  # noqa: E402

from jaxlbfgsb import Options, minimize  # noqa: E402

SIZES, FIRST_CALLS, WARM_CALLS = (4, 10, 20, 50, 100), 5, 30


def chained(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def chained_numpy(x: np.ndarray) -> tuple[float, np.ndarray]:
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[1:] += 200 * a
    g[:-1] -= 400 * a * x[:-1] + 2 * b
    return float(100 * a @ a + b @ b), g


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def first_calls(n: int) -> dict[str, float]:
    """Seconds from a function never seen before to its minimum: trace, compile, run."""
    x, lower, upper = problem(n)
    times: dict[str, list[float]] = {"jaxlbfgsb": [], "jaxopt": []}
    for shift in np.arange(FIRST_CALLS) * 1e-3:
        fresh = {
            "jaxlbfgsb": lambda shift=shift: minimize(lambda x: chained(x) + shift, x, bounds=(lower, upper)),
            "jaxopt": lambda shift=shift: jaxopt.LBFGSB(lambda x: chained(x) + shift, maxiter=500).run(
                x, bounds=(lower, upper)
            ),
        }
        for name, call in fresh.items():
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def warm_calls(n: int) -> dict[str, float]:
    """Seconds for a solve when everything is compiled."""
    x, lower, upper = problem(n)
    start, pairs = np.asarray(x), list(zip(lower.tolist(), upper.tolist(), strict=True))
    both = jax.jit(jax.value_and_grad(chained))
    solver = jaxopt.LBFGSB(chained, maxiter=500, tol=1e-5)
    peer = jax.jit(lambda x: solver.run(x, bounds=(lower, upper)))
    ours = jax.jit(lambda x: minimize(chained, x, bounds=(lower, upper)))
    candidates = {
        "jaxlbfgsb": lambda: ours(x),
        "SciPy, NumPy gradient": lambda: fmin_l_bfgs_b(chained_numpy, start, bounds=pairs),
        "SciPy, jitted gradient": lambda: fmin_l_bfgs_b(lambda x: tuple(map(np.asarray, both(x))), start, bounds=pairs),
        "jaxopt": lambda: peer(x),
    }
    return medians(candidates)


def by_optax(fun: Callable, x: jax.Array) -> jax.Array:
    """optax.lbfgs, with its own line search, until the gradient is small."""
    solver, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(fun)

    def one(carry):
        x, state, _, k = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(x, updates), state, jnp.max(jnp.abs(grad)), k + 1

    start = x, solver.init(x), jnp.inf, 0
    return jax.lax.while_loop(lambda carry: (carry[2] > 1e-5) & (carry[3] < 2000), one, start)[0]


def by_optimistix(fun: Callable, x: jax.Array) -> jax.Array:
    """optimistix.LBFGS, whose tests are of the changes of x and f; at 1e-8 its gradients end like the others'."""
    return optimistix.minimise(lambda x, _: fun(x), optimistix.LBFGS(rtol=1e-8, atol=1e-8), x, max_steps=5000).value


def unbounded(fun: Callable) -> dict[str, Callable]:
    """Each solver of fun, without bounds, to a gradient of 1e-5."""
    return {
        "jaxlbfgsb": jax.jit(lambda x: minimize(fun, x, options=Options(ftol=0.0)).x),
        "jaxopt": jax.jit(lambda x: jaxopt.LBFGS(fun, maxiter=2000, tol=1e-5).run(x).params),
        "optax": jax.jit(partial(by_optax, fun)),
        "optimistix": jax.jit(partial(by_optimistix, fun)),
    }


def unbounded_first_calls(n: int) -> dict[str, float]:
    """Seconds from a function never seen before to its minimum, without bounds."""
    times: dict[str, list[float]] = {}
    for shift in np.arange(FIRST_CALLS) * 1e-3:
        for name, solve in unbounded(lambda x, shift=shift: chained(x) + shift).items():
            times.setdefault(name, []).append(seconds(partial(solve, problem(n)[0])))
    return {name: statistics.median(values) for name, values in times.items()}


def unbounded_warm_calls(n: int) -> dict[str, float]:
    """Seconds for a solve without bounds when everything is compiled; SciPy has a NumPy gradient."""
    x, start = problem(n)[0], np.asarray(problem(n)[0])
    candidates: dict[str, Callable] = {name: partial(solve, x) for name, solve in unbounded(chained).items()}
    return medians(candidates | {"SciPy": lambda: fmin_l_bfgs_b(chained_numpy, start, factr=0.0)})


def medians(candidates: dict[str, Callable]) -> dict[str, float]:
    """The median seconds of each candidate's warm calls, all of them taking turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        seconds(call)
    for _ in range(WARM_CALLS):
        for name, call in candidates.items():
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def problem(n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = np.random.default_rng(n).normal(size=n)
    upper = np.where(np.arange(n) % 3 == 0, 0.8, 2.0)
    return jnp.asarray(x), jnp.full(n, -1.5), jnp.asarray(upper)


def table(title: str, measure: Callable[[int], dict[str, float]], unit: float, name: str) -> None:
    print(f"\n{title}\n")
    for row, n in enumerate(SIZES):
        times = measure(n)
        if row == 0:
            print(f"| n | jaxlbfgsb, {name} | " + " | ".join(f"{peer} / jaxlbfgsb" for peer in list(times)[1:]) + " |")
            print("|---" * (len(times) + 1) + "|")
        base, *peers = times.values()
        print(f"| {n} | {base / unit:.2f} | " + " | ".join(f"{peer / base:.1f}" for peer in peers) + " |")


if __name__ == "__main__":
    peers = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxopt", "optax", "optimistix", "scipy"))
    print(f"{peers}, {jax.devices()[0].device_kind}")
    table("First call", first_calls, 1.0, "s")
    table("Warm call", warm_calls, 1e-3, "ms")
    table("First call, without bounds", unbounded_first_calls, 1.0, "s")
    table("Warm call, without bounds", unbounded_warm_calls, 1e-3, "ms")
