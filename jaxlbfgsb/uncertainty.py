"""The uncertainty of a fit, from the curvature at its end.

    least squares, residuals r       C = s² (J_FᵀJ_F)⁻¹,   J = ∂r/∂x,   s² = rᵀr / (N - |F|)
    negative log-likelihood, f       C = H_FF⁻¹,           H = ∂²f/∂x²

F are the variables strictly inside their bounds; N counts the rows in which r or J is not 0, the others being padding.
JᵀJ is never formed, for it has the square of J's condition: with the columns of J made 1 long, QR gives J_F = Q R D and
C = s² D⁻¹R⁻¹R⁻ᵀD⁻¹. Cost: N n².
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .argmin import Result, ravel
from .arguments import PyTree, check_bounds, check_callable, described, gathered, in_tuple


def covariance(
    fun: Callable, result: Result, args: Any = (), *, bounds: Any = None, in_axes: tuple[Any, Any] = (0, None)
) -> Float[Array, "... n n"]:
    """The covariance matrix of fitted parameters, by linearization at the fit.

    Of residuals r with the Jacobian J: s² (JᵀJ)⁻¹ over the free variables, s² = Σr² / (N - free), which is that of
    `scipy.optimize.curve_fit` with absolute_sigma=False. N is the number of residuals of which the value or a
    derivative is not 0: data padded with weight 0 do not count.

    Of a negative log-likelihood: the inverse of its Hessian. For errors σ that are known, give 0.5·Σ(r/σ)²: that is
    curve_fit's absolute_sigma=True, but for the second derivatives of r, which the Hessian has and JᵀJ has not.

    Args:
      fun: a function of x and args that returns one real array: the residuals, `(N,)` or of any shape, each divided by
        its own error or not, if a multiple of their sum of squares was minimized (the sum, half of it, the mean); or a
        negative log-likelihood, `()`. Not the model. Not a sum of squares either: without σ that is no likelihood.
      result: of `minimize`, or of `minimize_many` with its leading axis. What a mesh has spread over the devices of one
        process comes to the default device first; call it outside of jit, then, for inside nothing can be moved.
      args: as for the fit.
      bounds: as for the fit.
      in_axes: for (args, bounds) of a result with a leading axis: those of `minimize_many` but for x0's.

    Returns:
      `(n, n)`, in the units of the parameters, whose n numbers are in the order of `jax.tree.leaves(x)`; one a problem
      for a result with a leading axis. 0 for a variable at a bound. inf for all others if these are not determined: a
      singular matrix, no more residuals than free variables, a Hessian that is not positive definite, or a Jacobian or
      Hessian with NaN. NaN if residuals are NaN and their Jacobian is not. The square roots of the diagonal are the
      standard deviations.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what was expected.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import covariance, minimize
      >>> t, y = jnp.arange(4.0), jnp.array([1.1, 2.9, 5.1, 6.9])
      >>> residuals = lambda x: x[0] + x[1] * t - y
      >>> result = minimize(lambda x: jnp.sum(residuals(x) ** 2), jnp.zeros(2))
      >>> print(jnp.sqrt(jnp.diagonal(covariance(residuals, result))).round(4))
      [0.1058 0.0566]

    References:
      Seber, Wild, Nonlinear Regression, Wiley (1989), §2.1.2; NIST's StRD certifies the same deviations.
    """
    check_callable(fun)
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result, of minimize or minimize_many, got {type(result).__name__}")
    if not isinstance(in_axes, tuple) or len(in_axes) != 2:
        raise ValueError(f"in_axes must be a tuple of two, for args and bounds (x has its axis), got {in_axes!r}")
    if hasattr(bounds, "lb"):
        bounds = bounds.lb, bounds.ub
    args, in_axes = in_tuple(args, in_axes, 0)
    one = partial(_covariance, fun)
    x, args, bounds = jax.tree.map(gathered, (result.x, args, bounds))
    if jnp.ndim(result.status) == 0:
        return one(x, args, bounds)
    return jax.vmap(one, in_axes=(0, *in_axes))(x, args, bounds)


def _covariance(fun: Callable, x: PyTree, args: tuple, bounds: Any) -> Float[Array, "n n"]:
    lower, upper = check_bounds(bounds, x)
    point, unravel = ravel(x)
    free = jnp.ones(len(point), bool)
    if lower is not None:
        free = (point > ravel(lower)[0]) & (point < ravel(upper)[0])

    def flat(point: Float[Array, " n"]) -> Array:
        return jnp.asarray(fun(unravel(point), *args)).reshape(-1)

    shape = jax.eval_shape(lambda: fun(unravel(point), *args))
    if not isinstance(shape, jax.ShapeDtypeStruct) or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise TypeError(f"fun must return one real floating-point array, residuals or a scalar, got {described(shape)}")
    both = free[:, None] & free[None, :]
    root, known = (_of_likelihood if shape.shape == () else _of_residuals)(flat, point, free)
    return jnp.where(both, jnp.where(known, root.T @ root, jnp.inf), 0)


def _of_residuals(flat: Callable, x: Array, free: Bool[Array, " n"]) -> tuple[Array, Bool[Array, ""]]:
    """A root G of C = GᵀG over the free variables, and whether they are determined."""
    n, r, J = len(x), flat(x), jax.jacfwd(flat)(x)
    N = jnp.sum((r != 0) | jnp.any(J != 0, 1))  # without the padding; NaN is not 0
    J = jnp.where(free[None, :], J, 0)
    size = jnp.sqrt(jnp.sum(J**2, 0))
    size = jnp.where(size > 0, size, 1)
    fixed = jnp.where(free, 0, 1).astype(J.dtype)  # a row of its own for each that is fixed
    R = jnp.linalg.qr(jnp.concatenate([J / size[None, :], jnp.diag(fixed)]), mode="r")
    spare = N - jnp.sum(free)
    pivots = jnp.abs(jnp.diagonal(R))
    known = (spare > 0) & (jnp.min(pivots) > n * jnp.finfo(J.dtype).eps * jnp.max(pivots))
    s = jnp.sqrt(r @ r / jnp.maximum(spare, 1).astype(r.dtype))
    inverse = jax.scipy.linalg.solve_triangular(R, jnp.eye(n, dtype=R.dtype))
    return s * inverse.T / size[None, :], known


def _of_likelihood(flat: Callable, x: Array, free: Bool[Array, " n"]) -> tuple[Array, Bool[Array, ""]]:
    """The same for a negative log-likelihood."""
    H = jax.hessian(lambda x: flat(x)[0])(x)
    eye = jnp.eye(len(x), dtype=H.dtype)
    H = jnp.where(free[:, None] & free[None, :], H, eye)
    diagonal = jnp.diagonal(H)
    size = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    scaled = H / (size[:, None] * size[None, :])
    L = jnp.linalg.cholesky(scaled, symmetrize_input=False)  # NaN if not positive definite
    pivots = jnp.diagonal(L)
    known = (jnp.min(pivots) ** 2 > len(x) * jnp.finfo(H.dtype).eps) & jnp.all(diagonal > 0)
    return jax.scipy.linalg.solve_triangular(L, eye, lower=True) / size[None, :], known
