"""The reverse derivative of a solution: what it costs, and what it is worth where the problem is ill-conditioned.

Run `python benchmarks/derivative.py`. Candidates take turns in one process; times are medians less that of the solve,
and only their ratios mean anything on a shared machine. The unit of cost is n products with the Hessian in one vmap and
one Cholesky factorization.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import jaxopt  # noqa: E402
import numpy as np  # noqa: E402

from jaxlbfgsb import minimize  # noqa: E402

N, CALLS = 1000, 9
A = jnp.asarray(np.random.default_rng(0).standard_normal((N, N)) / np.sqrt(N))


def banded(x, c):
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2) + jnp.sum((x - c) ** 4) + jnp.sum((x - c) ** 2)


def dense(x, c):
    return jnp.sum(jnp.log(jnp.cosh(A @ x - c))) + jnp.sum(x**2) / 20


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def cost(fun: Callable) -> None:
    c = jnp.asarray(np.random.default_rng(1).standard_normal(N))
    start = minimize(fun, jnp.zeros(N), c, bounds=(-1.0, 1.0)).x  # the solve takes one evaluation: what is left is ours

    def ours(c: Any) -> Any:
        return minimize(fun, start, c, bounds=(-1.0, 1.0)).x

    def peer(c: Any) -> Any:
        box = jnp.full(N, -1.0), jnp.full(N, 1.0)
        return jaxopt.LBFGSB(fun, maxiter=500, tol=1e-5).run(start, box, c).params

    def unit(c: Any) -> Any:
        product = lambda v: jax.jvp(jax.grad(lambda x: fun(x, c)), (start,), (v,))[1]  # noqa: E731
        return jnp.linalg.cholesky(jax.vmap(product)(jnp.eye(N)))

    programs = {name: jax.jit(f) for name, f in (("unit", unit), ("solve", ours), ("jaxopt's solve", peer))}
    programs["derivative"] = jax.jit(jax.grad(lambda c: jnp.sum(jnp.sin(ours(c)))))
    programs["jaxopt's derivative"] = jax.jit(jax.grad(lambda c: jnp.sum(jnp.sin(peer(c)))))
    compiled, compile_times = {}, {}
    for name, program in programs.items():
        begun = time.perf_counter()
        compiled[name] = program.lower(c).compile()
        compile_times[name] = time.perf_counter() - begun
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(CALLS):
        for name, call in compiled.items():
            times[name].append(seconds(lambda call=call: call(c)))
    took = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"\n{fun.__name__}, n = {N}; times in units of n products and one Cholesky")
    for name, less in (("derivative", "solve"), ("jaxopt's derivative", "jaxopt's solve")):
        print(f"  {name:20s} {(took[name] - took[less]) / took['unit']:8.2f}")
    print(f"  compile time, times that of the solve    {compile_times['derivative'] / compile_times['solve']:8.2f}")


def accuracy(condition: float) -> None:
    """The relative error of the gradient of Σ x by c, for ½ xᵀQx - cᵀx."""
    n, random = 40, np.random.default_rng(2)
    U = np.linalg.qr(random.standard_normal((n, n)))[0]
    Q = jnp.asarray((U * np.logspace(0, np.log10(condition), n)) @ U.T)
    c = jnp.asarray(random.standard_normal(n))
    exact = np.linalg.solve(Q, np.ones(n))
    best = jnp.asarray(np.linalg.solve(Q, c))

    def fun(x: Any, c: Any) -> Any:
        return x @ Q @ x / 2 - c @ x

    found = {
        method: jax.grad(lambda c, method=method: jnp.sum(minimize(fun, best, c, linear_solver=method).x))(c)
        for method in ("dense", "cg")
    }
    wide = jnp.full(n, -jnp.inf), jnp.full(n, jnp.inf)
    found["jaxopt"] = jax.grad(lambda c: jnp.sum(jaxopt.LBFGSB(fun).run(best, wide, c).params))(c)
    errors = {name: np.linalg.norm(gradient - exact) / np.linalg.norm(exact) for name, gradient in found.items()}
    print(f"  {condition:9.0e}" + "".join(f"{errors[name]:12.1e}" for name in errors))


if __name__ == "__main__":
    for fun in (banded, dense):
        cost(fun)
    print("\nrelative error of the derivative\n  condition       dense          cg      jaxopt")
    for condition in (1e2, 1e4, 1e6, 1e8, 1e10, 1e12):
        accuracy(condition)
