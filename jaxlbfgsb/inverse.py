"""Without bounds: the step -H g to the model's minimum, H = B⁻¹.

    z = R⁻¹ S g,   H g = (g - Yᵀ z)/θ + Sᵀ R⁻ᵀ (D z - (Y g - Y Yᵀ z)/θ)                               BNS (3.1)

R_ij = s_iᵀ y_j where pair j came after pair i or is it, else 0; D is its diagonal. The memory holds R⁻¹ and Y Yᵀ, to
which a new pair adds a row and a column. It is the two-loop recursion, each loop at once. Cost: two products with YS.

BNS: Byrd, Nocedal, Schnabel, Math. Program. 63 (1994).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .box import Vector
from .memory import Inverse, Memory, live


def step(g: Vector, with_g: Float[Array, "2 m"], memory: Memory) -> Vector:
    """-H g, given [Y; S] g; NaN if H is not positive definite."""
    assert isinstance(memory.gram, Inverse)
    alive, YS = live(memory), memory.YS
    D, theta = jnp.where(alive, memory.D, 1), jnp.where(memory.held > 0, memory.theta, 1)
    root, YY = (jnp.where(alive[:, None] & alive[None, :], square, 0) for square in memory.gram)
    Yg, Sg = jnp.where(alive[None, :], with_g, 0)
    z = root @ Sg
    c = jnp.concatenate([-z / theta, (D * z - (Yg - YY @ z) / theta) @ root])
    return -g / theta - c @ YS.reshape(len(c), -1)
