"""Test problems from the literature, with bounds and without: one list for tests, benchmarks and notebooks.

Every `fun` is pure JAX and computes in the type of its argument. "MGH 3, box: Gay" is Moré, Garbow and Hillstrom's
function number 3 in Gay's box; "own" marks what is not from the literature. Random data come from NumPy's RandomState,
whose stream is frozen, so that `best` holds everywhere.

    BCGT     Bongartz, Conn, Gould, Toint, CUTE, ACM TOMS 21 (1995), problems by the name of their SIF file
    COPS     Dolan, Moré, Munson, Benchmarking Optimization Software with COPS 3.0, ANL/MCS-TM-273 (2004)
    DT       Dembo, Tulowitzki, On the Minimization of Quadratic Functions Subject to Box Constraints, Yale (1983)
    DS       Dixon, Szegö, Towards Global Optimisation 2, North-Holland (1978)
    Gay      Gay, A Trust-Region Approach to Linearly Constrained Optimization, LNM 1066, Springer (1984)
    HJL      Hansen, Jaumard, Lu, Global Optimization of Univariate Lipschitz Functions II, Math. Prog. 55 (1992)
    HS       Hock, Schittkowski, Test Examples for Nonlinear Programming Codes, LNEMS 187, Springer (1981)
    MGH      Moré, Garbow, Hillstrom, Testing Unconstrained Optimization Software, ACM TOMS 7 (1981)
    MINPACK2 Averick, Carter, Moré, Xue, The MINPACK-2 Test Problem Collection, ANL/MCS-P153-0692 (1992)
    MT89     Moré, Toraldo, Algorithms for Bound Constrained Quadratic Programming Problems, Numer. Math. 55 (1989)
    MT91     Moré, Toraldo, On the Solution of Large QP Problems with Bound Constraints, SIAM J. Optim. 1 (1991)
    NIST     Statistical Reference Datasets, Nonlinear Regression, National Institute of Standards (1999)
    RS       Ritz, Streibig, Bioassay Analysis Using R, J. Stat. Software 12 (2005)
    ST       Styblinski, Tang, Experiments in Nonconvex Optimization, Neural Networks 3 (1990)
    SWM      Street, Wolberg, Mangasarian, Nuclear Feature Extraction for Breast Tumor Diagnosis, SPIE 1905 (1993)
    Toint    Toint, Some Numerical Results Using a Sparse Matrix Updating Formula, Math. Comp. 32 (1978)
    ZBLN     Zhu, Byrd, Lu, Nocedal, Algorithm 778: L-BFGS-B, ACM TOMS 23 (1997)
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

INF = np.inf


class Problem(NamedTuple):
    """Minimize fun(x) over lower ≤ x ≤ upper, from x0, which may lie outside."""

    name: str
    fun: Callable
    x0: np.ndarray
    lower: np.ndarray  # -inf where there is none
    upper: np.ndarray
    source: str
    best: float | None = None  # least value known of fun in the box; a local solver may rightly end above it

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """The box in SciPy's form."""
        pairs = zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        return [(None if lo == -INF else lo, None if hi == INF else hi) for lo, hi in pairs]


PROBLEMS: list[Problem] = []


# Builders


def problem(name, x0, source, best=None, lower=-INF, upper=INF):
    """Adds the decorated function to the list; bounds are repeated to the length of x0."""

    def add(fun):
        start = np.array(x0, float)
        box = (np.array(np.broadcast_to(bound, start.shape), float) for bound in (lower, upper))
        PROBLEMS.append(Problem(name, fun, start, *box, source, None if best is None else float(best)))
        return fun

    return add


def squares(residuals):
    """x -> Σ rᵢ(x)², of residuals given as one array or as a tuple of arrays and scalars."""
    return lambda x: sum(jnp.sum(r**2) for r in jax.tree.leaves(residuals(x)))


def fit(t, y, unit=1.0):
    """Turns a model(t, *b) into x -> Σ (model(t, *b) - y)² with the parameters b in the given units."""

    def fitted(model):
        return lambda x: jnp.sum((model(like(t, x), *(x * like(unit, x))) - like(y, x)) ** 2)

    return fitted


def like(constant, x):
    """A constant in the type of x."""
    return jnp.asarray(constant, x.dtype)


def times(A, x):
    """A x with all the digits of the type: a GPU would round float32 to ten bits."""
    return jnp.matmul(like(A, x), x, precision="highest")


def count(n, start=1):
    """start, start + 1, ..., n numbers."""
    return np.arange(start, start + n, dtype=float)


def numbers(text):
    """The numbers of a text."""
    return np.array(text.split(), float)


def alternating(a, b, n):
    """a, b, a, b, ..., n of them."""
    return np.resize([a, b], n)


def rotated(spectrum, random):
    """A symmetric matrix with the given eigenvalues: three random reflections, as MT89 has it."""
    A = np.diag(spectrum)
    for v in random.uniform(-1, 1, (3, len(spectrum))):
        H = np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v)
        A = H @ A @ H
    return (A + A.T) / 2


# Hock and Schittkowski; Moré, Garbow and Hillstrom: two to four variables


@problem("rosenbrock", [-1.2, 1], "MGH 1", 0.0)
@problem("hs1", [-2, 1], "HS 1", 0.0, lower=[-INF, -1.5])
@problem("hs2", [-2, 1], "HS 2", 0.05042618789361, lower=[-INF, 1.5])
@squares
def chained_rosenbrock(x):
    return 10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]


for n, best in (10, 5.022230502551), (50, 44.61810539195), (200, 193.1026365062):
    problem(
        f"chained_rosenbrock_{n}",
        alternating(-1.2, 1, n),
        "Toint, box: own",
        best,
        lower=-2,
        upper=np.resize([INF, 0.8, 1.5], n),
    )(chained_rosenbrock)


@problem("hs3", [10, 1], "HS 3", 0.0, lower=[-INF, 0])
def hs3(x):
    return x[1] + 1e-5 * (x[1] - x[0]) ** 2


@problem("hs4", [1.125, 0.125], "HS 4", 8 / 3, lower=[1, 0])
def hs4(x):
    return (x[0] + 1) ** 3 / 3 + x[1]


@problem("mccormick", np.zeros(50), "BCGT MCCORMCK, n = 50", -46.12692564420, lower=-1.5, upper=3)
@problem("hs5", [0, 0], "HS 5", -np.sqrt(3) / 2 - np.pi / 3, lower=[-1.5, -3], upper=[4, 3])
def mccormick(x):
    a, b = x[:-1], x[1:]
    return jnp.sum(jnp.sin(a + b) + (a - b) ** 2 - 1.5 * a + 2.5 * b + 1)


def gulf(y, x1, x2, x3):
    return jnp.exp(-(jnp.abs(y - x2) ** x3) / x1)


def gulf_data(m):
    t = 0.01 * count(m)
    return 25 + (-50 * np.log(t)) ** (2 / 3), t


problem("gulf", [5, 2.5, 0.15], "MGH 11, m = 99", 0.0)(fit(*gulf_data(99))(gulf))
problem("gulf_boxed", [5, 2.5, 0.15], "MGH 11, m = 3, box: Gay", 5.828143116789e-5, lower=[1e-16, 0, 0], upper=10)(
    fit(*gulf_data(3))(gulf)
)
problem("hs25", [100, 12.5, 3], "HS 25", 0.0, lower=[0.1, 0, 0], upper=[100, 25.6, 5])(fit(*gulf_data(99))(gulf))


@problem("wood", [-3, -1, -3, -1], "MGH 14", 0.0)
@problem("wood_boxed", [-3, -1, -3, -1], "MGH 14, box: Gay", 1.556700800439, lower=-100, upper=[0, 10, 100, 100])
@problem("hs38", [-3, -1, -3, -1], "HS 38", 0.0, lower=-10, upper=10)
@squares
def wood(x):
    a, b, c, d = x
    return 10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c, 10**0.5 * (b + d - 2), 10**-0.5 * (b - d)


@problem("hs45", np.full(5, 2), "HS 45", 1.0, lower=0, upper=count(5))
def hs45(x):
    return 2 - jnp.prod(x) / 120


@problem("hs110", np.full(10, 9), "HS 110", -45.77846970745, lower=2.001, upper=9.999)
def hs110(x):
    return jnp.sum(jnp.log(x - 2) ** 2 + jnp.log(10 - x) ** 2) - jnp.prod(x) ** 0.2


HS105 = (
    numbers("""95 1 105 1 110 4 115 4 120 15 125 15 130 15 135 13 140 21 145 12 150 17 155 4 160 20 165 8 170 17
    175 8 180 6 185 6 190 7 195 4 200 3 205 3 210 8 215 1 220 6 230 5 235 1 240 7 245 1 250 2""")
    .reshape(-1, 2)
    .T
)


@problem(
    "maxlika",
    [0.1, 0.2, 100, 125, 175, 11.2, 13.2, 15.8],
    "HS 105 without its constraint, BCGT MAXLIKA",
    1136.307303574,
    lower=[0.001, 0.001, 100, 130, 170, 5, 5, 5],
    upper=[0.499, 0.499, 180, 210, 240, 25, 25, 25],
)
def maxlika(x):
    y, repeats = like(HS105, x)
    weight = jnp.stack([x[0], x[1], 1 - x[0] - x[1]])
    log_parts = jnp.log(weight / x[5:])[:, None] - ((y[None, :] - x[2:5, None]) / x[5:, None]) ** 2 / 2
    return -jnp.sum(repeats * (jax.nn.logsumexp(log_parts, 0) - 0.5 * float(np.log(2 * np.pi))))


@problem("freudenstein_roth", [0.5, -2], "MGH 2", 0.0)
@squares
def freudenstein_roth(x):
    a, b = x
    return -13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b


@problem("powell_badly_scaled", [0, 1], "MGH 3", 0.0)
@problem("powell_badly_scaled_boxed", [0, 1], "MGH 3, box: Gay", 1.5125936724e-10, lower=[0, 1], upper=[1, 9])
@squares
def powell_badly_scaled(x):
    return 1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001


@problem("brown_badly_scaled", [1, 1], "MGH 4", 0.0)
@problem("brown_badly_scaled_boxed", [1, 1], "MGH 4, box: Gay", 783.9999992952, lower=[0, 3e-5], upper=[1e6, 100])
@squares
def brown_badly_scaled(x):
    return x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2


@problem("beale", [1, 1], "MGH 5, box: Gay", 0.0, lower=[0.6, 0.5], upper=[10, 100])
@squares
def beale(x):
    a, b = x
    return 1.5 - a * (1 - b), 2.25 - a * (1 - b**2), 2.625 - a * (1 - b**3)


@problem("jennrich_sampson", [0.3, 0.4], "MGH 6", 124.3621823556)
@fit(count(10), 2 + 2 * count(10))
def jennrich_sampson(t, a, b):
    return jnp.exp(t * a) + jnp.exp(t * b)


@problem("helical_valley", [-1, 0, 0], "MGH 7", 0.0)
@problem(
    "helical_valley_boxed", [-1, 0, 0], "MGH 7, box: Gay", 0.9904221209614, lower=[-100, -1, -1], upper=[0.8, 1, 1]
)
@squares
def helical_valley(x):
    a, b, c = x
    turns = 0.25 + jnp.arctan2(-a, b) / (2 * jnp.pi)  # the literature's angle, whose cut is at x₁ = 0, x₂ < 0
    return 10 * (c - 10 * turns), 10 * (jnp.sqrt(a**2 + b**2) - 1), c


BARD = numbers("0.14 0.18 0.22 0.25 0.29 0.32 0.35 0.39 0.37 0.58 0.73 0.96 1.34 2.10 4.39")


@problem("bard", [1, 1, 1], "MGH 8", 8.214877306579e-3)
@fit(np.stack([count(15), 16 - count(15), np.minimum(count(15), 16 - count(15))]), BARD)
def bard(t, x1, x2, x3):
    u, v, w = t
    return x1 + u / (v * x2 + w * x3)


GAUSSIAN = numbers("0.0009 0.0044 0.0175 0.0540 0.1295 0.2420 0.3521 0.3989")


@problem("gaussian", [0.4, 1, 0], "MGH 9, box: Gay", 1.127932769619e-8, lower=[0.398, 1, -0.5], upper=[4.2, 2, 0.1])
@fit((8 - count(15)) / 2, np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]]))
def gaussian(t, x1, x2, x3):
    return x1 * jnp.exp(-x2 * (t - x3) ** 2 / 2)


@problem("box_3d", [0, 10, 20], "MGH 12, m = 3, box: Gay", 3.099815343229e-6, lower=[0, 5, 0], upper=[2, 9.5, 20])
@fit(0.1 * count(3), 0.0)
def box_3d(t, x1, x2, x3):
    return jnp.exp(-t * x1) - jnp.exp(-t * x2) - x3 * (jnp.exp(-t) - jnp.exp(-10 * t))


@problem("powell_singular", [3, -1, 0, 1], "MGH 13", 0.0)
@problem("extended_powell_singular", np.resize([3, -1, 0, 1], 40), "MGH 22, n = 40", 0.0)
@squares
def powell_singular(x):
    a, b, c, d = x.reshape(-1, 4).T
    return a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2


@problem("brown_dennis", [25, 5, -5, -1], "MGH 16, m = 20", 85822.20162636)
@problem(
    "brown_dennis_boxed",
    [25, 5, -5, -1],
    "MGH 16, m = 20, box: Gay",
    88860.47976750,
    lower=[-10, 0, -100, -20],
    upper=[100, 15, 0, 0.2],
)
@fit(count(20) / 5, 0.0)
def brown_dennis(t, x1, x2, x3, x4):
    return (x1 + t * x2 - jnp.exp(t)) ** 2 + (x3 + x4 * jnp.sin(t) - jnp.cos(t)) ** 2


BIGGS = 0.1 * count(13)


@problem("biggs_exp6", [1, 2, 1, 1, 1, 1], "MGH 18, m = 13", 0.0)
@problem(
    "biggs_exp6_boxed",
    [1, 2, 1, 1, 1, 1],
    "MGH 18, m = 13, box: Gay",
    5.320986590782e-4,
    lower=[0, 0, 0, 1, 0, 0],
    upper=[2, 8, 1, 7, 5, 5],
)
@fit(BIGGS, np.exp(-BIGGS) - 5 * np.exp(-10 * BIGGS) + 3 * np.exp(-4 * BIGGS))
def biggs_exp6(t, x1, x2, x3, x4, x5, x6):
    return x3 * jnp.exp(-t * x1) - x4 * jnp.exp(-t * x2) + x6 * jnp.exp(-t * x5)


OSBORNE2 = numbers("""1.366 1.191 1.112 1.013 0.991 0.885 0.831 0.847 0.786 0.725 0.746 0.679 0.608 0.655 0.616 0.606
    0.602 0.626 0.651 0.724 0.649 0.649 0.694 0.644 0.624 0.661 0.612 0.558 0.533 0.495 0.500 0.423 0.395 0.375 0.372
    0.391 0.396 0.405 0.428 0.429 0.523 0.562 0.607 0.653 0.672 0.708 0.633 0.668 0.645 0.632 0.591 0.559 0.597 0.625
    0.739 0.710 0.729 0.720 0.636 0.581 0.428 0.292 0.162 0.098 0.054""")


@problem("osborne_2", [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], "MGH 19", 4.013773629355e-2)
@fit(0.1 * count(65, 0), OSBORNE2)
def osborne_2(t, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11):
    bumps = sum(h * jnp.exp(-w * (t - p) ** 2) for h, w, p in ((x2, x6, x9), (x3, x7, x10), (x4, x8, x11)))
    return x1 * jnp.exp(-x5 * t) + bumps


# Moré, Garbow and Hillstrom: any number of variables


@problem("watson", np.zeros(6), "MGH 20, n = 6", 2.287670053552e-3)
@squares
def watson(x):
    power = np.arange(6)
    t = count(29)[:, None] / 29
    slope, value = power * t ** np.maximum(power - 1, 0), t**power
    return times(slope, x) - times(value, x) ** 2 - 1, x[0], x[1] - x[0] ** 2 - 1


@problem("extended_rosenbrock", alternating(-1.2, 1, 30), "MGH 21, n = 30", 0.0)
@squares
def extended_rosenbrock(x):
    return 10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]


@problem("penalty_1", count(10), "MGH 23, n = 10", 7.087651467090e-5)
@squares
def penalty_1(x):
    return 1e-5**0.5 * (x - 1), jnp.sum(x**2) - 0.25


@problem("penalty_2", np.full(10, 0.5), "MGH 24, n = 10", 2.936605374567e-4)
@squares
def penalty_2(x):
    n, small = len(x), 1e-5**0.5
    e, y = jnp.exp(x / 10), np.exp(count(n) / 10)
    return (
        x[0] - 0.2,
        small * (e[1:] + e[:-1] - like(y[1:] + y[:-1], x)),
        small * (e[1:] - float(np.exp(-0.1))),
        jnp.sum(like(count(n)[::-1], x) * x**2) - 1,
    )


@problem("variably_dimensioned", 1 - count(20) / 20, "MGH 25, n = 20", 0.0)
@squares
def variably_dimensioned(x):
    total = jnp.sum(like(count(len(x)), x) * (x - 1))
    return x - 1, total, total**2


@problem("trigonometric", np.full(10, 0.1), "MGH 26, n = 10", 0.0)
@squares
def trigonometric(x):
    n = len(x)
    return n - jnp.sum(jnp.cos(x)) + like(count(n), x) * (1 - jnp.cos(x)) - jnp.sin(x)


@problem("brown_almost_linear", np.full(10, 0.5), "MGH 27, n = 10", 0.0)
@squares
def brown_almost_linear(x):
    return x[:-1] + jnp.sum(x) - (len(x) + 1), jnp.prod(x) - 1


GRID = count(30) / 31


@problem("discrete_boundary_value", GRID * (GRID - 1), "MGH 28, n = 30", 0.0)
@squares
def discrete_boundary_value(x):
    n, sides = len(x), jnp.pad(x, 1)
    return 2 * x - sides[:-2] - sides[2:] + (x + like(count(n) / (n + 1), x) + 1) ** 3 / (2 * (n + 1) ** 2)


@problem("discrete_integral", GRID * (GRID - 1), "MGH 29, n = 30", 0.0)
@squares
def discrete_integral(x):
    n = len(x)
    t = count(n) / (n + 1)
    kernel = np.minimum(t[:, None], t[None, :]) * (1 - np.maximum(t[:, None], t[None, :]))
    return x + times(kernel, (x + like(t, x) + 1) ** 3) / (2 * (n + 1))


@problem("broyden_tridiagonal", np.full(50, -1), "MGH 30, n = 50", 0.0)
@squares
def broyden_tridiagonal(x):
    sides = jnp.pad(x, 1)
    return (3 - 2 * x) * x - sides[:-2] - 2 * sides[2:] + 1


@problem("broyden_banded", np.full(50, -1), "MGH 31, n = 50", 0.0)
@squares
def broyden_banded(x):
    ones = np.ones((len(x), len(x)))
    band = np.triu(np.tril(ones, 1), -5) - np.eye(len(x))
    return x * (2 + 5 * x**2) + 1 - times(band, x * (1 + x))


@problem("linear_full_rank", np.ones(20), "MGH 32, n = 20, m = 40", 20.0)
@squares
def linear_full_rank(x):
    shift = jnp.mean(x) + 1  # (2/m) Σ x + 1
    return x - shift, jnp.zeros_like(x) - shift


@problem("chebyquad", count(8) / 9, "MGH 35, n = m = 8, box: BCGT CHEBYQAD", 3.516873725678e-3, lower=0, upper=1)
@squares
def chebyquad(x):
    n, z = len(x), 2 * x - 1
    T = [jnp.ones_like(z), z]
    for _ in range(2, n + 1):
        T.append(2 * z * T[-1] - T[-2])
    mean = [0 if i % 2 else -1 / (i**2 - 1) for i in range(1, n + 1)]
    return jnp.mean(jnp.stack(T[1:]), 1) - like(mean, x)


# Fits to measured data. MGH10, MGH09 and MGH17 are the names that NIST gives to MGH 10, 15 and 17.

MEYER = numbers("34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872")
KOWALIK = numbers("""4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625
    0.1957 0.1947 0.1735 0.1600 0.0844 0.0627 0.0456 0.0342 0.0323 0.0235 0.0246""").reshape(2, -1)
OSBORNE1 = numbers("""0.844 0.908 0.932 0.936 0.925 0.908 0.881 0.850 0.818 0.784 0.751 0.718 0.685 0.658 0.628 0.603
    0.580 0.558 0.538 0.522 0.506 0.490 0.478 0.467 0.457 0.448 0.438 0.431 0.424 0.420 0.414 0.411 0.406""")
MISRA1A = numbers("""77.6 114.9 141.1 190.8 239.9 289.0 332.8 378.4 434.8 477.3 536.8 593.1 689.1 760.0
    10.07 14.73 17.94 23.93 29.61 35.18 40.02 44.82 50.76 55.05 61.01 66.40 75.47 81.78""").reshape(2, -1)
BOXBOD = numbers("1 2 3 5 7 10 109 149 149 191 213 224").reshape(2, -1)
CHWIRUT2 = (
    numbers("""0.5 92.9 1 57.1 1.75 31.05 3.75 11.5875 5.75 8.025 0.875 63.6 2.25 21.4 3.25 14.25 5.25 8.475
    0.75 63.8 1.75 26.8 2.75 16.4625 4.75 7.125 0.625 67.3 1.25 41 2.25 21.15 4.25 8.175 0.5 81.5 3 13.12 0.75 59.9
    3 14.62 1.5 32.9 6 5.44 3 12.56 6 5.44 1.5 32 3 13.95 0.5 75.8 2 20 4 10.42 0.75 59.5 2 21.67 5 8.55 0.75 62
    2.25 20.2 3.75 7.76 5.75 3.75 3 11.81 0.75 54.7 2.5 23.7 4 11.55 0.75 61.3 2.5 17.7 4 8.74 0.75 59.2 2.5 16.3
    4 8.62 0.5 81 6 4.87 3 14.62 0.5 81.7 2.75 17.17 0.5 81.3 1.75 28.9""")
    .reshape(-1, 2)
    .T
)
THURBER = (
    numbers("""-3.067 80.574 -2.981 84.248 -2.921 87.264 -2.912 87.195 -2.840 89.076 -2.797 89.608 -2.702 89.868
    -2.699 90.101 -2.633 92.405 -2.481 95.854 -2.363 100.696 -2.322 101.060 -1.501 401.672 -1.460 390.724
    -1.274 567.534 -1.212 635.316 -1.100 733.054 -1.046 759.087 -0.915 894.206 -0.714 990.785 -0.566 1090.109
    -0.545 1080.914 -0.400 1122.643 -0.309 1178.351 -0.109 1260.531 -0.103 1273.514 0.010 1288.339 0.119 1327.543
    0.377 1353.863 0.790 1414.509 0.963 1425.208 1.006 1421.384 1.115 1442.962 1.572 1464.350 1.841 1468.705
    2.047 1447.894 2.200 1457.628""")
    .reshape(-1, 2)
    .T
)
LANCZOS = 0.05 * count(24, 0)


def nist(name, data, start, best, lower, upper):
    """Adds a model as a fit in units of the start that NIST gives."""

    def add(model):
        problem(f"nist_{name.lower()}", np.ones(len(start)), f"NIST {name}, box: own", best, lower, upper)(
            fit(*data, start)(model)
        )
        return model

    return add


MEYER_DATA, OSBORNE1_DATA = (45 + 5 * count(16), MEYER), (10 * count(33, 0), OSBORNE1)


@nist("MGH10", MEYER_DATA, [0.02, 4000, 250], 87.945855171, lower=0.1, upper=[10, 2, 2])
def meyer(t, x1, x2, x3):
    return x1 * jnp.exp(x2 / (t + x3))


@nist("MGH09", KOWALIK, [0.25, 0.39, 0.415, 0.39], 3.0750560385e-4, lower=0, upper=10)
def kowalik_osborne(u, x1, x2, x3, x4):
    return x1 * (u**2 + u * x2) / (u**2 + u * x3 + x4)


@nist("MGH17", OSBORNE1_DATA, [0.5, 1.5, -1, 0.01, 0.02], 5.4648946975e-5, lower=0, upper=5)
def osborne_1(t, x1, x2, x3, x4, x5):
    return x1 + x2 * jnp.exp(-t * x4) + x3 * jnp.exp(-t * x5)


problem("meyer", [0.02, 4000, 250], "MGH 10", 87.945855171)(fit(*MEYER_DATA)(meyer))
problem("kowalik_osborne", [0.25, 0.39, 0.415, 0.39], "MGH 15", 3.0750560385e-4)(fit(*KOWALIK)(kowalik_osborne))
problem("osborne_1", [0.5, 1.5, -1, 0.01, 0.02], "MGH 17", 5.4648946975e-5)(fit(*OSBORNE1_DATA)(osborne_1))


@nist("Misra1a", MISRA1A, [500, 1e-4], 0.12455138894, lower=0, upper=[1, 10])
@nist("BoxBOD", BOXBOD, [100, 0.75], 1168.0088766, lower=0.1, upper=10)
def saturation(t, b1, b2):
    return b1 * (1 - jnp.exp(-b2 * t))


@nist("Chwirut2", CHWIRUT2, [0.1, 0.01, 0.02], 513.04802941, lower=0, upper=[INF, INF, 10])
def chwirut(t, b1, b2, b3):
    return jnp.exp(-b1 * t) / (b2 + b3 * t)


@nist("Thurber", THURBER, [1000, 1000, 400, 40, 0.7, 0.3, 0.03], 5642.7082397, lower=0.5, upper=[INF] * 4 + [3] * 3)
def thurber(t, b1, b2, b3, b4, b5, b6, b7):
    return (b1 + t * (b2 + t * (b3 + t * b4))) / (1 + t * (b5 + t * (b6 + t * b7)))


@nist(
    "Lanczos3",
    (LANCZOS, np.round(0.0951 * np.exp(-LANCZOS) + 0.8607 * np.exp(-3 * LANCZOS) + 1.5576 * np.exp(-5 * LANCZOS), 4)),
    [0.5, 0.7, 3.6, 4.2, 4, 6.3],
    1.6117193594e-8,
    lower=0,
    upper=3,
)
def three_exponentials(t, b1, b2, b3, b4, b5, b6):
    return sum(b * jnp.exp(-rate * t) for b, rate in ((b1, b2), (b3, b4), (b5, b6)))


RYEGRASS_DOSE = np.repeat([0, 0.94, 1.88, 3.75, 7.5, 15, 30], [6, 3, 3, 3, 3, 3, 3])
RYEGRASS = numbers("""7.58 8 8.328571 7.25 7.375 7.9625 8.355556 6.914286 7.75 6.871429 6.45 5.922222 1.925 2.885714
    4.233333 1.1875 0.857143 1.057143 0.6875 0.525 0.825 0.25 0.22 0.44""")


@problem(
    "hill",
    [1, 0, 10, 1],
    "RS, ryegrass, log-logistic with four parameters",
    5.400214406051,
    lower=[0, 0, 0, 0.1],
    upper=[10, 2, 20, 30],
)
@fit(RYEGRASS_DOSE, RYEGRASS)
def hill(dose, slope, floor, top, half):
    treated = dose > 0
    ratio = jnp.where(treated, jnp.where(treated, dose, 1) / half, 1)  # 0 to a power has no derivative
    return floor + (top - floor) / (1 + jnp.where(treated, ratio**slope, 0))


PEAKS_TIME = np.linspace(0, 1, 150)
PEAKS = (
    0.1
    - 0.2 * PEAKS_TIME
    + np.exp(-(((PEAKS_TIME - 0.25) / 0.06) ** 2))
    + 0.6 * np.exp(-(((PEAKS_TIME - 0.4) / 0.08) ** 2))
    + 0.8 / (1 + ((PEAKS_TIME - 0.75) / 0.05) ** 2)
    + 0.02 * np.random.RandomState(1).standard_normal(150)
)


@problem(
    "peaks",
    [0, 0, 0.5, 0.2, 0.1, 0.5, 0.5, 0.1, 0.5, 0.8, 0.1],
    "own: two Gaussians and a Lorentzian on a slope",
    0.2926584628948,
    lower=[0, 0, 0, 0, 0.02, 0, 0.3, 0.02, 0, 0.6, 0.02],
    upper=[1, 1, 5, 0.3, 0.3, 5, 0.6, 0.3, 5, 1, 0.3],
)
@fit(PEAKS_TIME, PEAKS)
def peaks(t, base, drift, h1, p1, w1, h2, p2, w2, h3, p3, w3):
    bumps = sum(h * jnp.exp(-(((t - p) / w) ** 2)) for h, p, w in ((h1, p1, w1), (h2, p2, w2)))
    return base + drift * t + bumps + h3 / (1 + ((t - p3) / w3) ** 2)


def deconvolution(n):
    """½ ‖K x - y‖² with a Gaussian kernel K, and y a blurred row of spikes with noise on it."""
    random, place = np.random.RandomState(2), count(n)
    K = np.exp(-(((place[:, None] - place[None, :]) / 1.2) ** 2) / 2)
    y = K @ np.where(random.uniform(size=n) < 0.1, random.uniform(1, 5, n), 0) + 0.05 * random.standard_normal(n)
    return lambda x: jnp.sum((times(K, x) - like(y, x)) ** 2) / 2


problem("deconvolution", np.zeros(200), "own: nonnegative least squares", 0.1808581705279, lower=0)(deconvolution(200))


@cache
def breast_cancer():
    """The standardized features of each tumor and a 1, all times -1 where it is malignant."""
    from sklearn.datasets import load_breast_cancer

    features, target = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    return np.where(target, 1, -1)[:, None] * np.column_stack([features, np.ones(len(features))])


@problem(
    "logistic_regression",
    np.zeros(31),
    "SWM, mean log-loss, box: own",
    0.07372739333071,
    lower=[-0.5] * 30 + [-INF],
    upper=[0.5] * 30 + [INF],
)
def logistic_regression(x):
    return jnp.mean(jax.nn.softplus(-times(breast_cancer(), x)))


# MINPACK-2, CUTE and COPS: meshes


def membrane(size, force):
    """An elastic membrane on the unit square, its edges among the variables."""

    def fun(x):
        v = x.reshape(size, size)
        inner = v[1:-1, 1:-1]
        sides = v[2:, 1:-1], v[:-2, 1:-1], v[1:-1, 2:], v[1:-1, :-2]
        return sum(jnp.sum((side - inner) ** 2) for side in sides) / 4 - force * jnp.sum(inner) / (size - 1) ** 2

    return fun


def torsion(size):
    """Distance from the edges of the unit square."""
    steps = np.minimum(count(size, 0), size - count(size))
    return np.minimum(steps[:, None], steps[None, :]).ravel() / (size - 1)


def inside(size, value):
    """`value` on the mesh, 0 on its edges."""
    return np.pad(np.full((size - 2, size - 2), value), 1).ravel()


def obstacle(size, a, b):
    """sin(a s) sin(b t) on the mesh, 0 on its edges."""
    t = np.linspace(0, 1, size)
    return inside(size, 1.0) * np.outer(np.sin(a * t), np.sin(b * t)).ravel()


problem(
    "torsion_10",
    torsion(10),
    "MT91, BCGT TORSION1, all bounds active at the start",
    -0.4923418536749,
    lower=-torsion(10),
    upper=torsion(10),
)(membrane(10, 5))
problem(
    "torsion_22",
    torsion(22),
    "MT91, BCGT TORSION1, all bounds active at the start",
    -0.4560877127319,
    lower=-torsion(22),
    upper=torsion(22),
)(membrane(22, 5))
problem(
    "obstacle_a",
    inside(10, 1.0),
    "DT, BCGT OBSTCLAE",
    1.397897559247,
    lower=obstacle(10, 3.2, 3.3),
    upper=inside(10, 2000),
)(membrane(10, 1))
problem(
    "obstacle_b",
    obstacle(23, 9.2, 9.3) ** 3,
    "DT, BCGT OBSTCLBL",
    6.519325271039,
    lower=obstacle(23, 9.2, 9.3) ** 3,
    upper=obstacle(23, 9.2, 9.3) ** 2 + inside(23, 0.02),
)(membrane(23, 1))


def journal_bearing(size, eccentricity):
    """Pressure in a journal bearing, over one turn and a length of 20, its edges among the variables."""
    angle, turn, length = np.linspace(0, 2 * np.pi, size), 2 * np.pi / (size - 1), 20 / (size - 1)
    w = (1 + eccentricity * np.cos(angle))[:, None] ** 3
    ahead, behind, force = (2 * w[:-1] + w[1:]) / 6, (2 * w[1:] + w[:-1]) / 6, eccentricity * np.sin(angle)[:, None]

    def fun(x):
        v = x.reshape(size, size)
        turning, along = (jnp.diff(v, axis=0) / turn) ** 2, (jnp.diff(v, axis=1) / length) ** 2
        flow = like(ahead, x) * (turning[:, :-1] + along[:-1]) + like(behind, x) * (turning[:, 1:] + along[1:])
        return turn * length * (jnp.sum(flow) / 2 - jnp.sum(like(force, x) * v))

    return fun


problem(
    "journal_bearing",
    np.repeat(np.sin(np.linspace(0, 2 * np.pi, 23)), 23) * inside(23, 1.0),
    "MINPACK2, BCGT JNLBRNG1",
    -0.1800455689277,
    lower=0,
    upper=inside(23, INF),
)(journal_bearing(23, 0.1))


def minimal_surface(rows, columns):
    """The area of a surface over the unit square; its edges are given, two of them parabolas."""
    h, k = 1 / (rows + 1), 1 / (columns + 1)
    edges = np.zeros((rows + 2, columns + 2))
    edges[:, [0, -1]] = 1 - (2 * np.linspace(0, 1, rows + 2)[:, None] - 1) ** 2

    def fun(x):
        v = like(edges, x).at[1:-1, 1:-1].set(x.reshape(rows, columns))
        down, across = (jnp.diff(v, axis=0) / h) ** 2, (jnp.diff(v, axis=1) / k) ** 2
        triangles = jnp.sqrt(1 + down[:, :-1] + across[:-1]), jnp.sqrt(1 + down[:, 1:] + across[1:])
        return h * k / 2 * sum(map(jnp.sum, triangles))

    return fun


def plate(rows, columns):
    """1 on the middle of the mesh, 0 elsewhere."""
    height = np.zeros((rows + 2, columns + 2))
    (top, bottom), (left, right) = ((n // 4, -(-3 * n // 4) + 1) for n in (rows + 1, columns + 1))
    height[top:bottom, left:right] = 1
    return height[1:-1, 1:-1].ravel()


problem(
    "minimal_surface",
    np.repeat(1 - (2 * np.linspace(0, 1, 52)[1:-1] - 1) ** 2, 25),
    "COPS 17, 50 x 25",
    2.519487676337,
    lower=plate(50, 25),
)(minimal_surface(50, 25))


def ginzburg_landau(n, kelvin):
    """The free energy of alternating layers of tin and lead, and the usual start. CGS units, lengths in 1e-5 cm."""
    electron, charge_by_c, planck = 9.11e-28, 4.80e-10 / 2.99e10, 1.05459e-27
    half, gamma = n // 4, planck**2 / (4 * electron) * 1e30

    def layer(critical, field, depth):
        moment, warm = charge_by_c**2 / electron, (kelvin / critical) ** 2
        alpha = -2e18 * moment * (field * depth) ** 2 * (1 - warm) / (1 + warm)
        return alpha, 16e36 * np.pi * (moment * field * depth**2) ** 2 / (1 + warm) ** 2

    tin, lead = (*layer(3.73, 309, 3.4e-6), 2.2 / half), (*layer(7.32, 803, 3.7e-6), 2 / (n - 2 * half))
    constants = np.array([tin] * half + [lead] * (n - 2 * half) + [tin] * half).T

    def fun(x):
        alpha, beta, h = like(constants, x)
        y = jnp.roll(x, -1)
        square = alpha / 3 * (y**2 + x * y + x**2)
        fourth = beta / 10 * (y**4 + y**3 * x + y**2 * x**2 + y * x**3 + x**4)
        return jnp.sum(h * (square + fourth + gamma * ((y - x) / h) ** 2))

    start = np.sqrt((lead[1] + tin[1]) / (2 * (abs(lead[0]) + abs(tin[0]))))
    return fun, np.full(n, start)


free_energy, standard_start = ginzburg_landau(100, 5)
problem("ginzburg_landau", standard_start, "MINPACK2 GL1, n = 100", -8456.188255510)(free_energy)


# CUTE and others: closed forms


@problem("driver1", np.full(25, 3), "ZBLN, BCGT NONSCOMP", 0.0, lower=alternating(1, -100, 25), upper=100)
@squares
def driver1(x):
    return x[0] - 1, 2 * (x[1:] - x[:-1] ** 2)


@problem(
    "allinit",
    np.zeros(4),
    "BCGT ALLINIT: bounds of every kind",
    16.70596843288,
    lower=[-INF, 1, -1e10, 2],
    upper=[INF, INF, 1, 2],
)
def allinit(x):
    a, b, c, d = x
    inner = jnp.stack([d - 1, b**2, c**2 + (d + a) ** 2, a - 4 + jnp.sin(d) ** 2 + b**2 * c**2, jnp.sin(d) ** 2])
    outer = c - 1 + a**2 + b**2 + (c + d) ** 2 + d - 3 + 2 * jnp.sin(c) ** 2 + a**2 * b**2
    return outer + jnp.sum(inner**2)


@problem("hatfldb", np.full(4, 0.1), "BCGT HATFLDB", 5.572809000084e-3, lower=1e-7, upper=[INF, 0.8, INF, INF])
@squares
def hatfldb(x):
    return x[0] - 1, x[:-1] - jnp.sqrt(x[1:])


@problem("hatfldc", np.full(25, 0.9), "BCGT HATFLDC", 0.0, lower=[0] * 24 + [-INF], upper=[10] * 24 + [INF])
@squares
def hatfldc(x):
    return x[0] - 1, x[2:] - x[1:-1] ** 2, x[-1] - 1


@problem(
    "explin", np.zeros(12), "BCGT EXPLIN, n = 12: all bounds active at the start", -6849.952835702, lower=0, upper=10
)
def explin(x):
    return jnp.sum(jnp.exp(0.1 * x[:6] * x[1:7])) - 10 * jnp.sum(like(count(12), x) * x)


@problem("biggsb1", np.zeros(25), "BCGT BIGGSB1, n = 25", 0.015, lower=[0] * 24 + [-INF], upper=[0.9] * 24 + [INF])
@squares
def biggsb1(x):
    return x[0] - 1, x[1:] - x[:-1], x[-1] - 1


def bqp(n, convex):
    """½ Σ ± i (x_i + x_j + x_k)², + for the first `convex` terms."""
    i = np.arange(1, n + 1)
    sign = np.where(i <= convex, 1, -1)
    return lambda x: jnp.sum(like(sign * i, x) * (x + x[(2 * i - 1) % n] + x[(3 * i - 1) % n]) ** 2) / 2


problem("cvxbqp1", np.full(100, 0.5), "BCGT CVXBQP1, n = 100", 227.25, lower=0.1, upper=10)(bqp(100, 100))
problem("ncvxbqp1", np.full(100, 0.5), "BCGT NCVXBQP1, n = 100", -1995577.65, lower=0.1, upper=10)(bqp(100, 25))


@problem("camel", [1.1, 1.1], "DS, BCGT CAMEL6", -1.031628453490, lower=[-3, -1.5], upper=[3, 1.5])
def camel(x):
    a, b = x
    return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + 4 * (b**2 - 1) * b**2


@problem(
    "styblinski_tang",
    np.zeros(10),
    "ST, n = 10: a start at which all variables are alike",
    -391.6616570377,
    lower=-5,
    upper=5,
)
def styblinski_tang(x):
    return jnp.sum(x**4 - 16 * x**2 + 5 * x) / 2


@problem("univariate", [4.5], "HJL 2", -1.899599349152, lower=2.7, upper=7.5)
def univariate(x):
    return jnp.sin(x[0]) + jnp.sin(10 * x[0] / 3)


@problem("bqp1var", [0.25], "BCGT BQP1VAR", 0.0, lower=0, upper=0.5)
def bqp1var(x):
    return x[0] + x[0] ** 2


@problem("ties", np.full(60, 0.5), "own: every variable meets its bound at the same step", 31.0, lower=0, upper=1)
@problem("fixed", np.ones(5), "own: nothing is free", 5.875, lower=0.5, upper=0.5)
def ties(x):
    return jnp.sum((x - 2) ** 2) / 2 + jnp.mean(x) ** 2


# Quadratics


def boxed_quadratic(n, condition):
    """½ (x - x*)ᵀ A (x - x*) + rᵀ (x - x*), least at x*, where most bounds hold with multipliers |r|. MT89."""
    random = np.random.RandomState(3)
    A = rotated(np.logspace(0, np.log10(condition), n), random)
    best, active = random.uniform(-1, 1, n), random.uniform(size=n) < 0.5
    best = np.where(active, np.sign(best), best)
    r = np.where(active, -best * 10 ** -random.uniform(0, 3, n), 0)

    def fun(x):
        d = x - like(best, x)
        return jnp.sum(d * times(A, d)) / 2 + jnp.sum(like(r, x) * d)

    return fun


for power in range(0, 12, 2):
    problem(f"quadratic_1e{power}", np.zeros(50), "MT89, n = 50", 0.0, lower=-1, upper=1)(
        boxed_quadratic(50, 10**power)
    )

BY_NAME = {entry.name: entry for entry in PROBLEMS}


# Random problems


class RandomProblem(NamedTuple):
    """Minimize fun(x, *args) over lower ≤ x ≤ upper, from x0, which may lie outside."""

    fun: Callable
    x0: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    args: tuple[np.ndarray, ...]


def bumpy(x, A, centre, height, frequency, phase, link, quartic):
    """½ dᵀA d + Σ h cos(ω x + φ) + Σ k sin(d_i d_i+1) + q Σ d⁴, d = x - centre: bounded below, hardly ever convex."""
    A, centre, height, frequency, phase, link, quartic = (
        like(a, x) for a in (A, centre, height, frequency, phase, link, quartic)
    )
    d = x - centre
    waves = jnp.sum(height * jnp.cos(frequency * x + phase)) + jnp.sum(link * jnp.sin(d[1:] * d[:-1]))
    return jnp.sum(d * times(A, d)) / 2 + waves + quartic * jnp.sum(d**4)


def random_problem(seed: int, n: int) -> RandomProblem:
    """Problem number `seed` in n variables: any conditioning and scale, any mixture of bounds, any place to start."""
    random = np.random.RandomState(seed)
    scale = 10 ** random.uniform(-2, 2)
    spectrum = np.logspace(0, -random.uniform(0, 6), n) * np.where(random.uniform(size=n) < 0.2, -1, 1)
    args = (
        scale * rotated(10 ** random.uniform(-1, 1) * spectrum, random),
        random.uniform(-2, 2, n),
        scale * random.uniform(0, 2) * random.standard_normal(n),
        random.uniform(0.5, 3, n),
        random.uniform(0, 2 * np.pi, n),
        scale * random.uniform(0, 1) * random.standard_normal(n - 1),
        np.array(scale * 10 ** random.uniform(-3, -1)),
    )
    # Variables without bounds, with a lower, an upper, both, or both the same.
    kind = random.choice(5, n, p=random.dirichlet(np.ones(5)))
    end = random.uniform(-3, 1, n)
    lower = np.where(np.isin(kind, [1, 3, 4]), end, -INF)
    upper = np.where(np.isin(kind, [2, 3, 4]), end + np.where(kind == 4, 0, random.exponential(2, n)), INF)
    # Starts inside the box, anywhere, or on a bound.
    place, anywhere = random.choice(3, n, p=random.dirichlet(np.ones(3))), 3 * random.standard_normal(n)
    side = np.where(random.uniform(size=n) < 0.5, lower, upper)
    x0 = np.where(place == 0, np.clip(anywhere, lower, upper), anywhere)
    x0 = np.where((place == 2) & np.isfinite(side), side, x0)
    return RandomProblem(bumpy, x0, lower, upper, args)
