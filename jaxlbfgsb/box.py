"""The feasible box l ≤ x ≤ u and the projected path P(x - t g).

    P(x)     = min(max(x, l), u)
    pg(x)    = P(x - g) - x, zero exactly at a first-order point               BLNZ (6.1)
    t_i      = (x_i - u_i)/g_i if g_i < 0, (x_i - l_i)/g_i if g_i > 0, else ∞  BLNZ (4.1)

t_i is where coordinate i of the path x - t g meets its bound. Absent bounds are ±inf. All of it is elementwise:
one pass over n, no tolerance anywhere.

BLNZ: Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16 (1995).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]
Vector = Float[Array, " n"]


class Box(NamedTuple):
    """Bounds l ≤ x ≤ u of n variables, in the dtype of x; -inf and inf where there is none.

    Attributes:
      lower: l, `(n,)`.
      upper: u, `(n,)`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Box
      >>> box = Box(lower=jnp.zeros(2), upper=jnp.array([1.0, jnp.inf]))
    """

    lower: Vector
    upper: Vector


def project(x: Vector, box: Box) -> Vector:
    """P(x): the point of the box nearest to x."""
    return jnp.minimum(jnp.maximum(x, box.lower), box.upper)


def projected_gradient(x: Vector, g: Vector, box: Box) -> Vector:
    """P(x - g) - x, zero exactly at a first-order point. BLNZ (6.1)."""
    # Not by forming x - g: where |x| is large that would round a small gradient away.
    return jnp.minimum(jnp.maximum(-g, box.lower - x), box.upper - x)


def path_end(x: Vector, g: Vector, box: Box) -> Vector:
    """The bound that each coordinate of x - t g runs towards; x itself where g = 0."""
    return jnp.where(g > 0, box.lower, jnp.where(g < 0, box.upper, x))


def breakpoints(x: Vector, g: Vector, box: Box) -> Vector:
    """t ≥ 0 at which each coordinate of x - t g meets its bound; inf where it never does. BLNZ (4.1)."""
    return jnp.where(g == 0, jnp.inf, (x - path_end(x, g, box)) / jnp.where(g == 0, 1, g))


def can_move(x: Vector, g: Vector, box: Box) -> Bool[Array, " n"]:
    """True where x - t g moves for small t > 0, or where g = 0 strictly between the bounds."""
    return jnp.where(g == 0, (box.lower < x) & (x < box.upper), breakpoints(x, g, box) > 0)


def reach(x: Vector, d: Vector, box: Box) -> Vector:
    """The step at which each coordinate of x + step d meets its bound; inf where it never does."""
    return breakpoints(x, -d, box)
