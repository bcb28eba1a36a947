"""Without bounds: the step -H g to the model's minimum, H = B⁻¹.

    z = R⁻¹ S g,   w = (g - Yᵀ z)/θ,   H g = w + Sᵀ R⁻ᵀ (D z - Y w)                                   BNS (3.1)

R_ij = s_iᵀ y_j where pair j came after pair i or is it, else 0; D is its diagonal. The memory holds R⁻¹, to which a new
pair adds a column. It is the two-loop recursion, each loop at once. Cost: four products (m × n)(n).

BNS: Byrd, Nocedal, Schnabel, Math. Program. 63 (1994).
"""

import jax.numpy as jnp

from .box import Vector
from .memory import Memory, live


def step(g: Vector, memory: Memory) -> Vector:
    """-H g; NaN if H is not positive definite."""
    assert memory.gram is not None
    alive, (Y, S) = live(memory), memory.YS
    D, theta = jnp.where(alive, memory.D, 1), jnp.where(memory.held > 0, memory.theta, 1)
    root = jnp.where(alive[:, None] & alive[None, :], memory.gram[0], 0)
    z = root @ jnp.where(alive, S @ g, 0)
    w = (g - z @ Y) / theta
    return -w - (jnp.where(alive, D * z - Y @ w, 0) @ root) @ S
