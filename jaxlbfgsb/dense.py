"""The step of cauchy.py and subspace.py for few variables, with B written out as an n × n matrix.

Same mathematics, fewer and smaller products: all segments of the projected path are looked at in one go.

    z(τ) = P(x - τ g) - x,   d = z'(τ),   q' = dᵀ(g + B z),   q'' = dᵀB d                                BLNZ (4.2)-(4.5)
"""

import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Bool, Float

from .box import Box, Scalar, Vector, breakpoints, can_move, path_end, project
from .cauchy import minimizer

Matrix = Float[Array, "n n"]


def cauchy_point(
    x: Vector, g: Vector, box: Box, B: Matrix, theta: Scalar
) -> tuple[Vector, Bool[Array, " n"]]:
    """The first local minimizer of the model along P(x - t g), and the variables that are free to move from it."""
    n = len(x)
    t, end, movable = breakpoints(x, g, box), path_end(x, g, box), can_move(x, g, box)
    index = jnp.arange(n)
    # Row 0 of `moving` is the start of the path; row 1 + i is just after breakpoint i. Ties are passed in index order.
    moving = (t[None, :] > t[:, None]) | ((t[None, :] == t[:, None]) & (index[None, :] > index[:, None]))
    moving = movable[None, :] & jnp.concatenate([jnp.ones((1, n), bool), moving])
    tau = jnp.concatenate([jnp.zeros(1, t.dtype), t])
    valid = jnp.isfinite(tau)
    d = jnp.where(moving, -g[None, :], 0)
    z = jnp.where(moving, jnp.where(valid, tau, 0)[:, None] * d, jnp.where(movable, end - x, 0)[None, :])
    Bd, Bz = jnp.split(jnp.concatenate([d, z]) @ B, 2)
    step = minimizer(jnp.sum(d * (g[None, :] + Bz), 1), jnp.sum(d * Bd, 1), theta * jnp.sum(d[0] ** 2), jnp.arange(n + 1) > 0)
    found = valid & (tau + step < jnp.min(jnp.where(moving, t[None, :], jnp.inf), 1))
    first = jnp.argmax(jnp.where(found, jnp.sum(moving, 1), -1))  # the fewest breakpoints behind it
    free = moving[first]
    point = project(x + (tau[first] + step[first]) * d[first], box)
    return jnp.where(movable & ~free, end, point), free


def subspace_step(x: Vector, g: Vector, cauchy: Vector, free: Bool[Array, " n"], B: Matrix) -> Vector:
    """The step from the Cauchy point to the model's minimum over its free variables. BLNZ (5.4)-(5.7)."""
    r = jnp.where(free, -(g + B @ (cauchy - x)), 0)
    reduced = jnp.where(free[:, None] & free[None, :], B, jnp.eye(len(x), dtype=B.dtype))
    R = linalg.cholesky(reduced, symmetrize_input=False)
    inner = linalg.triangular_solve(R, r[:, None], left_side=True, lower=True)
    return linalg.triangular_solve(R, inner, left_side=True, lower=True, transpose_a=True)[:, 0]
