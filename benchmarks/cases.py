"""Problems of any size, each as a JAX function and as a NumPy user writes it: value and gradient by hand."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from problems import membrane, torsion


class Case(NamedTuple):
    """Minimize fun over the box from x0; `by_hand` is the same function in NumPy, with its gradient."""

    fun: Callable
    by_hand: Callable
    x0: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite([self.lower, self.upper]).any())

    @property
    def pairs(self) -> list[tuple[float, float]] | None:
        """The box in SciPy's form."""
        return list(zip(self.lower.tolist(), self.upper.tolist(), strict=True)) if self.bounded else None

    @property
    def free(self) -> "Case":
        """The problem without its bounds."""
        return self._replace(lower=np.full_like(self.x0, -np.inf), upper=np.full_like(self.x0, np.inf))


def chained(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def chained_by_hand(x):
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[1:] += 200 * a
    g[:-1] -= 400 * a * x[:-1] + 2 * b
    return float(100 * a @ a + b @ b), g


def rosenbrock(n: int) -> Case:
    """Chained Rosenbrock from a random start, in a box that is active at the solution."""
    x = np.clip(np.random.default_rng(n).normal(size=n), -1.5, 0.8)
    upper = np.where(np.arange(n) % 3 == 0, 0.8, 2.0)
    return Case(chained, chained_by_hand, x, np.full(n, -1.5), upper)


def quadratic(n: int) -> Case:
    """½ xᵀQx - bᵀx with condition 1000, in a box that holds half of the variables or so."""
    random = np.random.default_rng(n)
    U = np.linalg.qr(random.normal(size=(n, n)))[0]
    Q, b = (U * np.logspace(0, 3, n)) @ U.T, 10 * random.normal(size=n)

    def by_hand(x):
        Qx = Q @ x
        return float(x @ Qx / 2 - b @ x), Qx - b

    return Case(lambda x: x @ (Q @ x) / 2 - b @ x, by_hand, np.zeros(n), np.full(n, -0.1), np.full(n, 0.1))


def peaks(n: int) -> Case:
    """A fit of (n - 1)/3 peaks and a background to 50 points a peak, with noise."""
    count, random = (n - 1) // 3, np.random.default_rng(n)
    t, at = np.linspace(0, 4 * count, 50 * count), 4 * np.arange(count) + 2
    lower = np.concatenate([np.zeros(count), at - 1.5, np.full(count, 0.2), [-1]])
    upper = np.concatenate([np.full(count, 10), at + 1.5, np.full(count, 2), [0.2]])
    heights, centres, widths = (random.uniform(*ends, count) for ends in ((2, 8), (-0.5, 0.5), (0.4, 1)))
    bumps = np.exp(-((t - (at + centres)[:, None]) ** 2) / (2 * widths[:, None] ** 2))
    y = heights @ bumps + 0.3 + 0.1 * random.normal(size=len(t))

    def fun(p):
        A, mu, s = (part[:, None] for part in jnp.split(p[:-1], 3))
        r = jnp.sum(A * jnp.exp(-((t[None, :] - mu) ** 2) / (2 * s**2)), 0) + p[-1] - y
        return jnp.sum(r * r) / 2

    def by_hand(p):
        A, mu, s = np.split(p[:-1], 3)
        d = t - mu[:, None]
        e = np.exp(-(d**2) / (2 * s[:, None] ** 2))
        r = A @ e + p[-1] - y
        u = A[:, None] * e * d
        parts = e @ r, u @ r / s**2, (u * d) @ r / s**3, [r.sum()]
        return float(r @ r / 2), np.concatenate(parts)

    start = np.concatenate([np.full(count, 5.0), at, np.full(count, 0.7), [0]])
    return Case(fun, by_hand, start, lower, upper)


def elastic_torsion(n: int) -> Case:
    """Elastic-plastic torsion on a square mesh of about n points, all bounds active at the start (MINPACK-2)."""
    size = round(n**0.5)
    bound = torsion(size)
    return Case(membrane(size, 5), partial(membrane_by_hand, size, 5), bound, -bound, bound)


def membrane_by_hand(size, force, x):
    v, g = x.reshape(size, size), np.zeros((size, size))
    inner = slice(1, -1)
    f = -force * np.sum(v[inner, inner]) / (size - 1) ** 2
    g[inner, inner] = -force / (size - 1) ** 2
    for side in ((slice(2, None), inner), (slice(None, -2), inner), (inner, slice(2, None)), (inner, slice(None, -2))):
        d = v[side] - v[inner, inner]
        f += np.sum(d**2) / 4
        g[side] += d / 2
        g[inner, inner] -= d / 2
    return float(f), g.ravel()
