"""The subspace minimum: the model's minimizer over the variables that the Cauchy point leaves free, kept in the box.

    B_FF d = r = -(g + θ(xᶜ - x) - WᵀMc)_F                                                               BLNZ (5.4)
    d = r/θ + W_Fᵀ K⁻¹ W_F r/θ²,     K = M⁻¹ - W_F W_Fᵀ/θ                                               BLNZ (5.11)

W_F r needs no product with the pairs: it is what the Cauchy search knows of -g - θ(xᶜ - x), and W_F W_Fᵀ Mc, whose
matrix K is made of. A are the variables that are not free. Cost: one product (2m)(2m × n), beside partition.py's.

BLNZ §5.1; the projection of the step is Morales and Nocedal's, ACM TOMS 38 (2011).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from . import partition
from .box import Box, Vector, path_end, project, reach
from .cauchy import CauchyPoint
from .elimination import inverse_factor
from .memory import age, blocks, live
from .model import Factor, Model, apply, combine, inverse_root

BRANCH = 1000  # variables from which on a branch that is seldom taken saves more than it costs


def subspace_step(x: Vector, g: Vector, cauchy: CauchyPoint, B: Model) -> Vector:
    """The step from the Cauchy point to the model's minimum over its free variables. BLNZ (5.11)."""
    theta, free, kept = B.theta, cauchy.free, B.memory.partition
    alive = jnp.tile(live(B.memory), 2)
    F, A = partition.anew(B.memory.YS, free) if kept is None else kept.grams
    F = jnp.where(alive[:, None] & alive[None, :], F, 0)
    Mc = apply(B.G, cauchy.c)
    u = apply(reduced(B, F, A), cauchy.rest + B.scale * (F @ (B.scale * Mc)))
    return jnp.where(free, (combine(B, Mc + u / theta) - g) / theta - (cauchy.x - x), 0)


def reduced(B: Model, F: Factor, A: Float[Array, "m mm"]) -> Factor:
    """The G of K: its blocks are D + Y_F Y_Fᵀ/θ, L_A - D_F - R_F and θ S_A S_Aᵀ."""
    ages, alive = age(B.memory), live(B.memory)
    m, both, (theta, D, _, _) = len(ages), alive[:, None] & alive[None, :], blocks(B.memory)
    C = jnp.where(both, jnp.where(ages[:, None] < ages[None, :], A[:, :m], -F[m:, :m]), 0)
    SS = jnp.where(both, theta * A[:, m:], jnp.eye(m, dtype=D.dtype))
    return inverse_root(inverse_factor(jnp.diag(D) + F[:m, :m] / theta), C, SS)


def target(x: Vector, g: Vector, cauchy: Vector, d: Vector, free: Bool[Array, " n"], box: Box) -> Vector:
    """Where the line search aims: xᶜ + d projected on the box, if that is a descent, else cut short at it. MN §3."""
    full = jnp.where(free, project(cauchy + d, box), cauchy)

    def cut_short() -> Vector:
        met = jnp.any(free & ((full == box.lower) | (full == box.upper)))
        steps = jnp.where(free, reach(cauchy, d, box), jnp.inf)
        alpha = jnp.minimum(1, jnp.min(steps))
        cut = jnp.where(steps <= alpha, path_end(cauchy, -d, box), project(cauchy + alpha * d, box))
        return jnp.where(met & free, cut, full)

    uphill = g @ (full - x) > 0
    if len(x) <= BRANCH:
        return jnp.where(uphill, cut_short(), full)
    return jax.lax.cond(uphill, cut_short, lambda: full)
