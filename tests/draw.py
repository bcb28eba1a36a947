"""Random input for the kernels: boxes, memories in every state of their ring, and points on kinked paths."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles

from jaxlbfgsb.box import Box
from jaxlbfgsb.memory import Memory, empty, forget, push

push = jax.jit(push)
forget = jax.jit(forget)

# How many pairs a memory of m has seen, how many of them before it was told to forget, and what it holds then.
STATES = {
    "empty": lambda m: (0, 0),
    "half full": lambda m: ((m + 1) // 2, 0),
    "full": lambda m: (m, 0),
    "wrapped": lambda m: (m + m // 2 + 1, 0),
    "wrapped thrice": lambda m: (3 * m + 1, 0),
    "forgotten": lambda m: (m, m),
    "refilled": lambda m: (2 * m + (m + 1) // 2, 2 * m),
    "refilled and wrapped": lambda m: (m // 2 + 2 * m + 1, m // 2),
}


class Quadratic(NamedTuple):
    """A point in a box, a gradient, a memory, and the dense B that the memory stands for."""

    x: np.ndarray
    g: np.ndarray
    box: Box
    memory: Memory
    B: np.ndarray

    @property
    def theta(self):
        return float(self.memory.theta)


def curved_pair(rng, n, condition=100.0):
    """s and y = Hs of a random positive definite H.

    The lengths of s differ from pair to pair, as they do in a run, and s favours the directions of little curvature
    now and then, as it does in a valley.
    """
    v = rng.normal(size=n)

    def reflected(u):
        return u - 2 * v * (v @ u) / (v @ v)

    eigenvalues = condition ** rng.uniform(-0.5, 0.5, n)
    s = rng.normal(size=n) * eigenvalues ** -rng.choice([0, 0.5, 1])
    s = s / np.linalg.norm(s) * 10 ** rng.uniform(-2, 0)
    return reflected(s), reflected(eigenvalues * s)


def memory(rng, n, m, state="wrapped", condition=100.0, dtype=np.float64):
    """A memory in the named state, and the pairs (s, y) that it holds, oldest first."""
    seen, dropped = STATES[state](m)
    found, pairs = empty(n, m, dtype), []
    for i in range(seen):
        s, y = (v.astype(dtype) for v in curved_pair(rng, n, condition))
        found = push(found, jnp.asarray(s), jnp.asarray(y))
        pairs.append((s, y))
        if i + 1 == dropped:
            found = forget(found, jnp.array(True))
    return found, pairs[dropped:][-m:]


def box_and_gradient(rng, n, dtype=np.float64):
    """A point, its box and a gradient, with ties, zeros, points on bounds, equal bounds, one bound and none.

    Half of the coordinates lie on a grid of binary fractions, so that their breakpoints tie exactly; never at t = 1,
    where the model of an empty memory has its minimizer.
    """
    tightness = 1.25 * 2.0 ** rng.integers(-8, 2)
    x = rng.integers(-8, 9, n) / 8
    lower, upper = (x + sign * tightness * rng.integers(1, 9, n) / 8 for sign in (-1, 1))
    kind = rng.integers(0, 16, n)
    upper = np.select([kind == 0, kind <= 2, kind <= 4], [x, np.inf, upper], upper)
    lower = np.select([kind == 0, kind <= 1, kind == 3], [x, -np.inf, -np.inf], lower)
    x = np.select([(kind == 5), (kind == 6)], [lower, upper], x)
    g = np.where(rng.random(n) < 0.5, rng.choice([-2, -1, -0.5, 0.5, 1, 2], n), rng.normal(size=n))
    g = np.where(rng.random(n) < 0.1, 0, g)
    return x.astype(dtype), Box(lower.astype(dtype), upper.astype(dtype)), g.astype(dtype)


def quadratic(seed, n, m, state="wrapped", condition=100.0, dtype=np.float64):
    """A random Quadratic."""
    rng = np.random.default_rng(seed)
    x, box, g = box_and_gradient(rng, n, dtype)
    found, pairs = memory(rng, n, m, state, condition, dtype)
    return Quadratic(x, g, box, found, oracles.dense_hessian(pairs, oracles.newest_theta(pairs), n))


def tolerance(B, dtype=np.float64):
    """The relative error that a computation with B has to be allowed: a hundred roundings, amplified by cond(B)."""
    return 100 * np.finfo(dtype).eps * np.linalg.cond(B)
