"""The subspace minimum: the model's minimizer over the variables that the Cauchy point leaves free, kept in the box.

    B_FF d = r = -(g + θ(xᶜ - x) - WᵀMc)_F                                                               BLNZ (5.4)
    d = r/θ + W_Fᵀ K⁻¹ W_F r/θ²,     K = M⁻¹ - W_F W_Fᵀ/θ                                               BLNZ (5.11)

A are the variables that are not free. The blocks of K come from products masked by F and A: by subtraction from the
whole, θ(S Sᵀ - S_F S_Fᵀ), they would cancel. Cost: one product (2m × n)(n × 2m) and two of (2m × n)(n).

BLNZ §5.1; the projection of the step is Morales and Nocedal's, ACM TOMS 38 (2011).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .box import Box, Vector, path_end, project, reach
from .cauchy import CauchyPoint
from .elimination import inverse_factor
from .memory import Square, age, blocks, live
from .model import Factor, Model, apply, combine, inverse_root, times

CHUNK = 8192  # variables a time in the products of K: a masked copy of all of S and Y would take 2m n


def subspace_step(x: Vector, g: Vector, cauchy: CauchyPoint, B: Model) -> Vector:
    """The step from the Cauchy point to the model's minimum over its free variables. BLNZ (5.11)."""
    theta, free = B.theta, cauchy.free
    r = jnp.where(free, combine(B, apply(B.G, cauchy.c)) - g - theta * (cauchy.x - x), 0)
    u = apply(reduced(B, free), times(B, r))
    return jnp.where(free, r / theta + combine(B, u) / theta**2, 0)


def reduced(B: Model, free: Bool[Array, " n"]) -> Factor:
    """The G of K: A = D + Y_F Y_Fᵀ/θ, C = L_A - D_F - R_F, H = θ S_A S_Aᵀ."""
    memory = B.memory
    alive, ages = live(memory), age(memory)
    both = alive[:, None] & alive[None, :]
    YY, SY_F, SS, SY_A = masked_products(memory.YS, free)
    theta, D, _, _ = blocks(memory)
    A = jnp.diag(D) + jnp.where(both, YY, 0) / theta
    C = jnp.where(both, jnp.where(ages[:, None] < ages[None, :], SY_A, -SY_F), 0)
    H = jnp.where(both, theta * SS, jnp.eye(len(D), dtype=D.dtype))
    return inverse_root(inverse_factor(A), C, H)


def masked_products(YS: Float[Array, "2 m n"], free: Bool[Array, " n"]) -> tuple[Square, Square, Square, Square]:
    """Y_F Y_Fᵀ, S_F Y_Fᵀ, S_A S_Aᵀ and S_A Y_Aᵀ."""
    _, m, n = YS.shape

    def products(YS: Float[Array, "2 m k"], free: Array, active: Array) -> Float[Array, "4 m m"]:
        by_y, by_s = YS @ jnp.where(free[None, :], YS[0], 0).T, YS @ jnp.where(active[None, :], YS[1], 0).T
        return jnp.stack([by_y[0], by_y[1], by_s[1], by_s[0].T])

    if n <= CHUNK:
        return tuple(products(YS, free, ~free))

    def add(i: Array, total: Array) -> Array:
        start = jnp.minimum(i * CHUNK, n - CHUNK)  # the last chunk begins early and leaves out what is counted
        fresh = start + jnp.arange(CHUNK) >= i * CHUNK
        part = jax.lax.dynamic_slice_in_dim(YS, start, CHUNK, axis=2)
        here = jax.lax.dynamic_slice_in_dim(free, start, CHUNK)
        return total + products(part, here & fresh, ~here & fresh)

    return tuple(jax.lax.fori_loop(0, -(-n // CHUNK), add, jnp.zeros((4, m, m), YS.dtype)))


def target(x: Vector, g: Vector, cauchy: Vector, d: Vector, free: Bool[Array, " n"], box: Box) -> Vector:
    """Where the line search aims: xᶜ + d projected on the box, if that is a descent, else cut short at it. MN §3."""
    full = jnp.where(free, project(cauchy + d, box), cauchy)
    met = jnp.any(free & ((full == box.lower) | (full == box.upper)))
    steps = jnp.where(free, reach(cauchy, d, box), jnp.inf)
    alpha = jnp.minimum(1, jnp.min(steps))
    cut = jnp.where(steps <= alpha, path_end(cauchy, -d, box), project(cauchy + alpha * d, box))
    return jnp.where(met & (g @ (full - x) > 0), jnp.where(free, cut, cauchy), full)
