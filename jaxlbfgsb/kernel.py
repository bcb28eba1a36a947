"""Work on small arrays as one kernel of a CPU.

XLA runs a program on a CPU as a list of kernels, and an update is a hundred: for few variables to start them takes most
of the time. A call with the mark `xla_cpu_small_call` is compiled to a single kernel, in half of the time. Such a call

- has no sort in it, no scatter and no call of a library: no product of two matrices, no reduction of 4,096 numbers;
- uses each of its arguments, or XLA ends the process;
- is not all that a loop's body returns, or XLA takes its arguments for constants of the loop.

The mark is left out on other devices, and under vmap, where one kernel would mean one thread. It is not for what is
differentiated: not every argument is of use to a derivative. Nor for several CPUs, between which XLA would put
transfers into the kernel: a program that was exported where there is one is for one.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jax.custom_batching import custom_vmap
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float

TRIED = (0, 10), (0, 11), (0, 12)  # the jaxlib with which the above was tried: XLA promises nothing of it
_inside = ContextVar("inside", default=False)  # what is to be a kernel is being traced


def known() -> bool:
    """Whether XLA knows the mark."""
    return jaxlib.version.__version_info__[:2] in TRIED


def possible() -> bool:
    """Whether it does, and there is one CPU."""
    return known() and one_cpu()


def one_cpu() -> bool:
    """Whether nothing can be split between CPUs."""
    try:
        return jax.device_count("cpu") == 1
    except RuntimeError:  # JAX was told to leave the CPU alone
        return False


def one_kernel(function: Callable) -> Callable:
    """The function of arrays, as one kernel on a CPU."""

    @custom_vmap
    def alone(*arguments: Any) -> Any:
        token = _inside.set(True)
        try:
            jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        finally:
            _inside.reset(token)
        traced = jaxpr_as_fun(jaxpr)  # once, for both of these
        leaves = jax.lax.platform_dependent(*jax.tree.leaves(arguments), cpu=marked(traced), default=traced)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    @alone.def_vmap
    def _(size: int, batched: list, *arguments: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda many: 0 if many else None, tuple(batched))
        found = jax.vmap(function, in_axes=axes, axis_size=size)(*arguments)
        return found, jax.tree.map(lambda _: True, found)

    return alone


def marked(function: Callable) -> Callable:
    """The function as a call with the mark."""
    called = jax.jit(function)
    return lambda *arguments: set_xla_metadata(called(*arguments), inlineable="false", xla_cpu_small_call="true")


def product(A: Float[Array, "k m"], B: Float[Array, "m n"]) -> Float[Array, "k n"]:
    """A B, inside a kernel row by row."""
    return jax.lax.platform_dependent(A, B, cpu=_by_row, default=jnp.matmul) if _inside.get() else A @ B


def _by_row(A: Array, B: Array) -> Array:
    return jax.lax.map(lambda row: row @ B, A)
