"""lbfgsb: the solver as an optax transformation; one step of a training loop is one evaluation.

    params ─▶ value, grads ─▶ update ─▶ params + updates        the point that the solver asks for, within rounding

The solver asks for x̂. What is evaluated is what the loop makes of it, fl(p + u) in each leaf's dtype: the u is looked
for whose sum is in the box and nearest to x̂. Where |x̂| is much less than |p|, or the dtype narrow, it misses x̂; the
solver is told where f and g really were, and its slopes and pairs are those of the step that was made.

A bound that is missed so is asked for again, at any step of the next search: p is then next to it and hits it, or
nearer, where the bound is tiny beside p. If the run has converged and there is no next search, more evaluations on the
way to the bound, mostly one, close it.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes
from jaxtyping import Array, Bool

from . import solver
from .argmin import opening
from .arguments import PyTree, check_memory_size, check_options, check_sides, ravel
from .box import Box, Scalar, Vector, projected_gradient
from .solver import Iterate, Options, State
from .status import Status

if TYPE_CHECKING:
    import optax

CALL = "call update(grads, state, params, value=value), with the value and the gradient of the loss at params"


class LbfgsbState(NamedTuple):
    """State of `lbfgsb`; `optax.tree.get(state, name)` reads it, also from inside a chain, masked or partition.

    Attributes:
      count: updates so far, `()`.
      value: f at the params that the last updates lead to, `()`: inf as long as that is yet to be evaluated, which
        tells `optax.value_and_grad_from_state` to do so. That at the last iterate accepted is `f`, of the solver.
      done: whether the run has ended and the last updates lead to the last iterate, `()`.
      grad: the gradient at the last iterate accepted, like params.
      astray: updates whose params were not where those before had led, `()`: above 0 if something changes them.
      gap: how far from the point that the solver asks for the last updates lead, `()`.
      missed: coordinates of these that were sent to a bound and ended next to it, `(n,)`.
      solver: the solver's own state, on flat vectors, with `f`, `iterations`, `evaluations`, `residual`, `status`.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from jaxlbfgsb import lbfgsb
      >>> state = optax.chain(lbfgsb(lower=0.0)).init(jnp.ones(2))
      >>> print(optax.tree.get(state, "evaluations"), optax.tree.get(state, "status"))
      0 0
    """

    # every evaluation
    count: Any  # an integer array; tuples have a method of this name, with another type
    value: Scalar
    done: Bool[Array, ""]
    astray: Any
    gap: Scalar
    # every iteration
    grad: PyTree
    missed: Bool[Array, " n"]
    # both
    solver: State


def lbfgsb(
    lower: PyTree = None, upper: PyTree = None, *, memory_size: int = 10, options: Options = Options()
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that minimizes over lower ≤ params ≤ upper by L-BFGS-B, with one evaluation a step.

    `update(grads, state, params, value=value)` takes the value and the gradient at params. Its updates are such that
    `optax.apply_updates(params, updates)` is inside the bounds, bit for bit, and is the point that `minimize` would
    evaluate next, or the nearest to it that such a sum can reach. It may be worse than the last: what only gets better
    is the iterates, those points that are accepted, and `best_params` has the last of them. When the run has ended the
    updates lead there, `is_done` holds, and later updates are zero.

    It has to be the last of an `optax.chain`, and what comes before it has to leave gradients as they are. Other
    keywords, as `grad` and `value_fn` of optax.lbfgs, are ignored. Params that begin outside the bounds are moved
    inside first, which may take some sums, and what is evaluated outside is not used; at NaN or inf a run ends at once.

    Args:
      lower, upper: each a prefix of params' tree with arrays that broadcast to its leaves, None or ±inf where there is
        none. Cast to the leaf's dtype, which makes the box.
      memory_size: how many pairs (Δx, Δg) the model of the Hessian remembers.
      options: when to stop; see `Options`.

    Returns:
      The pair (init, update). Params are any pytree of floating-point arrays; it computes in the widest dtype among
      them, at least float32. Values and gradients have to be those of one smooth function: no mini-batches.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message says what to pass.

    Examples:
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
        return _begin(params, _box(lower, upper, params), options, memory_size)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, LbfgsbState]:
        params, grads, value = _check_update(updates, state, params, value, memory_size)
        new = _update(params, grads, value, state, _box(lower, upper, params), options)
        return jax.tree.map(_placed, new, (params, state))

    return optax.GradientTransformationExtraArgs(init, update)


def is_done(state: PyTree) -> Bool[Array, ""]:
    """True when the run has ended and the params, with the last updates, are the best; all later updates are zero.

    Args:
      state: that of `lbfgsb`, or of a chain, masked or partition with it inside.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import is_done, lbfgsb
      >>> tx, x = lbfgsb(), jnp.zeros(2)
      >>> state = tx.init(x)
      >>> updates, state = tx.update(2 * x, state, x, value=jnp.sum(x**2))  # it began at the minimum
      >>> print(is_done(state))
      True
    """
    return jnp.asarray(_find(state).done)


def best_params(state: PyTree, params: PyTree) -> PyTree:
    """The best params so far: those of the last iterate that was accepted.

    Args:
      state: that of `lbfgsb`, or of a chain, masked or partition with it inside.
      params: as in the loop; frozen ones are taken from here.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import best_params, lbfgsb
      >>> tx, x = lbfgsb(), jnp.ones(2)
      >>> state = tx.init(x)
      >>> updates, state = tx.update(2 * x, state, x, value=jnp.sum(x**2))
      >>> print(best_params(state, x + updates))  # the new point is yet to be evaluated
      [1. 1.]
    """
    found = _find(state)
    best = _like(found.grad, found.solver.iterate.x)
    return jax.tree.map(lambda b, p: p if _is_masked(b) else b, best, params, is_leaf=_is_masked)


def _find(state: PyTree) -> LbfgsbState:
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, LbfgsbState))
    found = [node for node in leaves if isinstance(node, LbfgsbState)]
    if len(found) != 1:
        raise ValueError(
            f"state must hold that of one lbfgsb, got {len(found)}: pass what init or update of the optimizer returned"
        )
    return found[0]


# What init and update are given


def _check_params(params: PyTree) -> PyTree:
    """params with JAX arrays for leaves."""
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must be a real floating-point array, got {dtype}; "
                "freeze it with optax.masked or optax.partition"
            )
    params = jax.tree.map(jnp.asarray, params)
    if sum(leaf.size for leaf in jax.tree.leaves(params)) == 0:
        raise ValueError("params must hold at least one number, got an empty pytree")
    return params


def _check_update(
    grads: PyTree, state: Any, params: PyTree, value: Any, memory_size: int
) -> tuple[PyTree, PyTree, Scalar]:
    """params, grads and value as JAX arrays, params and grads like the params that init was given."""
    if not isinstance(state, LbfgsbState):
        raise ValueError(f"state must be what init or update returned, got {type(state).__name__}: {CALL}")
    if state.solver.memory.D.shape != (memory_size,):
        raise ValueError(f"state must be of memory_size {memory_size}, got {len(state.solver.memory.D)}: {CALL}")
    if params is None:
        raise ValueError(f"params are missing: {CALL}")
    if value is None:
        raise ValueError(f"value is missing: {CALL}")
    value = _array("value", value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"value must be a real floating-point scalar, got {value.dtype}{list(value.shape)}: {CALL}")
    params = _check_params(params)
    grads = jax.tree_util.tree_map_with_path(lambda at, g: _array(f"grads{jax.tree_util.keystr(at)}", g), grads)
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
    return params, grads, value


def _array(name: str, value: Any) -> Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be real floating-point numbers, got {type(value).__name__}: {CALL}") from None


def _box(lower: PyTree, upper: PyTree, params: PyTree) -> Box | None:
    """The bounds, cast to each leaf's dtype, on the flat vector; None if nothing is bounded."""
    lower, upper = _without_masked(lower, params), _without_masked(upper, params)
    lower, upper = check_sides(lower, upper, params, "params", "; jax.tree.map(lambda p: 0.0, params) makes one")
    return None if lower is None else Box(*(_flat(jax.tree.map(_compact, side)) for side in (lower, upper)))


def _flat(tree: PyTree) -> Vector:
    """The leaves as one vector, on each device where they are sharded over explicit axes."""
    meshes = [s.mesh for s in (jax.typeof(leaf).sharding for leaf in jax.tree.leaves(tree)) if _is_explicit(s)]
    if not meshes:
        return ravel(tree)[0]
    return auto_axes(out_sharding=NamedSharding(meshes[0], PartitionSpec()))(lambda tree: ravel(tree)[0])(tree)


def _is_masked(node: Any) -> bool:
    import optax

    return isinstance(node, optax.MaskedNode)


def _without_masked(bound: PyTree, params: PyTree) -> PyTree:
    """The bound, a prefix of params, with None for what is masked out of them."""
    if _is_masked(params):
        return None
    bounds, kind = jax.tree.flatten(bound, is_leaf=lambda part: part is not bound)
    parts, like = jax.tree.flatten(params, is_leaf=lambda part: part is not params)
    if kind != like or jax.tree_util.treedef_is_leaf(kind):
        return bound
    return jax.tree.unflatten(kind, map(_without_masked, bounds, parts))


def _compact(bound: Any) -> Array:
    """The bound as an array of JAX, made of the numbers given alone: a program holds each constant in full."""
    if isinstance(bound, np.ndarray):
        few = bound[tuple(slice(None) if stride else slice(1) for stride in bound.strides)]
        return jnp.broadcast_to(few, bound.shape)
    return bound


# Where the state lives


def _like(tree: PyTree, x: Vector) -> PyTree:
    """The numbers of x in the structure, dtypes and, over explicit axes, shardings of the tree."""
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, tree)
    if not any(map(_is_explicit, jax.tree.leaves(shardings))):
        return ravel(tree)[1](x)
    return auto_axes(out_sharding=shardings)(lambda tree, x: ravel(tree)[1](x))(tree, x)


def _layout(params: PyTree, state: LbfgsbState) -> LbfgsbState | None:
    """The sharding of each leaf of the state: vectors over all axes that params are sharded over, grad like params.

    None where params are not sharded, and inside jit over axes of the type Auto, which only the compiler knows.
    """
    place = [
        jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else leaf.sharding for leaf in jax.tree.leaves(params)
    ]
    named = [s for s in place if isinstance(s, NamedSharding) and not s.mesh.empty]
    if not named or (isinstance(jax.tree.leaves(params)[0], Tracer) and not _is_explicit(named[0])):
        return None
    mesh, (n,), axes = named[0].mesh, state.solver.x.shape, ()
    for axis in dict.fromkeys(jax.tree.leaves([tuple(s.spec) for s in named])):
        axes += (axis,) * (n % prod(mesh.shape[a] for a in (*axes, axis)) == 0)
    vector, scalar = ((*axes,),) if axes else (), NamedSharding(mesh, PartitionSpec())

    def sharding(leaf: Any) -> NamedSharding:
        spec = PartitionSpec(*[None] * (leaf.ndim - 1), *vector)
        return NamedSharding(mesh, spec) if leaf.shape[-1:] == (n,) else scalar

    grad = jax.tree.unflatten(jax.tree.structure(params), [s if s in named else scalar for s in place])
    return jax.tree.map(sharding, state)._replace(grad=grad)


def _placed(leaf: Array, like: Any) -> Array:
    """The leaf, outside of jit on the mesh that `like` is on: the compiler may have cut it up more finely."""
    sharding = None if isinstance(leaf, Tracer) else getattr(like, "sharding", None)
    return jax.device_put(leaf, sharding) if isinstance(sharding, NamedSharding) else leaf


def _is_explicit(sharding: Any) -> bool:
    return AxisType.Explicit in sharding.mesh.axis_types


# One step


def _begin(params: PyTree, box: Box | None, options: Options, memory_size: int) -> LbfgsbState:
    """The state before the first step, where the later ones will be."""

    def opened(params: PyTree, box: Box | None) -> LbfgsbState:
        x, _ = ravel(params)
        run = opening(x, box, options, memory_size)
        sound = jnp.all(jnp.isfinite(x))  # no sum leads from inf into the box
        run = run._replace(status=jnp.where(sound, run.status, jnp.asarray(Status.BAD_X0)))
        state = LbfgsbState(
            count=jnp.zeros((), int),
            value=jnp.full((), jnp.inf, x.dtype),
            done=(run.status != Status.RUNNING).astype(bool),  # typed, as later ones are
            astray=jnp.zeros((), int),
            gap=jnp.full((), jnp.inf, x.dtype),
            grad=jax.tree.map(jnp.zeros_like, params),
            missed=jnp.zeros(x.shape, bool),
            solver=run,
        )
        return jax.tree.map(jnp.copy, state)  # no buffer twice: whoever donates a state donates each leaf

    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, box))
    layout = _layout(params, jax.eval_shape(opened, *like))
    if layout is None:
        return opened(params, box)
    if _is_explicit(layout.count):
        return jax.jit(auto_axes(out_sharding=layout)(opened))(params, box)
    return jax.device_put(opened(params, box), layout)


@jax.jit
def _update(
    params: PyTree, grads: PyTree, value: Scalar, state: LbfgsbState, box: Box | None, options: Options
) -> tuple[PyTree, LbfgsbState]:
    """The updates and the state after them. Jitted, as JAX would compile each branch again in every step outside."""
    layout = _layout(params, state)
    if layout is not None:  # a solver is made of sums over all variables: the compiler places them
        step = auto_axes(out_sharding=(layout.grad, layout))(_step)
        return step(params, grads, value, state, box, options)
    return _step(params, grads, value, state, box, options)


def _step(
    params: PyTree, grads: PyTree, value: Scalar, state: LbfgsbState, box: Box | None, options: Options
) -> tuple[PyTree, LbfgsbState]:
    dtype = state.solver.x.dtype
    x, g = ravel(jax.tree.map(lambda p: _rounded(p.astype(dtype), p.dtype), params))[0], ravel(grads)[0]
    digits = ravel(jax.tree.map(lambda p: jnp.full(p.shape, jnp.finfo(p.dtype).eps, dtype), params))[0]
    off = ~(jnp.max(jnp.abs(x - state.solver.x)) - jnp.max(digits) * jnp.max(jnp.abs(x)) <= state.gap)
    run, missed = _advance(
        state.solver, state.missed, x, value.astype(dtype), g.astype(dtype), off, digits, box, options
    )
    updates, gap = _reach(params, run.x, box)
    updates = jax.tree.map(lambda u: jnp.where(state.done, jnp.zeros_like(u), u), updates)
    arrived = (gap == 0) & jnp.all(run.x == run.iterate.x)
    still = jnp.all(ravel(updates)[0] == 0)  # no sum is nearer, as where the difference is too small for its dtype
    done = (run.status != Status.RUNNING) & (arrived | still | off)
    value = jnp.where(done, run.iterate.f, jnp.inf)
    best = ~state.done & jnp.all(run.iterate.x == x)
    grad = jax.tree.map(lambda new, was: jnp.where(best, new.astype(was.dtype), was), grads, state.grad)
    astray = state.astray + (off & ~state.done).astype(state.astray.dtype)
    return updates, LbfgsbState(state.count + 1, value, done, astray, gap, grad, missed, run)


def _advance(
    run: State,
    missed: Bool[Array, " n"],
    x: Vector,
    f: Scalar,
    g: Vector,
    off: Bool[Array, ""],
    digits: Vector,
    box: Box | None,
    options: Options,
) -> tuple[State, Bool[Array, " n"]]:
    """The solver's state after f and g at x, and the coordinates of its iterate that missed their bound."""
    if box is None:
        return solver.update(run, f, g, None, options, x), missed
    running, inside = run.status == Status.RUNNING, jnp.all((box.lower <= x) & (x <= box.upper))
    fed = run._replace(status=jnp.where(inside, run.status, jnp.asarray(Status.REDUCTION)))  # an ended state stays
    new = solver.update(fed, f, g, box, options, x)

    lost = running & ~inside & off  # whatever changes the updates led outside: it would do so for ever

    # A bound that the iterate missed is asked for until the model leaves it: by the next search, or after the end.
    sent = (run.x == box.lower) | (run.x == box.upper)
    missed = jnp.where(new.iterations > run.iterations, sent & (x != run.x), missed)
    old = new.iterate
    bound = jnp.where(old.x - box.lower <= box.upper - old.x, box.lower, box.upper)
    ahead = jnp.where(missed & (new.target == bound), bound, new.x)

    # So is, at the end, one that an active variable came as near to as its digits let a shortened step come.
    short = jnp.isfinite(bound) & (old.g * (old.x - bound) > 0)
    short &= jnp.abs(old.x - bound) <= 2 * digits * jnp.maximum(jnp.abs(old.x), jnp.abs(bound))
    ahead = jnp.where(short & (new.status != Status.RUNNING), bound, ahead)

    # After the end: the step onto such bounds lowers f or changes it by rounding, unless f is not smooth there.
    closing = ~running & jnp.all(x == run.x) & jnp.any(x != old.x)
    residual = jnp.max(jnp.abs(projected_gradient(x, g, box)))
    rounding = jnp.finfo(f.dtype).eps ** 0.75 * jnp.maximum(jnp.abs(old.f), 1)
    hit = closing & (f - old.f <= rounding) & jnp.isfinite(residual)
    iterate = Iterate(*(jnp.where(hit, here, was) for here, was in zip((x, f, g), old, strict=True)))
    return new._replace(
        x=jnp.where(running & inside, ahead, jnp.where(closing | lost, iterate.x, run.x)),
        iterate=iterate,
        residual=jnp.where(hit, residual, new.residual),
        evaluations=new.evaluations + closing.astype(new.evaluations.dtype),
        status=jnp.where(lost, jnp.asarray(Status.ABNORMAL), jnp.where(inside, new.status, run.status)),
    ), missed


def _reach(params: PyTree, asked: Vector, box: Box | None) -> tuple[PyTree, Scalar]:
    """The updates that lead as near to the point asked for as params + updates can, and how far from it that is."""
    leaves, structure = jax.tree.flatten(params)
    _, parts = ravel([leaf.astype(asked.dtype) for leaf in leaves])
    far = jnp.full_like(asked, jnp.inf)
    low, high = (-far, far) if box is None else box
    steps = list(map(_step_to, leaves, parts(asked), parts(low), parts(high)))
    distance = jnp.max(jnp.stack([jnp.max(miss, initial=0) for _, miss in steps]))
    return jax.tree.unflatten(structure, [step for step, _ in steps]), distance


def _step_to(p: Array, asked: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The u, in p's dtype, whose fl(p + u) in [low, high] is nearest to `asked`, and how far from it that is.

    The u nearest to asked - p may leave [low, high] by its own rounding or by that of the sum; a neighbour does not.
    """
    start = _rounded(p.astype(asked.dtype), p.dtype)

    def tried(step: Array) -> tuple[Array, Array]:
        end = _rounded(start + step.astype(asked.dtype), p.dtype)  # with twice the digits as if rounded once
        return step, jnp.where((low <= end) & (end <= high), jnp.abs(end - asked), jnp.inf)

    def nearer(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.where(b[1] < a[1], b[0], a[0]), jnp.minimum(a[1], b[1])

    most = jnp.asarray(jnp.finfo(p.dtype).max, asked.dtype)  # from inf no sum leads back
    u = jnp.clip(jnp.clip(asked, -most, most) - start, -most, most)
    u = _rounded(u, p.dtype).astype(p.dtype)
    return reduce(nearer, map(tried, (u, jnp.nextafter(u, jnp.inf), jnp.nextafter(u, -jnp.inf))))


def _rounded(z: Array, dtype: jnp.dtype) -> Array:
    """z with the digits of a narrower dtype, in its own: XLA may leave out a cast there and back."""
    kind = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(z, kind.nexp, kind.nmant)  # below tiny this is 0
    if kind.nexp >= jnp.finfo(jnp.float32).nexp:  # where sums are 0 there too
        return rounded
    tiny, least = (jnp.asarray(number, z.dtype) for number in (kind.tiny, kind.smallest_subnormal))
    return jnp.where(jnp.abs(z) < tiny, jnp.round(z / least) * least, rounded)
