"""lbfgsb: the solver as an optax transformation; one step of a training loop is one evaluation.

    params ─▶ value, grads ─▶ update ─▶ params + updates        the point that the solver asks for, within rounding

The solver asks for x̂. What is evaluated is what the loop makes of it, fl(p + u) in each leaf's dtype: the u is looked
for whose sum is inside the box and nearest to x̂. Where |x̂| is much less than |p|, or the dtype narrow, it may miss x̂;
the solver is told where f and g really were, so that slopes and pairs are those of the step that was made.

A bound that is missed by such rounding is hit by the next step, as p is then next to it. If there is no next step, the
run having converged, one more evaluation, at the bound, closes it.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from . import linesearch, solver
from .argmin import ravel
from .arguments import check_memory_size, check_options, check_sides, traced_status
from .box import Box, Scalar, Vector
from .solver import Options, State, continue_from
from .status import Status

if TYPE_CHECKING:
    import optax


class LbfgsbState(NamedTuple):
    """State of `lbfgsb`. `optax.tree.get(state, name)` reads it, also inside chain, masked and the like.

    Attributes:
      count: updates so far, `()`.
      value: f at the params that the last updates lead to, `()`: inf while it waits to be evaluated, so
        `optax.value_and_grad_from_state` evaluates it; at the end the least. The least so far is `f`, of the solver.
      grad: the gradient at the best accepted params, like params.
      missed: coordinates of these that were sent to a bound and ended next to it, `(n,)`.
      solver: the solver's own state, on flat vectors: with `status`, `iterations`, `evaluations`, `residual`, `f`.
    """

    # every evaluation
    count: Int[Array, ""]
    value: Scalar
    # every iteration
    grad: PyTree
    missed: Bool[Array, " n"]
    # both
    solver: State


def lbfgsb(
    lower: PyTree = None, upper: PyTree = None, *, memory_size: int = 10, options: Options = Options()
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that minimizes over lower ≤ params ≤ upper, by L-BFGS-B, one evaluation a step.

    `update(grads, state, params, value=value)` takes the value and gradient at params and returns updates for which
    `optax.apply_updates(params, updates)` is inside the bounds, bit for bit, and is what `minimize` would evaluate next
    or the nearest point to it that can be reached so. It may be worse than the last: `best_params` has the best so far.
    When the run has ended (`is_done`) the updates lead there, and are zero from then on.

    It has to be the last of an `optax.chain`, and what comes before it has to leave gradients as they are. Extra
    keywords, as `grad` and `value_fn` of optax.lbfgs, are ignored. Params that begin outside the bounds are first moved
    inside, and what was evaluated outside is not used.

    Args:
      lower, upper: each a prefix of params' tree with arrays that broadcast to its leaves, None or ±inf where there is
        none. Cast to the leaf's dtype, which makes the box. Bounds of frozen parameters are left out.
      memory_size: how many pairs (Δx, Δg) the model of the Hessian remembers.
      options: when to stop; see `Options`.

    Returns:
      The pair (init, update). Params are any pytree of floating-point arrays; it computes in the widest dtype among
      them, at least float32. Values and gradients have to be those of one smooth function: no mini-batches.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what to pass.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from jaxlbfgsb import is_done, lbfgsb
      >>> loss = lambda x: jnp.sum((x - 2.0) ** 2)
      >>> tx, x = lbfgsb(upper=jnp.array([1.0, 3.0])), jnp.zeros(2)
      >>> state = tx.init(x)
      >>> while not is_done(state):
      ...     value, grads = jax.value_and_grad(loss)(x)
      ...     updates, state = tx.update(grads, state, x, value=value)
      ...     x = optax.apply_updates(x, updates)
      >>> print(x)
      [1. 2.]

    References:
      those of `minimize`.
    """
    import optax  # here, because it takes a second to load

    memory_size, options = check_memory_size(memory_size), check_options(options)

    def init(params: PyTree) -> LbfgsbState:
        params = _check_params(params)
        box = _box(lower, upper, params)
        x, _ = ravel(params)
        start = solver.init(x, box, memory_size)
        status = traced_status(x, box, options)
        begin = jnp.where(status == Status.RUNNING, start.x, x)  # with bounds that cross there is no projection
        start = start._replace(x=begin, iterate=start.iterate._replace(x=begin), status=status)
        value = jnp.full((), jnp.inf, x.dtype)
        return LbfgsbState(jnp.zeros((), int), value, jax.tree.map(jnp.zeros_like, params), x != x, start)

    def update(
        updates: PyTree, state: LbfgsbState, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, LbfgsbState]:
        params, grads, value = _check_update(updates, state, params, value)
        box = _box(lower, upper, params)
        (x, unravel), (g, _) = ravel(params), ravel(grads)
        run, missed = _advance(state.solver, state.missed, x, value.astype(x.dtype), g.astype(x.dtype), box, options)
        updates, exact = _reach(params, _asked(run, missed, box), box)
        known = jnp.where((run.status != Status.RUNNING) & exact, run.iterate.f, jnp.inf)
        return updates, LbfgsbState(state.count + 1, known, unravel(run.iterate.g), missed, run)

    return optax.GradientTransformationExtraArgs(init, update)


def is_done(state: PyTree) -> Bool[Array, ""]:
    """True when the run has ended: params are the best found as soon as the updates are applied, and stay so.

    Args:
      state: that of `lbfgsb`, or of a chain, masked or partition with it inside; of several, all have ended.
    """
    return jnp.all(jnp.stack([found.solver.status != Status.RUNNING for found in _find(state)]))


def best_params(state: PyTree, params: PyTree) -> PyTree:
    """The params with all that `lbfgsb` moves where f was least so far: at the last iterate it accepted.

    Args:
      state: that of `lbfgsb`, or of a chain, masked or partition with it inside.
      params: as in the loop; frozen ones are taken from here.
    """
    for found in _find(state):
        best = ravel(found.grad)[1](found.solver.iterate.x)
        params = jax.tree.map(lambda b, p: p if _is_masked(b) else b, best, params, is_leaf=_is_masked)
    return params


def _find(state: PyTree) -> list[LbfgsbState]:
    is_ours = lambda node: isinstance(node, LbfgsbState)
    found = [node for node in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(node)]
    if not found:
        raise ValueError("state must hold that of lbfgsb: pass what init or update of the optimizer returned")
    return found


# What update is given


def _is_masked(node: Any) -> bool:
    import optax

    return isinstance(node, optax.MaskedNode)


def _check_params(params: PyTree) -> PyTree:
    """params with JAX arrays for leaves."""
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must be a real floating-point array, got {dtype}; "
                "leave it out, with optax.masked or optax.partition"
            )
    params = jax.tree.map(jnp.asarray, params)
    if sum(leaf.size for leaf in jax.tree.leaves(params)) == 0:
        raise ValueError("params must hold at least one number, got an empty pytree")
    return params


def _check_update(grads: PyTree, state: LbfgsbState, params: PyTree, value: Any) -> tuple[PyTree, PyTree, Scalar]:
    call = "pass update(grads, state, params, value=value), the value and grads being those at params"
    if params is None:
        raise ValueError(f"params are missing: {call}")
    if value is None:
        raise ValueError(f"value is missing: {call}")
    if not isinstance(state, LbfgsbState):
        raise ValueError(f"state must be what init or update returned, got {type(state).__name__}: {call}")
    params, value = _check_params(params), jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"value must be a real floating-point scalar, got {value.dtype}{list(value.shape)}: {call}")
    for name, tree in ("params", params), ("grads", grads):
        if jax.tree.structure(tree) != jax.tree.structure(state.grad):
            raise ValueError(
                f"{name} must have the structure that init was given, {jax.tree.structure(state.grad)}, "
                f"got {jax.tree.structure(tree)}"
            )
        for (path, leaf), like in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(state.grad), strict=True):
            kind = leaf.dtype == like.dtype if name == "params" else jnp.issubdtype(leaf.dtype, jnp.floating)
            if leaf.shape != like.shape or not kind:
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)} must be as init was given it, {like.dtype}{list(like.shape)}, "
                    f"got {leaf.dtype}{list(leaf.shape)}"
                )
    return params, jax.tree.map(jnp.asarray, grads), value


def _box(lower: PyTree, upper: PyTree, params: PyTree) -> Box | None:
    """The bounds, cast to each leaf's dtype, on the flat vector; None if nothing is bounded."""
    lower, upper = check_sides(*(_without_masked(side, params) for side in (lower, upper)), params, "params")
    return None if lower is None else Box(*(ravel(jax.tree.map(_compact, side))[0] for side in (lower, upper)))


def _without_masked(bound: PyTree, params: PyTree) -> PyTree:
    """The bound with None for what is masked out of params, where it has their structure; else as it is."""
    try:
        return jax.tree.map(lambda p, b: None if _is_masked(p) else b, params, bound, is_leaf=_is_masked)
    except ValueError:
        return bound


def _compact(bound: Any) -> Array:
    """The bound as an array of JAX, that is made of the numbers given: a program keeps every constant it is made of."""
    if isinstance(bound, np.ndarray):
        few = bound[tuple(slice(None) if stride else slice(1) for stride in bound.strides)]
        return jnp.broadcast_to(few, bound.shape)
    return bound


# One step


def _advance(
    run: State, missed: Bool[Array, " n"], x: Vector, f: Scalar, g: Vector, box: Box | None, options: Options
) -> tuple[State, Bool[Array, " n"]]:
    """The solver's state after f and g at x, and the coordinates of its iterate that missed their bound."""
    if box is None:
        return solver.update(run, f, g, None, options, x), missed
    old, asked = run.iterate, _asked(run, missed, box)
    running = (run.status == Status.RUNNING) & jnp.all((box.lower <= x) & (x <= box.upper))  # else x is brought inside
    closing = running & (run.evaluations > 0) & (linesearch.unpack(run.search).start.slope == 0)
    ftol, _ = options.tolerances(f.dtype)
    worse = closing & ~(f - old.f <= ftol * jnp.maximum(jnp.abs(old.f), 1))  # as where f is NaN on the bound
    fed = run._replace(status=jnp.where(running & ~worse, run.status, jnp.asarray(Status.REDUCTION)))
    new = solver.update(fed, f, g, box, options, x)
    status = jnp.where(closing & (new.status == Status.RUNNING), jnp.asarray(Status.REDUCTION), new.status)
    status = jnp.where(running, status, run.status)
    accepted = running & jnp.all(new.iterate.x == x)
    aimed = accepted & (run.evaluations > 0)
    missed = jnp.where(aimed, ((asked == box.lower) | (asked == box.upper)) & (x != asked), missed)

    # The end, but not on a bound that was asked for: close it there, if there is a step from here.
    bound = _near(x, box)
    active = missed & (x != old.x) & jnp.where(bound == box.lower, g > 0, g < 0)
    short = accepted & (status != Status.RUNNING) & (status <= Status.EVALUATIONS) & jnp.any(active)
    again = continue_from(new._replace(status=jnp.where(short, status, jnp.asarray(Status.RUNNING))), box)
    ended = jnp.where(status == Status.RUNNING, new.x, new.iterate.x)
    return again._replace(
        x=jnp.where(short, jnp.where(active, bound, x), jnp.where(running, ended, run.x)),
        status=jnp.where(short, jnp.asarray(Status.RUNNING), status),
        evaluations=run.evaluations + running.astype(run.evaluations.dtype),
    ), missed


def _asked(run: State, missed: Bool[Array, " n"], box: Box | None) -> Vector:
    """Where f and g are wanted next: `run.x`, but on the bounds that the iterate missed and is sent to again."""
    if box is None:
        return run.x
    bound = _near(run.iterate.x, box)
    return jnp.where(missed & (run.target == bound) & (run.status == Status.RUNNING), bound, run.x)


def _near(x: Vector, box: Box) -> Vector:
    """The nearer bound."""
    return jnp.where(x - box.lower <= box.upper - x, box.lower, box.upper)


def _reach(params: PyTree, asked: Vector, box: Box | None) -> tuple[PyTree, Bool[Array, ""]]:
    """The updates that lead as near to the point asked for as params + updates can, and whether they lead to it."""
    leaves, structure = jax.tree.flatten(params)
    _, parts = ravel([leaf.astype(asked.dtype) for leaf in leaves])
    far = jnp.full_like(asked, jnp.inf)
    low, high = (-far, far) if box is None else box
    steps = list(map(_step_to, leaves, parts(asked), parts(low), parts(high)))
    exact = jnp.all(jnp.stack([jnp.all(miss == 0) for _, miss in steps]))
    return jax.tree.unflatten(structure, [step for step, _ in steps]), exact


def _step_to(p: Array, asked: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The u, in p's dtype, whose fl(p + u) in [low, high] is nearest to `asked`, and how far from it that is.

    The u nearest to asked - p may leave [low, high] by its own rounding or by that of the sum; a neighbour does not.
    """
    kind = jnp.finfo(p.dtype)

    def rounded(z: Array) -> Array:
        # Not a cast there and back, which XLA may leave out. With twice the digits the sum is rounded as if once.
        return jax.lax.reduce_precision(z, kind.nexp, kind.nmant)

    def tried(step: Array) -> tuple[Array, Array]:
        end = rounded(p.astype(asked.dtype) + step.astype(asked.dtype))
        return step, jnp.where((low <= end) & (end <= high), jnp.abs(end - asked), jnp.inf)

    def nearer(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.where(b[1] < a[1], b[0], a[0]), jnp.minimum(a[1], b[1])

    u = rounded(asked - p.astype(asked.dtype)).astype(p.dtype)
    return reduce(nearer, map(tried, (u, jnp.nextafter(u, jnp.inf), jnp.nextafter(u, -jnp.inf))))
