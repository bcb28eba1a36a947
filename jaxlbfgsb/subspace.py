"""The subspace minimum: the model's minimizer over the variables that the Cauchy point leaves free, kept in the box.

    B_FF d = r = -(g + θ(xᶜ - x) - WᵀMc)_F                                                               BLNZ (5.4)
    d = r/θ + W_Fᵀ K⁻¹ W_F r/θ²,     K = M⁻¹ - W_F W_Fᵀ/θ                                               BLNZ (5.11)

A are the variables that are not free. The blocks of K are partition.py's. Cost: three products (2m × n)(n).

BLNZ §5.1; the projection of the step is Morales and Nocedal's, ACM TOMS 38 (2011).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from . import partition
from .box import Box, Vector, path_end, project, reach
from .cauchy import CauchyPoint
from .elimination import inverse_factor
from .memory import age, blocks, live
from .model import Factor, Model, apply, combine, inverse_root, times


def subspace_step(x: Vector, g: Vector, cauchy: CauchyPoint, B: Model) -> Vector:
    """The step from the Cauchy point to the model's minimum over its free variables. BLNZ (5.11)."""
    theta, free = B.theta, cauchy.free
    r = jnp.where(free, combine(B, apply(B.G, cauchy.c)) - g - theta * (cauchy.x - x), 0)
    u = apply(reduced(B, free), times(B, r))
    return jnp.where(free, r / theta + combine(B, u) / theta**2, 0)


def reduced(B: Model, free: Bool[Array, " n"]) -> Factor:
    """The G of K: A = D + Y_F Y_Fᵀ/θ, C = L_A - D_F - R_F, H = θ S_A S_Aᵀ."""
    memory, alive = B.memory, live(B.memory)
    both, (theta, D, _, _) = alive[:, None] & alive[None, :], blocks(memory)
    kept = memory.partition
    YY, C, SS = partition.anew(memory.YS, age(memory), free) if kept is None else kept.blocks
    A, C = jnp.diag(D) + jnp.where(both, YY, 0) / theta, jnp.where(both, C, 0)
    return inverse_root(inverse_factor(A), C, jnp.where(both, theta * SS, jnp.eye(len(D), dtype=D.dtype)))


def target(x: Vector, g: Vector, cauchy: Vector, d: Vector, free: Bool[Array, " n"], box: Box) -> Vector:
    """Where the line search aims: xᶜ + d projected on the box, if that is a descent, else cut short at it. MN §3."""
    full = jnp.where(free, project(cauchy + d, box), cauchy)
    met = jnp.any(free & ((full == box.lower) | (full == box.upper)))
    steps = jnp.where(free, reach(cauchy, d, box), jnp.inf)
    alpha = jnp.minimum(1, jnp.min(steps))
    cut = jnp.where(steps <= alpha, path_end(cauchy, -d, box), project(cauchy + alpha * d, box))
    return jnp.where(met & (g @ (full - x) > 0), jnp.where(free, cut, cauchy), full)
