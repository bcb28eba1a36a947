"""Few variables: cauchy.py and subspace.py with B written out as an n × n matrix. Same mathematics, fewer products.

    B ← B - B s sᵀB / sᵀB s + y yᵀ / sᵀy  from θI, over the pairs, oldest first                       BNS (1.1)

    z(τ) = P(x - τ g) - x,   d = z'(τ),   q' = dᵀ(g + B z),   q'' = dᵀB d                            BLNZ (4.2)-(4.5)

All segments of the projected path are looked at in one go. Cost: 4m n² + 2n³. The Gram matrices are not needed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .box import Box, Scalar, Vector, breakpoints, can_move, path_end, project
from .cauchy import minimizer
from .elimination import solve
from .kernel import product
from .memory import Memory

Matrix = Float[Array, "n n"]


def hessian(memory: Memory) -> tuple[Matrix, Scalar]:
    """B and θ of a memory: θI with the pairs put in, oldest first; NaN if it is not positive definite. BNS (1.1)."""
    _, m, n = memory.YS.shape
    row = memory.slot + jnp.arange(m)
    row = jnp.where(row < m, row, row - m)  # oldest first
    (Y, S), D = memory.YS[:, row], memory.D[row]
    live = jnp.arange(m) >= m - memory.held
    theta = jnp.where(memory.held > 0, memory.theta, 1)

    def put_in(k: Array, B: Matrix) -> Matrix:
        y, s = Y[k], S[k]
        Bs = jnp.sum(B * s[None, :], 1)  # a product of so little is no library call
        sBs = jnp.sum(s * Bs)
        new = B - (Bs / jnp.where(sBs > 0, sBs, jnp.nan))[:, None] * Bs[None, :] + (y / D[k])[:, None] * y[None, :]
        return jnp.where(live[k], new, B)

    return jax.lax.fori_loop(0, m, put_in, theta * jnp.eye(n, dtype=D.dtype)), theta


def cauchy_point(x: Vector, g: Vector, box: Box, B: Matrix, theta: Scalar) -> tuple[Vector, Vector, Bool[Array, " n"]]:
    """The generalized Cauchy point, the model's gradient there, and the free variables. NaN at a first-order x."""
    n = len(x)
    t, end, movable = breakpoints(x, g, box), path_end(x, g, box), can_move(x, g, box)
    index = jnp.arange(n)
    # Row 0 of `moving` is the start of the path, row 1 + i what follows breakpoint i. Ties are passed in index order.
    moving = (t[None, :] > t[:, None]) | ((t[None, :] == t[:, None]) & (index[None, :] > index[:, None]))
    moving = movable[None, :] & jnp.concatenate([jnp.ones((1, n), bool), moving])
    tau = jnp.concatenate([jnp.zeros(1, t.dtype), t])
    reached = jnp.isfinite(tau)
    d = jnp.where(moving, -g[None, :], 0)
    z = jnp.where(moving, jnp.where(reached, tau, 0)[:, None] * d, jnp.where(movable, end - x, 0)[None, :])
    Bd, Bz = jnp.split(product(jnp.concatenate([d, z]), B), 2)
    slope, curvature = jnp.sum(d * (g[None, :] + Bz), 1), jnp.sum(d * Bd, 1)
    step = minimizer(slope, curvature, theta * jnp.sum(d[0] ** 2), jnp.arange(n + 1) > 0)
    found = reached & (tau + step < jnp.min(jnp.where(moving, t[None, :], jnp.inf), 1))
    first = jnp.argmax(jnp.where(found, jnp.sum(moving, 1), -1))  # the fewest breakpoints behind it
    free = moving[first]
    point = project(x - (tau[first] + step[first]) * jnp.where(free, g, 0), box)
    return jnp.where(movable & ~free, end, point), g + Bz[first] + step[first] * Bd[first], free


def subspace_step(gradient: Vector, free: Bool[Array, " n"], B: Matrix) -> Vector:
    """The step from a point with this model gradient to the minimum over the free variables. BLNZ (5.4)-(5.7)."""
    r = jnp.where(free, -gradient, 0)
    reduced = jnp.where(free[:, None] & free[None, :], B, jnp.eye(len(B), dtype=B.dtype))
    return solve(reduced, r)
