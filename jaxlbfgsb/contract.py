"""The arguments of SciPy's faces, read as SciPy reads them: its errors, warnings and forms of bounds."""

import operator
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from multiprocessing import get_context, get_start_method
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from . import objectives
from .arguments import inside_jit
from .differences import Vector
from .objectives import TRACED

DEPRECATED = (
    "scipy.optimize: The `disp` and `iprint` options of the L-BFGS-B solver are deprecated and will be removed in "
    "SciPy 1.18.0."
)


class Unset(NamedTuple):
    """A default that can be told from the same value passed by a caller."""

    shown: str

    def __repr__(self) -> str:
        return self.shown


NO_IPRINT, NO_DISP = Unset("-1"), Unset("None")
NO_FTOL, NO_GTOL = Unset("2.2e-09"), Unset("1e-05")


def refuse_traced(*arguments: Any) -> None:
    """An error inside jit, vmap or grad."""
    if inside_jit() or _holds_tracer(arguments):
        raise TypeError(TRACED)


def _holds_tracer(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Tracer) or (isinstance(value, (tuple, list)) and any(map(_holds_tracer, value)))


def unguarded() -> AbstractContextManager[Any]:
    """A context without JAX's transfer guards: func takes NumPy arrays, and what it does with them is a transfer."""
    config: Any = jax.config
    ways = "host_to_device", "device_to_host", "device_to_device"
    guarded = any(getattr(config, f"jax_transfer_guard_{way}") for way in ways)
    return jax.transfer_guard("allow") if guarded else nullcontext()


def warn_of_output(iprint: Any, disp: Any, stacklevel: int = 3) -> None:
    for given in (disp, iprint):
        if given is not NO_DISP and given is not NO_IPRINT:
            warnings.warn(DEPRECATED, DeprecationWarning, stacklevel=stacklevel)


def warn_of_unused(hess: Any, hessp: Any, constraints: Any) -> None:
    method = "Method jaxlbfgsb.scipy_method"
    for holds, what in (
        (hess is not None, "does not use Hessian information (hess)."),
        (hessp is not None, "does not use Hessian-vector product information (hessp)."),
        (np.any(constraints), "cannot handle constraints."),
    ):
        if holds:
            warnings.warn(f"{method} {what}", RuntimeWarning, stacklevel=4)


def warn_of_unknown(options: dict[str, Any]) -> None:
    if options:
        from scipy.optimize import OptimizeWarning

        warnings.warn(f"Unknown solver options: {', '.join(options)}", OptimizeWarning, stacklevel=4)


def memory_size(m: Any) -> int:
    """m, if that many pairs can be held."""
    if isinstance(m, bool):
        raise TypeError("m must be an integer, got bool")
    m = operator.index(m)
    if m < 0:
        raise ValueError(f"m must not be negative, got {m}")
    np.empty([11, m, m])  # as much as SciPy takes: a MemoryError now is better than one inside a compiler
    return m


def box(bounds: Any, n: int) -> tuple[Vector, Vector]:
    """The bounds as two vectors, of a pair for each entry of x or of a `Bounds`."""
    if bounds is None:
        return np.full(n, -np.inf), np.full(n, np.inf)
    if not hasattr(bounds, "lb") and len(bounds) != n:
        raise ValueError("length of x0 != length of bounds")
    lower, upper = (np.broadcast_to(side, [n]) for side in _sides(bounds))
    if (lower > upper).any():
        raise ValueError("LBFGSB - one of the lower bounds is greater than an upper bound.")
    return _sound(lower, upper)


def wide_box(bounds: Any, n: int) -> tuple[Vector, Vector]:
    """The same for n variables where one pair may stand for all, with the errors of SciPy's minimize."""
    lower, upper = (-np.inf, np.inf) if bounds is None else _sides(bounds)
    if np.any(upper < lower):
        raise ValueError("An upper bound is less than the corresponding lower bound.")
    try:
        lower, upper = (np.broadcast_to(side, [n]) for side in (lower, upper))
    except ValueError:
        raise ValueError("The number of bounds is not compatible with the length of `x0`.") from None
    return _sound(lower, upper)


def _sides(bounds: Any) -> tuple[Vector, Vector]:
    """The lower and the upper bounds."""
    if hasattr(bounds, "lb"):
        return np.asarray(bounds.lb, np.float64), np.asarray(bounds.ub, np.float64)
    lower, upper = zip(*((low, high) for low, high in map(tuple, bounds)), strict=True)
    sides = (lower, -np.inf), (upper, np.inf)
    lower, upper = (
        np.array([absent if bound is None else float(np.asarray(bound).item()) for bound in side])
        for side, absent in sides
    )
    return lower, upper


def _sound(lower: Vector, upper: Vector) -> tuple[Vector, Vector]:
    """The bounds, if a finite number fits between each two of them."""
    if not ((lower < np.inf) & (upper > -np.inf)).all():
        raise ValueError("bounds must be numbers or None, low below inf and high above -inf, and not NaN")
    return lower, upper


def mapping(workers: Any, resources: ExitStack) -> Callable:
    """The map to take differences with: SciPy's `workers`, a map or a number of processes."""
    if callable(workers):
        return workers
    workers = int(workers or 1)
    if workers == 1:
        return objectives.in_order
    if workers != -1 and workers < 1:
        raise RuntimeError("Number of workers specified must be -1, an int >= 1, or an object with a 'map' method")
    method = get_start_method(allow_none=True)
    # A fork of a process with JAX's threads hangs, and is what any library may have set: tqdm's first bar does.
    context = get_context("spawn" if method in (None, "fork") else method)
    return resources.enter_context(context.Pool(None if workers == -1 else workers)).map
