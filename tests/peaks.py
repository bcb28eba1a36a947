"""Peaks with noise, the batched problem of tests and benchmarks: A exp(-(t-μ)²/(2s²)) + c at 50 points, in a box."""

import jax.numpy as jnp
import numpy as np

T = np.linspace(-5, 5, 50)
LOWER, UPPER = np.array([0.0, -5.0, 0.1, -2.0]), np.array([10.0, 5.0, 3.0, 2.0])
NOISE = 0.1


def draw(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Starts and data, each with its own truth, noise and start."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform([1, -3, 0.4, -1], [9, 3, 2, 1], (count, 4))
    A, mu, s, c = truth.T[:, :, None]
    data = A * np.exp(-((T - mu) ** 2) / (2 * s**2)) + c + NOISE * rng.normal(size=(count, len(T)))
    return np.clip(truth + rng.normal(size=(count, 4)) * [1, 0.5, 0.3, 0.3], LOWER, UPPER), data


def misfit(p, y):
    """Half χ²."""
    r = (p[0] * jnp.exp(-((T - p[1]) ** 2) / (2 * p[2] ** 2)) + p[3] - y) / NOISE
    return 0.5 * jnp.sum(r * r)


def misfit_numpy(p: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The same with its gradient, as a NumPy user writes it."""
    A, mu, s, c = p
    d = T - mu
    e = np.exp(-(d**2) / (2 * s**2))
    r = (A * e + c - y) / NOISE
    u = r * e * A / NOISE
    return 0.5 * r @ r, np.array([r @ e / NOISE, u @ d / s**2, u @ d**2 / s**3, r.sum() / NOISE])
