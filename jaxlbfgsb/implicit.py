"""The derivative of the solution x(θ, l, u) by the implicit function theorem: no iteration is differentiated.

    A: at a bound      dx_A = dl_A or du_A, the derivative of the bound that holds it
    F: between them    H_FF dx_F = -(∂g_F/∂θ dθ + H_FA dx_A)                               Fiacco (1983), §3.2
    value              df = ∂f/∂θ dθ + g_A dx_A, with g_F = 0

f, g and H are those of the objective at x. A variable at a bound is held whatever its multiplier |g_i|; where that is
zero the derivative is one-sided, and `Result.degenerate` says so.

The linear system is solved once for a tangent or a cotangent, densely up to DENSE variables (n products with H, then
Cholesky on the matrix scaled to a diagonal of ones), else by conjugate gradients. What missed its tolerance is NaN.

Fiacco, Introduction to Sensitivity and Stability Analysis in Nonlinear Programming, Academic Press (1983).
Facchinei, Fischer, Kanzow, SIAM J. Optim. 9 (1998).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import zero_from_primal
from jax.dtypes import float0
from jax.scipy.linalg import cho_solve
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, PyTree

from .box import Box, Scalar, Vector
from .status import Status

DENSE = 2048  # variables: beyond, n products with H and n² numbers cost more than conjugate gradients
CHUNK = 256  # products with H at a time
MOST = 10_000  # iterations of conjugate gradients


class LinearSolver(NamedTuple):
    """How the system is solved, and to which precision the products with H are known."""

    dense: bool
    eps: float

    @property
    def tolerance(self) -> float:
        """The largest relative residual of a solve that is taken."""
        # Dense: of the preconditioned system, where it is the error of z. CG: the error may be as many times larger as
        # the condition number is; much less can't be reached in rounded arithmetic at condition 1e6.
        return self.eps ** (3 / 8 if self.dense else 5 / 8)


def linear_solver(method: str | None, x0: PyTree) -> LinearSolver:
    """That of an argument `linear_solver`, for parameters like x0, whose narrowest leaf limits the precision."""
    leaves = jax.tree.leaves(x0)
    eps = max((float(jnp.finfo(leaf.dtype).eps) for leaf in leaves), default=1.0)
    return LinearSolver(method == "dense" or (method is None and sum(leaf.size for leaf in leaves) <= DENSE), eps)


def tangent(objective: Callable, solver: LinearSolver, at: tuple, along: tuple, found: Any) -> Any:
    """What a solve has `found`, (x, f, g, aux) of it being vectors, as derivative along (dθ, dbox) at (θ, box)."""
    (theta, box), (dtheta, dbox) = at, along
    x = found.x
    low, high = held(x, found.grad, box)
    free, dheld = ~(low | high), jnp.zeros_like(x)
    if box is not None:
        dheld = jnp.where(low, dbox.lower, jnp.where(high, dbox.upper, 0))
    (df, _), r = _derivative(objective, (theta, x), (dtheta, dheld))
    dx = dheld + _solve(lambda x: objective(theta, x)[1], x, free, -r, solver)
    bad = found.status >= Status.NON_FINITE  # ends at which nothing is known
    dx, df = _unless(bad, dx), _unless(bad, df)
    (_, daux), dg = _derivative(objective, (theta, x), (dtheta, dx))
    return jax.tree.map(zero_from_primal, found)._replace(x=dx, fun=df, grad=dg, aux=daux)


def held(x: Vector, g: Vector, box: Box | None) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Which variables their lower bound holds, and which their upper; one that is fixed, the one that g presses on."""
    if box is None:
        return jnp.zeros(len(x), bool), jnp.zeros(len(x), bool)
    low, high = x <= box.lower, x >= box.upper
    return low & ~(high & (g < 0)), high & ~(low & (g >= 0))


def degenerate(x: Vector, g: Vector, residual: Scalar, box: Box | None) -> Bool[Array, ""]:
    """Whether some variable is at a bound, or too near to tell, with a multiplier |g_i| too small to tell from zero."""
    if box is None:
        return jnp.zeros_like(residual, bool)
    little = jnp.finfo(x.dtype).eps ** 0.5
    near = jnp.minimum(x - box.lower, box.upper - x) <= jnp.maximum(residual, little * jnp.abs(x))
    # An error e of x_F leaves one of H_AF e in g_A, far above the residual H_FF e perhaps, but not above its root for
    # long: Facchinei, Fischer and Kanzow's way to know the active set.
    weak = jnp.abs(g) <= jnp.maximum(jnp.sqrt(residual), little * jnp.max(jnp.abs(g)))
    return jnp.any(near & weak & (box.lower < box.upper))


def _derivative(function: Callable, at: tuple, along: tuple) -> PyTree:
    """That of a function at a point along a direction: jax.jvp's, but transposed it is 0 where nothing is asked for.

    There jax.jvp multiplies, and with 0 × NaN a fit that failed would spoil a sum that leaves it out. As the solution
    (along, D along) of [[I, 0], [-D, I]] [p, q] = [along, 0] the transpose is ours to write.
    """
    t = _vector(along)

    def moved(t: Vector) -> PyTree:
        return jax.jvp(function, at, _tree(along, t))[1]

    def derivative(t: Vector) -> Vector:
        return _vector(moved(t))

    k, rest = len(t), jax.eval_shape(derivative, t)

    def matvec(pq: Vector) -> Vector:
        return jnp.concatenate([pq[:k], pq[k:] - derivative(pq[:k])])

    def solve(_: Callable, b: Vector) -> Vector:
        return jnp.concatenate([b[:k], b[k:] + derivative(b[:k])])

    def transposed(vecmat: Callable, b: Vector) -> Vector:
        asked = b.at[:k].set(0)
        return jnp.where(jnp.any(asked != 0), b - (vecmat(asked) - asked), b)

    b = jnp.concatenate([t, jnp.zeros(rest.shape, rest.dtype)])
    return _tree(jax.eval_shape(moved, t), jax.lax.custom_linear_solve(matvec, b, solve, transposed)[k:])


def _vector(tree: PyTree) -> Vector:
    """All that is real or complex in a tree of tangents, as one real vector."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != float0]
    parts = [part for leaf in leaves for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))]
    dtype = max([part.dtype for part in parts], key=lambda dtype: (dtype.itemsize, dtype.name))
    return jnp.concatenate([part.astype(dtype).reshape(-1) for part in parts])


def _tree(like: PyTree, vector: Vector) -> PyTree:
    """The tree of tangents that became this vector."""
    start = 0

    def real(shape: tuple, dtype: Any) -> Array:
        nonlocal start
        start, stop = start + math.prod(shape), start
        return vector[stop:start].reshape(shape).astype(dtype)

    def leaf(like: Any) -> Any:
        if like.dtype == float0:
            return np.zeros(like.shape, float0)
        if not jnp.issubdtype(like.dtype, jnp.complexfloating):
            return real(like.shape, like.dtype)
        part = jnp.finfo(like.dtype).dtype
        return jax.lax.complex(real(like.shape, part), real(like.shape, part))

    return jax.tree.map(leaf, like)


def _solve(gradient: Callable, x: Vector, free: Bool[Array, " n"], b: Vector, solver: LinearSolver) -> Vector:
    """z with H_FF z_F = b_F, H = ∂g/∂x, and 0 elsewhere; NaN if the solve missed its tolerance."""

    def solve(matvec: Callable, b: Vector) -> Vector:
        z, residual = solve_and_judge(matvec, b, solver)
        return jnp.where(residual <= solver.tolerance, z, jnp.nan)

    return jax.lax.custom_linear_solve(reduced_hessian(gradient, x, free), jnp.where(free, b, 0), solve, symmetric=True)


def _unless(bad: Bool[Array, ""], tangent: Array) -> Array:
    """The tangent; NaN if bad, unless it is zero: as a linear function, so that a cotangent too becomes NaN."""

    def same(_: Callable, b: Array) -> Array:
        return jnp.where(bad & jnp.any(b != 0), jnp.nan, b)

    return jax.lax.custom_linear_solve(lambda v: v, tangent, same, symmetric=True)


def reduced_hessian(gradient: Callable, x: Vector, free: Bool[Array, " n"]) -> Callable[[Vector], Vector]:
    """v ↦ H_FF v_F, and v elsewhere."""
    # Reverse over reverse, for an objective may have a custom_vjp; once, for the products that all begin with it.
    transposed = jax.vjp(gradient, x)[1]
    return lambda v: jnp.where(free, transposed(jnp.where(free, v, 0))[0], v)


def solve_and_judge(matvec: Callable, b: Vector, solver: LinearSolver) -> tuple[Vector, Scalar]:
    """z with A z = b, A being positive definite, and its relative residual; b = 0 asks nothing of A."""
    size = jnp.max(jnp.abs(b), initial=0)
    nothing = size == 0
    solve = _dense if solver.dense else _conjugate_gradients
    z, residual = solve(matvec, b / jnp.where(nothing, 1, size), solver)  # of size one: its square is a number too
    return jnp.where(nothing, 0, size * z), jnp.where(nothing, 0, residual)


def _dense(matvec: Callable, b: Vector, solver: LinearSolver) -> tuple[Vector, Scalar]:
    """By Cholesky, refined once. The residual is that of M⁻¹A z = M⁻¹b with M the factorized A: the error of z."""
    n = len(b)
    A = jax.lax.map(matvec, jnp.eye(n, dtype=b.dtype), batch_size=CHUNK)
    diagonal = jnp.diagonal(A)
    scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1))
    L = jnp.linalg.cholesky(A * scale[:, None] * scale[None, :])  # NaN if not positive definite
    sound = jnp.min(jnp.diagonal(L)) ** 2 > n * solver.eps  # else it is singular, as far as can be told

    def norm(z: Vector) -> Scalar:
        return jnp.linalg.norm(z / scale)

    z = scale * cho_solve((L, True), scale * b)
    correction = scale * cho_solve((L, True), scale * (b - matvec(z)))
    residual = norm(correction) / jnp.where(norm(z) == 0, 1, norm(z))
    return z + correction, jnp.where(sound, residual, jnp.inf)


def _conjugate_gradients(matvec: Callable, b: Vector, solver: LinearSolver) -> tuple[Vector, Scalar]:
    """By conjugate gradients, begun again where rounding has led the residual that they update astray."""
    size, goal = jnp.linalg.norm(b), solver.tolerance / 2
    z, _ = cg(matvec, b, tol=goal, maxiter=MOST)
    z = z + cg(matvec, b - matvec(z), tol=0.0, atol=goal * size, maxiter=MOST)[0]
    residual = jnp.linalg.norm(b - matvec(z)) / jnp.where(size == 0, 1, size)
    return z, jnp.where(z @ b > 0, residual, jnp.inf)  # zᵀA z > 0, or A is not positive definite
