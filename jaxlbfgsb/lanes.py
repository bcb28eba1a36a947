"""K problems on L lanes in one compiled loop: a lane that has finished writes its result and takes the next problem.

    trip:   f, g      = the objective, in every lane, on the data of its problem
            state     = update(state, f, g)                                            one evaluation for each lane
            results   ← the lanes that have finished
            finished lanes take the problems that wait, in order; when none waits they idle

So the cost is near (all evaluations)/L trips, where under a plain vmap every problem waits for the slowest. What a lane
computes depends on its problem alone: results are the same bit for bit wherever a problem stands and whatever its
neighbours do, as far as the objective's own kernels see to that.

The rows of a new problem's memory are not cleared (memory.py), so nothing of size (m, n) is chosen by a `where` here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import zero_from_primal
from jaxtyping import Array, Bool, Int

from . import implicit, loop
from .argmin import Result, advance, opening, trace
from .arguments import PyTree, check_args, check_bounds, check_options, check_x0, ravel
from .box import Box
from .solver import Options, State
from .status import Status


class Problem(NamedTuple):
    """What is fitted; as pytree, the leaves of many problems have a leading axis or are shared."""

    x0: PyTree
    args: tuple[Any, ...]
    bounds: Any
    options: Options


class Settings(NamedTuple):
    """What is the same for all problems, and known when tracing."""

    batched: tuple[bool, ...]  # for each leaf of the Problem
    lanes: int
    has_aux: bool
    value_and_grad: bool
    memory_size: int
    linear_solver: str | None = None


class _Lanes(NamedTuple):
    """The carry of the loop."""

    state: State  # of each lane
    aux: PyTree
    problem: Int[Array, " L"]  # that the lane is at, or was before none waited any more
    idle: Bool[Array, " L"]
    waiting: Int[Array, ""]  # the first problem that no lane has taken
    left: Int[Array, ""]  # problems without a result
    trips: Int[Array, ""]
    results: tuple[Array, Array, PyTree]  # numbers, counts and aux of each problem


def fit_all(fun: Callable, settings: Settings, problems: Problem, count: Array | int) -> tuple[Result, Array]:
    """The results of the first `count` problems, in order, and the number of trips; the rest is left at zero."""
    batched = settings.batched
    axes = jax.tree.unflatten(jax.tree.structure(problems), [0 if many else None for many in batched])
    one = each(problems, batched, lambda leaf: leaf[0])
    x0 = check_x0(one.x0)
    objective, theta, aux = trace(fun, x0, check_args(one.args), settings.has_aux, settings.value_and_grad)
    unravel = jax.vmap(ravel(x0)[1])
    solver = implicit.linear_solver(settings.linear_solver, x0)

    def box_of(problem: Problem) -> Box | None:
        lower, upper = check_bounds(problem.bounds, check_x0(problem.x0))
        return None if lower is None else Box(ravel(lower)[0], ravel(upper)[0])

    @jax.custom_jvp
    def solve(problems: Problem, closed_over: list, count: Array) -> tuple[Result, Array]:
        return _run(objective, box_of, settings, problems, closed_over, aux, count)

    @solve.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        found, trips = solve(*primals)

        @partial(jax.vmap, in_axes=(axes, axes, 0))
        def tangent(problem: Problem, moved: Problem, found: Result) -> Result:
            box, dbox = jax.jvp(box_of, (problem,), (moved,))
            at, along = ((problem.args, primals[1]), box), ((moved.args, tangents[1]), dbox)
            return implicit.tangent(objective, solver, at, along, found)

        return (found, trips), (tangent(primals[0], tangents[0], found), zero_from_primal(trips))

    found, trips = solve(problems, theta[1], jnp.asarray(count, int))
    return found._replace(x=unravel(found.x), grad=unravel(found.grad)), trips


def _run(
    objective: Callable,
    box_of: Callable[[Problem], Box | None],
    settings: Settings,
    problems: Problem,
    closed_over: list,
    aux: PyTree,
    count: Array,
) -> tuple[Result, Array]:
    """fit_all on vectors."""
    batched = settings.batched
    K = next(len(leaf) for leaf, many in zip(jax.tree.leaves(problems), batched, strict=True) if many)
    L = min(settings.lanes, -(-K // 8) * 8)  # whole vectors: the rest of a loop may round otherwise
    axes = jax.tree.unflatten(jax.tree.structure(problems), [0 if many else None for many in batched])

    def at(index: Int[Array, " L"]) -> Problem:
        return each(problems, batched, lambda leaf: jnp.asarray(leaf)[jnp.minimum(index, K - 1)])

    @partial(jax.vmap, in_axes=(axes,), axis_size=L)
    def begin(problem: Problem) -> State:
        x0 = ravel(check_x0(problem.x0))[0]
        return opening(x0, box_of(problem), check_options(problem.options), settings.memory_size)

    @partial(jax.vmap, in_axes=(axes, 0), axis_size=L)
    def evaluate(problem: Problem, carry: tuple[State, PyTree]) -> tuple[State, PyTree]:
        here = partial(objective, (problem.args, closed_over))
        return advance(here, carry, loop.plain(carry[0], box_of(problem), check_options(problem.options)))

    def trip(at_work: _Lanes) -> _Lanes:
        state, aux = evaluate(at(at_work.problem), (at_work.state, at_work.aux))
        finished = (state.status != Status.RUNNING) & ~at_work.idle
        following = at_work.waiting - 1 + jnp.cumsum(finished.astype(int), dtype=int)
        to = jnp.where(finished, at_work.problem, K)  # K is nowhere: dropped
        rows = *_rows(state), aux
        results = jax.tree.map(lambda all, row: all.at[to].set(row, mode="drop"), at_work.results, rows)
        takes = finished & (following < count)
        problem = jnp.where(takes, following, at_work.problem)  # one that idles stays at its own: fun sees no other's x
        return _Lanes(
            state=_refill(takes, begin(at(problem)), state),
            aux=aux,
            problem=problem,
            idle=at_work.idle | (finished & ~takes),
            waiting=following[-1] + 1,
            left=at_work.left + at_work.waiting - following[-1] - 1,
            trips=at_work.trips + 1,
            results=results,
        )

    first = jnp.arange(L, dtype=int)
    state = begin(at(first))
    none = jax.tree.map(lambda leaf: jnp.zeros((L, *leaf.shape), leaf.dtype), aux)
    rows = *_rows(state), none
    start = _Lanes(
        state=state,
        aux=none,
        problem=first,
        idle=first >= count,
        waiting=jnp.asarray(L, int),
        left=count,
        trips=jnp.zeros((), int),
        results=jax.tree.map(lambda row: jnp.zeros((K, *row.shape[1:]), row.dtype), rows),
    )
    end = jax.lax.while_loop(lambda lanes: lanes.left > 0, trip, start)
    numbers, counts, aux = end.results
    n = (numbers.shape[1] - 2) // 2
    x, grad, value, residual = jnp.split(numbers, [n, 2 * n, 2 * n + 1], axis=1)
    status, iterations, evaluations = counts.T

    @partial(jax.vmap, in_axes=(axes, 0, 0, 0))
    def degenerate(problem: Problem, x: Array, grad: Array, residual: Array) -> Array:
        return implicit.degenerate(x, grad, residual, box_of(problem))

    one_sided = degenerate(problems, x, grad, residual[:, 0])
    found = Result(x, value[:, 0], grad, residual[:, 0], status, iterations, evaluations, one_sided, aux)
    return found, end.trips


def each(problems: Problem, batched: tuple[bool, ...], function: Callable) -> Problem:
    """The problems with the function of each leaf that has the leading axis."""
    leaves, structure = jax.tree.flatten(problems)
    leaves = [function(leaf) if many else leaf for leaf, many in zip(leaves, batched, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def _rows(state: State) -> tuple[Array, Array]:
    """What is kept of each lane's state: two arrays, because each that is written to costs a kernel."""
    iterate = state.iterate
    numbers = jnp.concatenate([iterate.x, iterate.g, iterate.f[:, None], state.residual[:, None]], axis=1)
    return numbers, jnp.stack([state.status, state.iterations, state.evaluations], axis=1)


def _refill(taken: Bool[Array, " L"], fresh: State, state: State) -> State:
    """The states with fresh ones in the lanes that have taken a problem."""

    def small(state: State) -> State:
        return state._replace(memory=state.memory._replace(YS=None, gram=None, D=None))

    chosen = jax.tree.map(
        lambda new, old: jnp.where(taken.reshape(-1, *[1] * (old.ndim - 1)), new, old), small(fresh), small(state)
    )
    kept = state.memory
    return chosen._replace(memory=chosen.memory._replace(YS=kept.YS, gram=kept.gram, D=kept.D))
