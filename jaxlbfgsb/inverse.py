"""Without bounds: the step -H g to the model's minimum, H = B⁻¹.

    z = R⁻¹ S g,   w = (g - Yᵀ z)/θ,   H g = w + Sᵀ R⁻ᵀ (D z - Y w)                                   BNS (3.1)

R_ij = s_iᵀ y_j where pair j came after pair i or is it, else 0; D is its diagonal. Its rows are in the memory's order,
so R is triangular but for a permutation, and is eliminated without one: no pivot ever changes. It is the two-loop
recursion, each loop at once. Cost: four products (m × n)(n) and one elimination of m × 2m.

BNS: Byrd, Nocedal, Schnabel, Math. Program. 63 (1994).
"""

import jax.numpy as jnp

from .box import Vector
from .elimination import inverse
from .memory import Memory, age, live


def step(g: Vector, memory: Memory) -> Vector:
    """-H g; NaN if H is not positive definite."""
    assert memory.gram is not None
    ages, alive = age(memory), live(memory)
    (Y, S), theta = memory.YS, jnp.where(memory.held > 0, memory.theta, 1)
    D = jnp.where(alive, memory.D, 1)
    later = alive[:, None] & alive[None, :] & (ages[:, None] > ages[None, :])
    R = jnp.where(later, memory.gram[0], jnp.diag(D))
    root = inverse(R)
    z = root @ jnp.where(alive, S @ g, 0)
    w = (g - z @ Y) / theta
    return -w - (jnp.where(alive, D * z - Y @ w, 0) @ root) @ S
