"""Finite differences inside a box: forward, central and complex-step gradients, as SciPy takes them.

    forward   (f(x + h eᵢ) - f(x)) / h        h = ε^½ |x| or so; where it would leave the box backward, or shorter
    central   (f(x + h eᵢ) - f(x - h eᵢ)) / 2h        h = ε^⅓ |x| or so; one-sided of second order near a bound
    complex   Im f(x + i h eᵢ) / h        for functions of complex numbers; bounds do not matter

Steps are divided by what they are after rounding. No point is outside the box, not by one ulp. A variable without room,
l = u, is left alone and its derivative is NaN.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Vector = Float[np.ndarray, " n"]
Index = Int[np.ndarray, " k"]
Values = Callable[[Iterable[np.ndarray]], Iterable]  # of the function, at points
SCHEMES = ("2-point", "3-point", "cs")


def gradient(
    values: Values,
    x: Vector,
    f: float,
    lower: Vector,
    upper: Vector,
    scheme: str = "2-point",
    absolute: Vector | float | None = None,
    relative: Vector | float | None = None,
) -> tuple[Vector, int]:
    """The gradient at x, where the function is f, and how many more values it took.

    `values` is handed the points, one after the other, and gives the function's values there. The step is `absolute`,
    or `relative` · |x|, or one that suits float64; the last also wherever x + step is x.
    """
    sign = np.where(x >= 0, 1.0, -1.0)
    usual = np.finfo(x.dtype).eps ** (1 / 3 if scheme == "3-point" else 1 / 2) * sign * np.maximum(1, abs(x))
    wanted = absolute if absolute is not None else usual if relative is None else relative * sign * abs(x)
    h = np.where((x + wanted) - x == 0, usual, wanted)
    free = np.flatnonzero(lower < upper)
    rule = {"2-point": _forward, "3-point": _central, "cs": _complex}[scheme]
    g = np.full(x.shape, np.nan)
    g[free], count = rule(values, x, f, h, lower, upper, free)
    return g, count


def _forward(values: Values, x: Vector, f: float, h: Vector, lower: Vector, upper: Vector, free: Index) -> tuple:
    """One more value for each variable: (f(x + h eᵢ) - f(x)) / h."""
    below, above = x - lower, upper - x
    outside, fits = (x + h < lower) | (x + h > upper), abs(h) <= np.maximum(below, above)
    h = np.where(fits, np.where(outside, -h, h), np.where(above >= below, above, -below))
    to = np.clip(x + h, lower, upper)
    rise = np.subtract(list(values(_with(x, i, to[i]) for i in free)), f)  # an error for bool
    return rise / (to - x)[free], len(free)


def _central(values: Values, x: Vector, f: float, h: Vector, lower: Vector, upper: Vector, free: Index) -> tuple:
    """Two more: (f(x + h eᵢ) - f(x - h eᵢ)) / 2h, or (4 f(x + h eᵢ) - f(x + 2h eᵢ) - 3 f(x)) / 2h."""
    below, above, h = x - lower, upper - x, abs(h)
    least, most = np.minimum(below, above), np.maximum(below, above)
    both = least >= h
    aside = np.where(above >= below, 1, -1) * np.minimum(h, most / 2)
    near = ~both & (abs(aside) <= least)  # the room on the nearer side is all that is needed
    both, h = both | near, np.where(both, h, np.where(near, least, aside))
    first = np.clip(np.where(both, x - h, x + h), lower, upper)
    second = np.clip(np.where(both, x + h, x + 2 * h), lower, upper)
    found = iter(values(_with(x, i, to[i]) for i in free for to in (first, second)))
    pairs = [(next(found), next(found)) for _ in free]
    rise = [np.subtract(b, a) if both[i] else -3 * f + 4 * a - b for i, (a, b) in zip(free, pairs, strict=True)]
    return np.array(rise) / np.where(both, second - first, second - x)[free], 2 * len(free)


def _complex(values: Values, x: Vector, f: float, h: Vector, lower: Vector, upper: Vector, free: Index) -> tuple:
    """One more: Im f(x + i h eᵢ) / h."""
    found = values(_with(x.astype(complex), i, x[i] + 1j * h[i]) for i in free)
    return np.array([value.imag for value in found]) / h[free], len(free)


def _with(x: Vector, i: int, value: Any) -> Vector:
    """A copy of x with another entry i."""
    x = x.copy()
    x[i] = value
    return x
