"""The linear solve inside the derivative of `minimize`, for whoever wants to see how well it went.

    z_F = H_FF⁻¹ b_F,   z_A = 0

With b = ∂loss/∂x the derivative of the loss is -zᵀ ∂g/∂θ: z is all of the solution's that enters. implicit.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from . import implicit
from .argmin import Result, trace
from .arguments import PyTree, check_args, check_bounds, check_callable, check_linear_solver, ravel
from .box import Box, Scalar


class ReducedSolve(NamedTuple):
    """What `reduced_solve` found.

    Attributes:
      z: H_FF⁻¹ b_F for the variables strictly inside their bounds, 0 for the others, like x.
      residual: of the solve, relative, `()`: dense, the estimated error of z in the norm of H's diagonal, inf if H_FF
        is singular or has a negative eigenvalue; conjugate gradients, ‖b_F - H_FF z_F‖/‖b_F‖.
      accurate: whether the residual is small enough for the derivative to be given, `()`; it is NaN otherwise.

    Examples:
      See `reduced_solve`. A minimum that is not isolated has no derivative:

      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import minimize, reduced_solve
      >>> valley = lambda x: (x[0] - x[1]) ** 2
      >>> solve = reduced_solve(valley, minimize(valley, jnp.array([1.0, 0.0])), jnp.array([1.0, 0.0]))
      >>> print(solve.residual, solve.accurate)
      inf False
    """

    z: PyTree
    residual: Scalar
    accurate: Bool[Array, ""]


def reduced_solve(
    fun: Callable,
    result: Result,
    b: PyTree,
    args: Any = (),
    *,
    bounds: Any = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    linear_solver: str | None = None,
) -> ReducedSolve:
    """The solve H_FF z = b_F that the derivative of a minimizer takes, with its residual.

    H is the Hessian of fun at result.x, F are the variables strictly inside their bounds. In reverse mode b is the
    derivative of the loss by x; in forward mode -∂g/∂θ dθ.

    Args:
      fun, args, bounds, has_aux, value_and_grad, linear_solver: as given to `minimize`.
      result: what it returned.
      b: the right-hand side, in the structure and shapes of result.x.

    Returns:
      A `ReducedSolve`.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what was expected.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import minimize, reduced_solve
      >>> fun = lambda x: 2 * x[0] ** 2 + (x[1] - 3) ** 2
      >>> result = minimize(fun, jnp.ones(2), bounds=(None, 1.0))
      >>> solve = reduced_solve(fun, result, jnp.ones(2), bounds=(None, 1.0))
      >>> print(solve.z, solve.accurate)
      [0.25 0.  ] True

    References:
      Fiacco, Introduction to Sensitivity and Stability Analysis in Nonlinear Programming, Academic Press (1983), §3.2.
    """
    check_linear_solver(linear_solver)
    check_callable(fun)
    if not isinstance(result, Result):
        raise TypeError(f"result must be what minimize returned, got {type(result).__name__}")
    if jnp.ndim(result.status) > 0:
        raise ValueError("result must be that of one problem, got a batch; take jax.vmap of reduced_solve")
    shapes = jax.tree.map(jnp.shape, result.x)
    if jax.tree.map(jnp.shape, b) != shapes:
        raise ValueError(f"b must have the structure and shapes of result.x, {shapes}")
    b = jax.tree.map(jnp.asarray, b)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(b)):
        raise TypeError(f"b must hold real floating-point numbers, got {[str(x.dtype) for x in jax.tree.leaves(b)]}")
    lower, upper = check_bounds(bounds, result.x)
    args = check_args(args if isinstance(args, tuple) else (args,))
    objective, theta, _ = trace(fun, result.x, args, has_aux, value_and_grad)
    solver = implicit.linear_solver(linear_solver, result.x)
    x, unravel = ravel(result.x)
    box = None if lower is None else Box(ravel(lower)[0], ravel(upper)[0])
    low, high = implicit.held(x, ravel(result.grad)[0], box)
    free = ~(low | high)
    right = jnp.where(free, ravel(b)[0].astype(x.dtype), 0)
    matvec = implicit.reduced_hessian(lambda x: objective(theta, x)[1], x, free)
    z, residual = implicit.solve_and_judge(matvec, right, solver)
    return ReducedSolve(unravel(z), residual, residual <= solver.tolerance)
