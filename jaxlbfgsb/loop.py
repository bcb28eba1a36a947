"""How the loop of `minimize` carries a State: as it is, or of few variables as three arrays.

With three arrays an update can be one kernel (kernel.py). The truth beside them is there because a kernel may not be
all that the body of a loop returns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .arguments import ravel
from .box import Box, Scalar, Vector
from .kernel import one_kernel, possible
from .solver import Options, State, update
from .status import Status

NUMBERS = 4096  # in a State, from which on XLA may call a library and one kernel is no faster
DENSE = 32  # variables up to which one kernel is faster for dense.py


class Form(NamedTuple):
    """A way to carry a State through a loop, what the loop begins with, and `update` for that."""

    start: Any
    unfold: Callable[[Any], State]
    update: Callable[[Any, Scalar, Vector], Any]
    running: Callable[[Any], Bool[Array, ""]]


class _Packed(NamedTuple):
    """A State, as three arrays."""

    pairs: Float[Array, "2 m n"]
    numbers: Vector
    counts: Int[Array, " c"]
    running: Bool[Array, ""]


def form(opening: Callable[..., State], x: Vector, box: Box | None, options: Options) -> Form:
    """The form for a run that begins with opening(x, box, options)."""
    state = jax.eval_shape(opening, x, box, options)
    small = sum(leaf.size for leaf in jax.tree.leaves(state)) < NUMBERS
    few = box is None or (state.memory.gram is None and len(state.x) <= DENSE)
    if small and few and possible():
        return packed(state, opening, x, box, options)
    return plain(opening(x, box, options), box, options)


def plain(state: State, box: Box | None, options: Options) -> Form:
    """A State as it is."""
    return Form(
        start=state,
        unfold=lambda state: state,
        update=lambda state, f, g: update(state, f, g, box, options),
        running=lambda state: state.status == Status.RUNNING,
    )


def packed(shapes: State, opening: Callable[..., State], x: Vector, box: Box | None, options: Options) -> Form:
    """Three arrays, and each update one kernel, as is the opening."""
    n, dtype = len(x), x.dtype
    leaves, structure = jax.tree.flatten(without_pairs(shapes))
    whole = [jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in leaves]

    def parted(leaves: list[Array]) -> list[list[Array]]:
        return [[leaf for leaf, one in zip(leaves, whole, strict=True) if one == integer] for integer in (False, True)]

    _, split = ravel([jnp.zeros(leaf.shape, leaf.dtype) for leaf in parted(leaves)[0]])

    def arrays(state: State) -> tuple[Array, Vector, Array]:
        numbers, counts = parted(jax.tree.leaves(without_pairs(state)))
        return state.memory.YS, ravel(numbers)[0], jnp.stack(counts)

    def begin(x: Vector, box: Box | None, options: Options) -> tuple[_Packed, Vector, Array]:
        state = opening(x, box, options)
        problem = [*options.tolerances(dtype), jnp.asarray(options.max_linesearch, dtype)]
        problem = jnp.concatenate([*(box or ()), jnp.stack(problem)])
        most = jnp.stack([jnp.asarray(limit, int) for limit in options[2:4]])
        return _Packed(*arrays(state), state.status == Status.RUNNING), problem, most

    def unfold(packed: _Packed | tuple) -> State:
        pairs, numbers, counts = packed[:3]
        numbers, counts = iter(split(numbers)), iter(counts)
        state = jax.tree.unflatten(structure, [next(counts if integer else numbers) for integer in whole])
        return state._replace(memory=state.memory._replace(YS=pairs))

    def following(evaluation: Vector, problem: Vector, most: Array, *old: Array) -> tuple[Array, Vector, Array]:
        bounds, (ftol, gtol, trials) = problem[:-3], problem[-3:]
        here = None if box is None else Box(bounds[:n], bounds[n:])
        return arrays(
            update(unfold(old), evaluation[0], evaluation[1:], here, Options(ftol, gtol, most[0], most[1], trials))
        )

    start, problem, most = one_kernel(begin)(x, box, options)
    one = one_kernel(following)

    def advanced(packed: _Packed, f: Scalar, g: Vector) -> _Packed:
        pairs, numbers, counts = one(jnp.concatenate([f[None], g]), problem, most, *packed[:3])
        return _Packed(pairs, numbers, counts, unfold((pairs, numbers, counts)).status == Status.RUNNING)

    return Form(start, unfold, advanced, lambda packed: packed.running)


def without_pairs(state: State) -> State:
    """The rest of a State, which can be ravelled."""
    return state._replace(memory=state.memory._replace(YS=None))
