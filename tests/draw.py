"""Random input for the kernels: boxes, memories in every state of their ring, and points on kinked paths."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles

from jaxlbfgsb.box import Box
from jaxlbfgsb.memory import Memory, empty, forget, live, push

push, forget = jax.jit(push), jax.jit(forget)

# How many pairs a memory of m has seen, and how many of them before it was told to forget.
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
WITHOUT_PAIRS = ["empty", "forgotten"]
SMALL = [  # seed, n, m, state, condition number
    (seed, *shape, state, condition)
    for shape in [(1, 1), (4, 12), (60, 5)]
    for seed, (state, condition) in enumerate((state, condition) for state in STATES for condition in (1e2, 1e8))
]
LARGE = [(seed, 500, 8, state, 1e2) for seed, state in enumerate(["empty", "half full", "wrapped thrice", "refilled"])]


class Quadratic(NamedTuple):
    """A point, a gradient, a box and a memory; its pairs, oldest first; θ and the dense B that they stand for."""

    x: np.ndarray
    g: np.ndarray
    box: Box
    memory: Memory
    pairs: list
    theta: float
    B: np.ndarray
    peak: float  # the largest eigenvalue of B and of the matrices it came from: their roundings are in B
    least: float  # the smallest eigenvalue of B

    @property
    def rounding(self):
        """The relative error allowed to what is computed with B: a thousand roundings, amplified by its condition."""
        return 1000 * np.finfo(self.x.dtype).eps * self.peak / self.least


def curved_pairs(rng, n, condition):
    """Pairs s, y = Hs without end; H has this condition number and changes, by half at most, from pair to pair.

    The lengths of s differ, as they do in a run, and s may favour the directions of little curvature, as in a valley.
    """
    v = rng.normal(size=n)

    def reflected(u):
        return u - 2 * v * (v @ u) / (v @ v)

    eigenvalues = condition ** rng.permutation(np.linspace(-0.5, 0.5, n))
    while True:
        s = rng.normal(size=n) * eigenvalues ** -rng.choice([0, 0.5])
        s = s / np.linalg.norm(s) * 10 ** rng.uniform(-2, 0)
        yield reflected(s), reflected(eigenvalues * rng.uniform(0.5, 1.5, n) * s)


def ring(rng, n, m, state, condition=100.0, dtype=np.float64, products=2):
    """A memory in the named state, and the pairs (s, y) that it holds, oldest first."""
    seen, dropped = STATES[state](m)
    memory, pairs, drawn = empty(n, m, np.dtype(dtype), products), [], curved_pairs(rng, n, condition)
    for i in range(seen):
        s, y = (v.astype(dtype) for v in next(drawn))
        memory = push(memory, jnp.asarray(s), jnp.asarray(y))
        pairs.append((s, y))
        if i + 1 == dropped:
            memory = forget(memory, jnp.array(True))
    return memory, pairs[dropped:][-m:]


def littered(memory):
    """The memory with large numbers where it holds no pair."""
    dead = ~live(memory)
    return memory._replace(
        YS=jnp.where(dead[None, :, None], 1e100, memory.YS),
        gram=jax.tree.map(lambda gram: jnp.where(dead[:, None] | dead[None, :], -1e100, gram), memory.gram),
        D=jnp.where(dead, -1e100, memory.D),
    )


def kinked(rng, n, dtype=np.float64):
    """A point, a gradient and a box, with ties, zeros, points on bounds, equal bounds, one bound and none.

    Half of the coordinates lie on a grid of binary fractions, so that their breakpoints tie exactly; never at t = 1,
    where the model of an empty memory has its minimizer. The first coordinate can move.
    """
    tightness = 1.25 * 2.0 ** rng.integers(-8, 2)
    x = rng.integers(-8, 9, n) / 8
    lower, upper = (x + sign * tightness * rng.integers(1, 9, n) / 8 for sign in (-1, 1))
    kind = rng.integers(0, 16, n)
    kind[0] = rng.choice([1, 2, 3, 6])
    lower = np.select([kind == 0, kind == 1, kind == 2], [x, -np.inf, -np.inf], lower)
    upper = np.select([kind == 0, kind == 1, kind == 3], [x, np.inf, np.inf], upper)
    x = np.select([kind == 4, kind == 5], [lower, upper], x)
    g = np.where(rng.random(n) < 0.5, rng.choice([-2, -1, -0.5, 0.5, 1, 2], n), rng.normal(size=n))
    g[1:] = np.where(rng.random(n - 1) < 0.1, 0, g[1:])
    return x.astype(dtype), g.astype(dtype), Box(lower.astype(dtype), upper.astype(dtype))


@cache
def quadratic(seed, n, m, state="wrapped", condition=100.0, dtype=np.float64):
    """A random Quadratic."""
    rng = np.random.default_rng(seed)
    x, g, box = kinked(rng, n, dtype)
    memory, pairs = ring(rng, n, m, state, condition, dtype)
    theta = oracles.newest_theta(pairs)
    Bs = list(oracles.dense_hessians(pairs, theta, n))
    spectra = np.linalg.eigvalsh(Bs)
    return Quadratic(x, g, box, memory, pairs, theta, Bs[-1], spectra.max(), spectra[-1].min())


@cache
def without_box(seed, n, m, state="wrapped", condition=100.0, dtype=np.float64):
    """The memory of that Quadratic as it is kept without bounds."""
    rng = np.random.default_rng(seed)
    kinked(rng, n, dtype)
    return ring(rng, n, m, state, condition, dtype, products=1)[0]


def badly_scaled(scale):
    """A Quadratic whose three steepest variables stop at once, and only the others, `scale` times less steep, go on."""
    q = quadratic(1, 60, 5)
    steep = np.arange(60) < 3
    g = np.where(steep, scale, 1) * np.random.default_rng(0).normal(size=60)
    limit = np.where(steep, 1e-3 / scale, np.inf)
    return q._replace(x=np.zeros(60), g=g, box=Box(-limit, limit))


def step_error(q, point, step):
    """The error allowed to a step from the point by the inverse of B or of a part of it."""
    moved = np.linalg.norm(point - q.x) + np.linalg.norm(step)
    return 1000 * np.finfo(q.x.dtype).eps * (np.linalg.norm(q.g) + q.peak * moved) / q.least
