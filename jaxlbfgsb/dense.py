"""Few variables: cauchy.py and subspace.py with B written out as an n × n matrix. Same mathematics, fewer products.

    B = θI - Wᵀ M W is what remains of θ [S; I][S; I]ᵀ + PᵀP, P = D^-½ [Lᵀ Y], when its first m variables are
    eliminated: their block is T = θ S Sᵀ + L D⁻¹Lᵀ, which has to be positive definite.              BLNZ (3.2)-(3.6)

    z(τ) = P(x - τ g) - x,   d = z'(τ),   q' = dᵀ(g + B z),   q'' = dᵀB d                            BLNZ (4.2)-(4.5)

All segments of the projected path are looked at in one go. Cost: m (m + n)² + 2n³.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .box import Box, Scalar, Vector, breakpoints, can_move, path_end, project
from .cauchy import minimizer
from .elimination import eliminate, solve
from .memory import Memory, blocks, live

Matrix = Float[Array, "n n"]


def hessian(memory: Memory) -> tuple[Matrix, Scalar]:
    """B and θ of a memory; NaN if it is not positive definite. BLNZ (3.2)."""
    _, m, n = memory.YS.shape
    theta, D, L, SS = blocks(memory)
    Y, S = jnp.where(live(memory)[:, None], memory.YS, 0)
    P = jnp.concatenate([L.T, Y], axis=1) / jnp.sqrt(D)[:, None]
    A = theta * jnp.block([[SS, S], [S.T, jnp.eye(n, dtype=S.dtype)]]) + P.T @ P
    return eliminate(A, m)[m:, m:], theta


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
    Bd, Bz = jnp.split(jnp.concatenate([d, z]) @ B, 2)
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
