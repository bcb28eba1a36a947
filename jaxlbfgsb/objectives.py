"""Objectives as SciPy's users write them, and the four ways to a gradient.

    func returns (f, g)        fprime returns g        finite differences of func        jax.grad of func

An objective takes a point and gives func's value as it came, and f and g in the form that host.py's `advance` takes.
It counts its calls. Three of the four call func with NumPy arrays of its own, once for each value, where and in the
order that SciPy does; the last runs func compiled and in float64.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from . import differences
from .host import evaluated, padded

Vector = Float[np.ndarray, " n"]
Evaluation = tuple[Any, Float[np.ndarray, " k"]]  # func's value, or None where it is the first number of the other
Objective = Callable[[Vector], Evaluation]

TRACED = "fmin_l_bfgs_b works on values, and these are traced: inside jit, vmap or grad use jaxlbfgsb.minimize"
WAYS_OUT = (
    "func returned a scalar and no gradient, so that jax.grad has to give it, but JAX cannot trace func ({error}). "
    "There are three ways out: let func return (f, gradient), pass fprime, or pass approx_grad=True"
)


def own(func: Callable, args: tuple, calls: Counter) -> Objective:
    """The objective of a func without fprime: its first value decides, for good, between `in_pairs` and jax.grad.

    A func that is compiled already is traced for that and not run.
    """
    chosen: Objective | None = None

    def evaluate(x: Vector) -> Evaluation:
        nonlocal chosen
        if chosen is not None:
            return chosen(x)
        value = None
        if isinstance(func, jax.stages.Wrapped):
            with jax.enable_x64(True):
                pair = is_pair(jax.eval_shape(lambda x: func(x, *args), x))
        else:
            value = func(x.copy(), *args)
            pair = is_pair(value)
        if not pair:
            chosen, first = _by_jax(func, args, x, calls, None if value is None else scalar(value))
            return first
        chosen = in_pairs(func, args, calls)
        if value is None:
            return chosen(x)
        calls.update(fun=1, grad=1)
        return _of_pair(value, len(x))

    return evaluate


def in_pairs(func: Callable, args: tuple, calls: Counter) -> Objective:
    """The objective of a func that returns (f, g)."""

    def evaluate(x: Vector) -> Evaluation:
        calls.update(fun=1, grad=1)
        return _of_pair(func(x.copy(), *args), len(x))

    return evaluate


def with_fprime(func: Callable, fprime: Callable, args: tuple, calls: Counter) -> Objective:
    """The objective of a func and its gradient."""

    def evaluate(x: Vector) -> Evaluation:
        calls.update(fun=1)
        f = scalar(func(x.copy(), *args))
        calls.update(grad=1)
        return f, evaluated(f, gradient(fprime(x.copy(), *args), len(x)))

    return evaluate


def by_differences(func: Callable, args: tuple, calls: Counter, values: Callable = map, **scheme: Any) -> Objective:
    """The objective of a func alone; `scheme` is for `differences.gradient`, `values` a map to call func with."""
    value = partial(value_at, func, args)

    def evaluate(x: Vector) -> Evaluation:
        calls.update(fun=1)
        f = value(x)
        g, count = differences.gradient(partial(values, value), x, f, **scheme)
        calls.update(fun=count, grad=1)
        return f, evaluated(f, np.where(scheme["lower"] == scheme["upper"], 0, g))

    return evaluate


def value_at(func: Callable, args: tuple, x: Vector) -> Any:
    """func's value; here and not inside `by_differences`, so that other processes can be sent it."""
    return scalar(func(x.copy(), *args))


def is_pair(value: Any) -> bool:
    """True for (f, g), whatever else comes with it; False for a number, in an array or not."""
    return isinstance(value, (tuple, list)) and len(value) > 1 or getattr(value, "size", 1) > 1


def scalar(value: Any) -> Any:
    """func's value, out of its array if it is in one."""
    if isinstance(value, Tracer):
        raise TypeError(TRACED)
    if not np.isscalar(value):
        try:
            value = np.asarray(value).item()
        except (TypeError, ValueError) as error:
            raise ValueError("The user-provided objective function must return a scalar value.") from error
    value < np.inf  # noqa: B015  what cannot be compared is no value: a TypeError
    return value


def _of_pair(value: Any, n: int) -> Evaluation:
    f = scalar(value[0])
    return f, evaluated(f, gradient(value[1], n))


def gradient(value: Any, n: int) -> Vector:
    """The gradient that a user's function returned, as a vector of float64."""
    g = np.asarray(value).astype(np.float64).ravel()
    if len(g) != n:
        raise ValueError(f"the gradient must have one entry for each of the {n} variables, got shape {np.shape(value)}")
    return g


# jax.grad


def _by_jax(func: Callable, args: tuple, x0: Vector, calls: Counter, value: Any) -> tuple[Objective, Evaluation]:
    """The objective of a func that JAX differentiates, and its evaluation at x0; `value` is func's, if known."""
    compiled, variable = _traced(func, args, x0)

    def evaluate(x: Vector) -> Evaluation:
        calls.update(fun=1, grad=1)
        with jax.enable_x64(True):
            return None, np.asarray(compiled(x, variable))

    first = evaluate(x0)
    if value is not None and not np.isclose(float(first[1][0]), float(value), rtol=1e-3, equal_nan=True):
        # What was compiled is not func any more: a global or a closed-over variable has changed since.
        compiled, variable = _traced(func, args, x0, afresh=True)
        calls.clear()
        first = evaluate(x0)
    return evaluate, first


def _traced(func: Callable, args: tuple, x0: Vector, afresh: bool = False) -> tuple[Callable, list]:
    """A compiled function of x and of what may vary in args, and these parts of args.

    Arrays and floats may: a call with others compiles nothing. All else is constant, and so are arrays and floats where
    func cannot be traced otherwise.
    """
    leaves, structure = jax.tree.flatten(args)
    variable = [leaf for leaf in leaves if _may_vary(leaf)]
    constant = tuple(None if _may_vary(leaf) else (type(leaf), leaf) for leaf in leaves)
    try:
        if afresh:
            raise TypeError
        first = _compiled(func, structure, constant)
    except TypeError:  # not hashable
        first = _compiled.__wrapped__(func, structure, constant)
    every = tuple((type(leaf), leaf) for leaf in leaves)
    attempts = [(first, variable), (_compiled.__wrapped__(func, structure, every), [])]
    error = None
    for compiled, variable in attempts[: 2 if variable else 1]:
        try:
            with jax.enable_x64(True):
                compiled.trace(x0, variable)
            return compiled, variable
        except Exception as failure:
            error = failure
    raise TypeError(WAYS_OUT.format(error=str(error).split("\n")[0])) from error


def _may_vary(leaf: Any) -> bool:
    return isinstance(leaf, (float, jax.Array)) or isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


@lru_cache(maxsize=128)
def _compiled(func: Callable, structure: Any, constant: tuple) -> Callable:
    """(x, variable) ↦ f, g and zeros, as `evaluated` has them, compiled when it is called."""

    def evaluation(x: Array, variable: list) -> Array:
        rest = iter(variable)
        args = jax.tree.unflatten(structure, [next(rest) if part is None else part[1] for part in constant])
        f, g = jax.value_and_grad(lambda x: jnp.reshape(func(x, *args), ()))(x)
        return jnp.concatenate([f.astype(x.dtype)[None], g, jnp.zeros(padded(len(x)) - len(x), x.dtype)])

    return jax.jit(evaluation)
