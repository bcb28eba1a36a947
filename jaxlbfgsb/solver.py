"""L-BFGS-B on one page: the solver asks for f and g at `state.x`, and `update` takes them.

    aim      xᶜ = generalized Cauchy point of the model,  x̄ = its minimum over the variables free at xᶜ  BLNZ §4, §5; MN
    search   x + t (x̄ - x), t by Moré and Thuente                                                       MT
    accept   s = Δx, y = Δg go into the memory if sᵀy > -ε gᵀs                                            BLNZ §3

It never calls the objective. One `update` takes one evaluation; there is no loop inside a loop, and a finished state
stays as it is whatever it is fed.

    state = init(x0, box, memory_size)
    while state.status == Status.RUNNING:
        state = update(state, *value_and_grad(state.x), box, options)

BLNZ: Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16 (1995). MN: Morales, Nocedal, ACM TOMS 38 (2011).
MT: Moré, Thuente, ACM TOMS 20 (1994).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from . import cauchy, dense, inverse, linesearch, partition, subspace
from .box import Box, Scalar, Vector, project, projected_gradient, reach
from .linesearch import STEP_MAX, Search
from .memory import Inverse, Memory, count, empty, forget, write
from .model import model
from .status import Status


class Options(NamedTuple):
    """When to stop: SciPy's defaults. Numbers or arrays, `()`, traced: under vmap each problem may have its own.

    Attributes:
      ftol: stop when (f_k - f_{k+1}) / max(|f_k|, |f_{k+1}|, 1) ≤ ftol. None, the default, is SciPy's 10⁷ε = 2.2e-9 in
        float64, and ε = 1.2e-7 in float32, where 10⁷ε would be 1.2 and stop every run at once.
      gtol: stop when max |P(x - g) - x| ≤ gtol, in units of f over units of x; 1e-5 by default. That is never more than
        the room to the bounds, so gtol has to be small beside the box.
      max_iterations: SciPy's maxiter, accepted steps allowed; 15,000 by default.
      max_evaluations: SciPy's maxfun, evaluations allowed, 15,000 by default; looked at between iterations, so that a
        line search always ends.
      max_linesearch: SciPy's maxls, evaluations allowed in one line search; 20 by default.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Options, minimize
      >>> minimize(lambda x: jnp.sum(x**4), jnp.ones(2), options=Options(max_iterations=3)).message
      'stopped: max_iterations was reached; raise it, or continue from the state'
    """

    ftol: Array | float | None = None
    gtol: Array | float = 1e-5
    max_iterations: Array | int = 15000
    max_evaluations: Array | int = 15000
    max_linesearch: Array | int = 20

    def tolerances(self, dtype: jnp.dtype) -> tuple[Scalar, Scalar]:
        """ftol and gtol in `dtype`, with its default."""
        factor = 1e7 if jnp.finfo(dtype).eps < 1e-10 else 1
        ftol = factor * jnp.finfo(dtype).eps if self.ftol is None else self.ftol
        return jnp.asarray(ftol, dtype), jnp.asarray(self.gtol, dtype)


class Iterate(NamedTuple):
    """An accepted point."""

    x: Vector
    f: Scalar
    g: Vector


class State(NamedTuple):
    """All that a run knows between two evaluations: a pytree of arrays of fixed shapes, O(m n) in size.

    Attributes:
      x: where f and g are wanted next, `(n,)`; the last iterate when the run has ended.
      search: the line search, packed, `(18,)`.
      evaluations: so far, `()`.
      iterate: the last point accepted: its x, f and g.
      target: the point that step 1 of the search reaches, `(n,)`.
      memory: the pairs (Δx, Δg).
      iterations: accepted steps so far, `()`.
      residual: max |P(x - g) - x| at the iterate, `()`.
      status: an integer of `Status`, `()`: 0 while it runs.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Box, init
      >>> state = init(jnp.array([3.0, 0.5]), Box(jnp.zeros(2), jnp.ones(2)))
      >>> print(state.x, state.evaluations, state.status)
      [1. 0.5] 0 0
    """

    # every evaluation
    x: Vector
    search: Float[Array, " 18"]
    evaluations: Int[Array, ""]
    # every iteration
    iterate: Iterate
    target: Vector
    memory: Memory
    iterations: Int[Array, ""]
    residual: Scalar
    # once
    status: Int[Array, ""]

    @property
    def step_size(self) -> Scalar:
        """The step of the line search that leads to `x`; 1 is the target."""
        return linesearch.unpack(self.search).step


def init(x0: Vector, box: Box | None = None, memory_size: int = 10) -> State:
    """The state that asks for f and g at P(x0).

    Args:
      x0: where to begin, `(n,)`, float32 or float64: the dtype of all that follows.
      box: the bounds; None, known when tracing, for a program without any, and then in `update` too.
      memory_size: how many pairs (Δx, Δg) the model of the Hessian remembers.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Box, init
      >>> init(jnp.array([3.0, 0.5]), Box(jnp.zeros(2), jnp.ones(2))).x.tolist()
      [1.0, 0.5]
    """
    n, dtype = len(x0), x0.dtype
    x = x0 if box is None else project(x0, box)
    none, zero = jnp.zeros((), int), jnp.zeros((), dtype)
    return State(
        x=x,
        search=linesearch.pack(_opening(box, dtype)),
        evaluations=none,
        iterate=Iterate(x, zero + jnp.inf, jnp.zeros(n, dtype)),
        target=x,
        memory=empty(n, memory_size, dtype, products=1 if box is None else 2 if n > 2 * memory_size else 0),
        iterations=none,
        residual=jnp.full((), jnp.inf, dtype),
        status=jnp.asarray(Status.RUNNING),
    )


def _opening(box: Box | None, dtype: jnp.dtype) -> Search:
    """The search before the first: without a slope to judge by, it takes what comes.

    Its `step_max` and `step` bound the first move, the step by 1 if anything is bounded and the length by 1 unless
    everything is. ZBLN, subroutine lnsrlb.
    """
    far, most, zero = jnp.asarray(STEP_MAX, dtype), jnp.finfo(dtype).max, jnp.zeros((), dtype)
    low, high = (False, False) if box is None else (jnp.isfinite(box.lower), jnp.isfinite(box.upper))
    length, step_max = jnp.where(jnp.all(low & high), most, 1), jnp.where(jnp.any(low | high), 1, far)
    return linesearch.begin(zero, zero, length.astype(dtype), step_max)


def update(
    state: State, f: Scalar, g: Vector, box: Box | None = None, options: Options = Options(), x: Vector | None = None
) -> State:
    """The state after f and g at `state.x`: one evaluation. A state that has ended stays as it is.

    Args:
      state: from `init`, `update` or `continue_from`.
      f: the objective at `state.x`, `()`; NaN or inf shortens the step.
      g: its gradient there, `(n,)`.
      box: as for `init`.
      options: when to stop; see `Options`.
      x: where f and g are from, inside the box, if rounding kept the caller from `state.x`, `(n,)`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlbfgsb import init, update
      >>> state, update = init(jnp.zeros(2)), jax.jit(update)
      >>> while state.status == 0:
      ...     d = state.x - 2.0
      ...     state = update(state, d @ d, 2 * d)
      >>> print(state.iterate.x, state.iterations, state.evaluations)
      [2. 2.] 2 3

    References:
      docs/algorithm.md.
    """
    gram = state.memory.gram
    if (box is None) != isinstance(gram, Inverse):
        raise ValueError("box must be None in update if it was None in init, and only then")

    # 1. What does the line search make of this point?
    ftol, gtol = options.tolerances(g.dtype)
    if box is not None:  # an infinite slope onto a bound, as that of √x at 0, is a very steep one
        steep = 1e-3 * jnp.finfo(g.dtype).max ** 0.5
        at = state.x if x is None else x
        g = jnp.where((at == box.lower) & (g == jnp.inf), steep, g)
        g = jnp.where((at == box.upper) & (g == -jnp.inf), -steep, g)
    old, search = state.iterate, linesearch.unpack(state.search)
    opening = search.start.slope == 0
    x, direction, search, stalled = _displacement(state, search, x)
    slope = g @ direction
    running = state.status == Status.RUNNING
    finite = jnp.isfinite(f) & jnp.isfinite(slope)  # a NaN or inf in g makes its slope one, in any direction
    met = running & finite & (opening | linesearch.accepts(search, f, slope)) & ~stalled
    searched = jax.lax.cond(running & ~met, lambda: linesearch.advance(state.search, f, slope), lambda: state.search)
    last = search.trials + 1 >= jnp.asarray(options.max_linesearch, search.trials.dtype)
    failed = running & ~met & (last | stalled)
    following = linesearch.unpack(searched)
    again = (following.bracketed > 0) & (following.step == search.step)  # it would only evaluate the same point again
    accept = met | (running & ~failed & finite & again)

    # 2. The new iterate, and the pair it brings.
    moved = accept & ~opening
    sy, gs = search.step * (slope - search.start.slope), search.step * search.start.slope
    curved = moved & (sy > jnp.finfo(g.dtype).eps * jnp.abs(gs))  # abs: a rounded step may not descend
    memory = write(state.memory, search.step * direction, g - old.g, curved)
    stuck = opening | (memory.held == 0)  # with nothing to forget there is no other direction to try
    take = accept | (running & opening)  # what a run begins with, even NaN, is better than nothing
    iterate = Iterate(*(jnp.where(take, new, was) for new, was in zip((x, f, g), old, strict=True)))
    iterations, evaluations = state.iterations + moved.astype(int), state.evaluations + running.astype(int)
    residual = jnp.where(accept, jnp.max(jnp.abs(_projected_gradient(iterate, box))), state.residual)

    # 3. Are we done?
    scale = jnp.maximum(jnp.maximum(jnp.abs(old.f), jnp.abs(f)), 1)
    status = _first_true(
        (~running, state.status),
        (failed & stuck & finite, Status.ABNORMAL),
        (~accept & (opening | failed & stuck), Status.NON_FINITE),
        (accept & opening & (residual <= gtol), Status.GRADIENT),
        (accept & (iterations >= jnp.asarray(options.max_iterations, int)), Status.ITERATIONS),
        (accept & (evaluations > jnp.asarray(options.max_evaluations, int)), Status.EVALUATIONS),
        (accept & (residual <= gtol), Status.GRADIENT),
        (moved & (old.f - f <= ftol * scale), Status.REDUCTION),
    )

    # 4. Where to aim next; or, from the same iterate, how far along the way to try next.
    done = status != Status.RUNNING

    def aim() -> tuple[Vector, Array, dict]:
        # At the last iterate too: the run may be continued.
        d = iterate.g if box is None else cauchy.direction(iterate.x, iterate.g, box)
        counted, with_d = count(memory, state.memory.slot, sy, curved, d)
        target, counted = _minimum(iterate, with_d, forget(counted, failed), box)
        target, first, descent = _aim(iterate, target, box, iterations == 0, linesearch.unpack(state.search))
        return target, linesearch.pack(first), _small(forget(counted, ~descent & ~done))

    def go_on() -> tuple[Vector, Array, dict]:
        return state.target, searched, _small(memory)

    target, packed, small = jax.lax.cond(accept | failed, aim, go_on)

    # 5. The point to evaluate: the target bit for bit at step 1, and a bound bit for bit where one is met.
    upcoming = linesearch.unpack(packed)
    status = jnp.where(~done & ~(upcoming.start.slope < 0), Status.ABNORMAL, status)
    trial = _trial(iterate.x, target, upcoming.step, box)
    return State(
        x=jnp.where(status == Status.RUNNING, trial, iterate.x),
        search=packed,
        evaluations=evaluations,
        iterate=iterate,
        target=target,
        memory=memory._replace(**small),
        iterations=iterations,
        residual=residual,
        status=status,
    )


def _displacement(state: State, search: Search, x: Vector | None) -> tuple[Vector, Vector, Search, Bool[Array, ""]]:
    """The point evaluated, the direction that leads to it, the search along that, and whether x did not move at all.

    Where x is not the point that was asked for, Δx / step is the direction: the slopes and the pair are those of Δx.
    """
    old, direction = state.iterate, state.target - state.iterate.x
    if x is None:
        return state.x, direction, search, jnp.array(False)
    exact, opening = jnp.all(x == state.x), search.start.slope == 0
    direction = jnp.where(exact, direction, (x - old.x) / search.step)
    slope = jnp.where(exact, search.start.slope, old.g @ direction)
    stalled = ~exact & ~opening & jnp.all(x == old.x)
    return x, direction, search._replace(start=search.start._replace(slope=slope)), stalled


def _small(memory: Memory) -> dict:
    """What may leave a conditional: nothing of size (m, n)."""
    return {name: getattr(memory, name) for name in ("gram", "D", "theta", "held", "partition")}


def _aim(
    iterate: Iterate, target: Vector, box: Box | None, first: Bool[Array, ""], opening: Search
) -> tuple[Vector, Search, Bool[Array, ""]]:
    """The target, the search for a step towards it, and whether x̄ was one: whether the slope to it is a descent."""
    x, f, g = iterate

    # One fallback for all that can go wrong on the way here, NaN meaning no: B = I, whose Cauchy point is P(x - g).
    descent, nearest = g @ (target - x) < 0, x - g if box is None else project(x - g, box)
    target = jnp.where(descent, target, nearest)
    d = target - x
    longest = STEP_MAX if box is None else jnp.minimum(STEP_MAX, jnp.min(reach(x, d, box)))
    step_max = jnp.where(first, opening.step_max, longest)
    step = jnp.minimum(step_max, jnp.where(first, opening.step / jnp.sqrt(d @ d), 1))
    return target, linesearch.begin(f, g @ d, step, step_max), descent


def _minimum(iterate: Iterate, with_d: Array, memory: Memory, box: Box | None) -> tuple[Vector, Memory]:
    """x̄, the minimum of the model; in a box, over the variables that are free at its Cauchy point. BLNZ §4, §5."""
    x, _, g = iterate
    if box is None:
        return x + inverse.step(g, with_d, memory), memory
    held = memory.held > 0  # without pairs, xᶜ is the model's minimum
    if memory.gram is None:
        B, theta = dense.hessian(memory)
        point, gradient, free = dense.cauchy_point(x, g, box, B, theta)
        free = free & held
        d = dense.subspace_step(gradient, free, B)
    else:
        B = model(memory)
        found = cauchy.cauchy_point(x, g, box, B, with_d)
        if memory.partition is not None:
            memory = memory._replace(partition=partition.move(memory.partition, memory.YS, found.free))
            B = B._replace(memory=memory)
        point, free = found.x, found.free & held
        d = subspace.subspace_step(x, g, found._replace(free=free), B)
    return subspace.target(x, g, point, d, free, box), memory


def _trial(x: Vector, target: Vector, step: Scalar, box: Box | None) -> Vector:
    """x + step (target - x): no coordinate outside the box by an ulp, and none an ulp short of a bound it reaches."""
    d = target - x
    trial = jnp.where(step == 1, target, x + step * d)
    if box is None:
        return trial
    return jnp.where(step >= reach(x, d, box), jnp.where(d > 0, box.upper, box.lower), project(trial, box))


def _projected_gradient(iterate: Iterate, box: Box | None) -> Vector:
    return -iterate.g if box is None else projected_gradient(iterate.x, iterate.g, box)


def _first_true(*cases: tuple[Bool[Array, ""], Status | Array]) -> Int[Array, ""]:
    """The code of the first case that holds, else RUNNING: jnp.select, but in one kernel and not fifteen."""
    status = jnp.asarray(Status.RUNNING)
    for holds, code in reversed(cases):
        status = jnp.where(holds, jnp.asarray(code), status)
    return status


def continue_from(state: State, box: Box | None = None) -> State:
    """The state with its end undone: it asks for f and g at its last iterate, and goes on from there.

    Nothing else is lost, so with the same data and larger limits a run goes on as if it had never stopped; the point
    it begins with is evaluated again and counted once. With other data or another box it is a warm start. A state
    that is still running comes back as it is.

    Args:
      state: one that has ended.
      box: the bounds from now on; the iterate is projected on them. None if the state began without any.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlbfgsb import Options, continue_from, init, run
      >>> quartic = jax.value_and_grad(lambda x: jnp.sum(x**4))
      >>> go = jax.jit(lambda state, most: run(quartic, state, options=Options(max_iterations=most)))
      >>> state = go(continue_from(go(init(jnp.ones(2)), 3)), 100)
      >>> print(state.iterations > 3, state.residual <= 1e-5)
      True True
    """
    x = state.iterate.x if box is None else project(state.iterate.x, box)
    again = state._replace(
        x=x,
        search=linesearch.pack(_opening(box, x.dtype)),
        evaluations=jnp.maximum(state.evaluations - 1, 0),
        iterate=state.iterate._replace(x=x),
        target=x,
        status=jnp.asarray(Status.RUNNING),
        memory=None,
    )
    running = state.status == Status.RUNNING
    kept = jax.tree.map(lambda old, new: jnp.where(running, old, new), state._replace(memory=None), again)
    return kept._replace(memory=state.memory)


def step(value_and_grad: Callable, state: State, box: Box | None = None, options: Options = Options()) -> State:
    """The state after one evaluation of f, g = value_and_grad(state.x).

    Args:
      value_and_grad: the objective and its gradient, x `(n,)` ↦ f `()`, g `(n,)`.
      state: from `init`, `step` or `continue_from`.
      box: as for `init`.
      options: when to stop; see `Options`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlbfgsb import init, step
      >>> one = jax.jit(lambda state: step(jax.value_and_grad(lambda x: jnp.sum(x**2)), state))
      >>> one(init(jnp.ones(2))).iterate.f.item()
      2.0
    """
    f, g = value_and_grad(state.x)
    return update(state, f, g, box, options)


def run(value_and_grad: Callable, state: State, box: Box | None = None, options: Options = Options()) -> State:
    """The state after all the evaluations that it asks for: a `jax.lax.while_loop` over `step`.

    Args:
      value_and_grad: the objective and its gradient, x `(n,)` ↦ f `()`, g `(n,)`.
      state: from `init`, `step` or `continue_from`.
      box: as for `init`.
      options: when to stop; see `Options`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlbfgsb import init, run
      >>> print(run(jax.value_and_grad(lambda x: jnp.sum((x - 2.0) ** 2)), init(jnp.zeros(2))).iterate.x)
      [2. 2.]
    """
    return jax.lax.while_loop(
        lambda state: state.status == Status.RUNNING,
        lambda state: step(value_and_grad, state, box, options),
        state,
    )
