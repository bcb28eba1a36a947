"""L-BFGS-B on one page: the solver asks for f and g at `state.x`, and `update` takes them.

    aim      xᶜ = generalized Cauchy point of the model,  x̄ = subspace minimum from xᶜ            BLNZ §4, §5; MN
    search   x + t (x̄ - x), t by Moré and Thuente                                                MT
    accept   s = Δx, y = Δg into the memory if sᵀy > ε (-gᵀs)                                      BLNZ §3

It never calls the objective. One `update` is one evaluation; there is no loop inside a loop, and a finished state
stays as it is whatever it is fed.

    state = init(x0, box, memory_size)
    while state.status == Status.RUNNING:
        state = update(state, *value_and_grad(state.x), box, options)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import dense, linesearch
from .box import Box, Scalar, Vector, project, projected_gradient, reach
from .cauchy import cauchy_point
from .linesearch import STEP_MAX
from .memory import Memory, count, empty, forget, write
from .model import dense as dense_matrix
from .model import model
from .status import Status
from .subspace import subspace_step, target


class Options(NamedTuple):
    """When to stop. Arrays or numbers, traced, so that a vmap may give each problem its own."""

    ftol: Scalar | float = 1e7 * 2.220446049250313e-16
    gtol: Scalar | float = 1e-5
    max_iterations: Int[Array, ""] | int = 15000
    max_evaluations: Int[Array, ""] | int = 15000
    max_linesearch: Int[Array, ""] | int = 20


class Iterate(NamedTuple):
    """The last accepted point."""

    x: Vector
    f: Scalar
    g: Vector


class State(NamedTuple):
    """All that a run knows between two evaluations."""

    # every evaluation
    x: Vector  # where f and g are wanted next
    search: Float[Array, " 18"]
    evaluations: Int[Array, ""]
    # every iteration
    iterate: Iterate
    target: Vector  # x̄, which step 1 of the search reaches
    memory: Memory
    iterations: Int[Array, ""]
    residual: Scalar  # max |P(x - g) - x|
    # once
    status: Int[Array, ""]


def init(x0: Vector, box: Box | None, memory_size: int) -> State:
    """The state that asks for f and g at P(x0)."""
    x = x0 if box is None else project(x0, box)
    zero, no = jnp.zeros((), x.dtype), jnp.zeros((), int)
    return State(
        x=x,
        search=jnp.zeros(linesearch.SIZE, x.dtype),
        evaluations=no,
        iterate=Iterate(x, zero, jnp.zeros_like(x)),
        target=x,
        memory=empty(len(x), memory_size, x.dtype),
        iterations=no,
        residual=jnp.full_like(zero, jnp.inf),
        status=no + Status.RUNNING,
    )


def update(state: State, f: Scalar, g: Vector, box: Box | None, options: Options) -> State:
    """The state after f and g at `state.x`."""
    # 1. What does the line search make of this point? Without a slope there is no search yet: the first point.
    iterate, running = state.iterate, state.status == Status.RUNNING
    search = linesearch.unpack(state.search)
    opening = search.start.slope == 0
    direction = state.target - iterate.x
    slope = g @ direction
    searched, accept = linesearch.advance(search, f, slope)
    finite = jnp.isfinite(f) & jnp.all(jnp.isfinite(g))
    accept = running & finite & (accept | opening)
    failed = running & ~accept & (searched.trials >= options.max_linesearch)
    stuck = failed & (state.memory.pushes == 0)

    # 2. The new iterate, and the pair it brings.
    s, y = search.step * direction, g - iterate.g
    sy = search.step * (slope - search.start.slope)
    curved = accept & (sy > jnp.finfo(x_dtype(state)).eps * -search.start.slope * search.step)
    memory = write(state.memory, s, y, curved)
    reduction = iterate.f - f
    scale = jnp.maximum(jnp.maximum(jnp.abs(iterate.f), jnp.abs(f)), 1)
    iterate = jax.tree.map(lambda new, old: jnp.where(accept, new, old), Iterate(state.x, f, g), iterate)
    iterations = state.iterations + (accept & ~opening).astype(int)
    evaluations = state.evaluations + running.astype(int)
    residual = jnp.where(accept, jnp.max(jnp.abs(_residual(iterate, box))), state.residual)

    # 3. Are we done?
    status = jnp.select(
        [
            ~running,
            opening & ~accept,
            stuck & ~finite,
            stuck,
            ~accept,
            ~opening & (iterations >= options.max_iterations),
            ~opening & (evaluations > options.max_evaluations),
            residual <= options.gtol,
            ~opening & (reduction <= options.ftol * scale),
        ],
        [
            state.status,
            Status.NON_FINITE,
            Status.NON_FINITE,
            Status.ABNORMAL,
            Status.RUNNING,
            Status.ITERATIONS,
            Status.EVALUATIONS,
            Status.GRADIENT,
            Status.REDUCTION,
        ],
        Status.RUNNING,
    ).astype(state.status.dtype)

    # 4. Where to aim next, and how far to go first.
    def aim():
        now = forget(count(memory, s, y, sy, curved), failed)
        goal, first, forgotten = _aim(iterate, now, box, iterations == 0)
        now = forget(now, forgotten)
        return goal, linesearch.pack(first), now.SS, now.SY, now.theta, now.pushes

    def stay():
        return state.target, linesearch.pack(searched), memory.SS, memory.SY, memory.theta, memory.pushes

    goal, packed, SS, SY, theta, pushes = jax.lax.cond((status == Status.RUNNING) & (accept | failed), aim, stay)
    search = linesearch.unpack(packed)
    status = jnp.where((status == Status.RUNNING) & ~(search.start.slope < 0), Status.ABNORMAL, status)
    d = goal - iterate.x
    x = jnp.where(search.step == 1, goal, iterate.x + search.step * d)
    if box is not None:
        met = search.step >= reach(iterate.x, d, box)
        x = jnp.where(met, jnp.where(d > 0, box.upper, box.lower), project(x, box))
    return State(
        x=jnp.where(status == Status.RUNNING, x, iterate.x),
        search=packed,
        evaluations=evaluations,
        iterate=iterate,
        target=goal,
        memory=memory._replace(SS=SS, SY=SY, theta=theta, pushes=pushes),
        iterations=iterations,
        residual=residual,
        status=status,
    )


def x_dtype(state: State) -> jnp.dtype:
    return state.x.dtype


def _residual(iterate: Iterate, box: Box | None) -> Vector:
    return -iterate.g if box is None else projected_gradient(iterate.x, iterate.g, box)


def _aim(
    iterate: Iterate, memory: Memory, box: Box | None, first: Bool[Array, ""]
) -> tuple[Vector, linesearch.Search, Bool[Array, ""]]:
    """The target x̄, the search that begins there, and whether the memory has to be forgotten."""
    x, f, g = iterate
    m, n = memory.YS.shape[1:]
    B = model(memory)
    if box is None:
        free = jnp.ones(n, bool)
        limits = Box(jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf))
    else:
        limits = box
    if n <= 2 * m:
        matrix = dense_matrix(B)
        cauchy, free = dense.cauchy_point(x, g, limits, matrix, memory.theta)
        free = free & (memory.pushes > 0)
        d = dense.subspace_step(x, g, cauchy, free, matrix)
        goal = target(x, g, cauchy, d, free, limits)
    else:
        point = cauchy_point(x, g, limits, B)
        point = point._replace(free=point.free & (memory.pushes > 0))
        d = subspace_step(x, g, point, B)
        goal = target(x, g, point.x, d, point.free, limits)
    slope = g @ (goal - x)
    forgotten = ~(slope < 0)
    goal = jnp.where(forgotten, project(x - g, limits), goal)
    d = goal - x
    slope = g @ d
    norm = jnp.sqrt(d @ d)
    constrained = jnp.any(jnp.isfinite(limits.lower) | jnp.isfinite(limits.upper))
    boxed = jnp.all(jnp.isfinite(limits.lower) & jnp.isfinite(limits.upper))
    farthest = jnp.where(
        constrained, jnp.where(first, 1, jnp.minimum(STEP_MAX, jnp.min(reach(x, d, limits)))), STEP_MAX
    ).astype(x.dtype)
    step = jnp.where(first & ~boxed, jnp.minimum(1 / norm, farthest), jnp.minimum(1, farthest))
    return goal, linesearch.begin(f, slope, step, farthest), forgotten


def step(value_and_grad: Callable, state: State, box: Box | None, options: Options) -> State:
    """The state after one evaluation of f and g = value_and_grad(state.x)."""
    return update(state, *value_and_grad(state.x), box, options)


def run(value_and_grad: Callable, state: State, box: Box | None, options: Options) -> State:
    """The state after all evaluations that it asks for."""
    return jax.lax.while_loop(
        lambda state: state.status == Status.RUNNING,
        lambda state: step(value_and_grad, state, box, options),
        state,
    )
