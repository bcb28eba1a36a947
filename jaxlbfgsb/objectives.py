"""Objectives as SciPy's users write them, and the four ways to a gradient.

    func returns (f, g)        fprime returns g        finite differences of func        jax.grad of func

An objective takes a point, once for people and once as host.py's `answer`, and gives func's value as it came and f and
g in the form that host.py's `advance` takes. It counts its calls. Three of the four call func with NumPy arrays of its
own, once for each value, where and in the order that SciPy does; the last runs func compiled and in float64.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.errors import JAXTypeError
from jax.stages import Compiled
from jaxtyping import Array

from . import differences
from .differences import Vector
from .host import READS, device, evaluation, outright, padded

Answer = Array | np.ndarray
Evaluation = tuple[Any, Array | np.ndarray]  # func's value, or None where it is the first number of the other
Objective = Callable[[Vector, Answer], Evaluation]

PLAIN = (bool, int, complex, str, bytes, type(None), np.generic)  # args that cannot change

TRACED = "fmin_l_bfgs_b works on values, and these are traced: inside jit, vmap or grad use jaxlbfgsb.minimize"
WAYS_OUT = (
    "func returned a scalar and no gradient, so that jax.grad has to give it, but JAX cannot trace func ({error}). "
    "There are three ways out: let func return (f, gradient), pass fprime, or pass approx_grad=True"
)


def own(func: Callable, args: tuple[Any, ...], calls: Counter[str]) -> Objective:
    """The objective of a func without fprime: its first value decides, for good, between `in_pairs` and jax.grad.

    A func that is compiled already is traced for that and not run.
    """
    chosen: Objective | None = None

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        nonlocal chosen
        if chosen is not None:
            return chosen(x, answer)
        value = None
        if isinstance(func, jax.stages.Wrapped):
            with jax.enable_x64(True):
                pair = is_pair(jax.eval_shape(lambda x: func(x, *args), x))
        else:
            value = func(x.copy(), *args)
            pair = is_pair(value)
        if not pair:
            chosen, first = _by_jax(func, args, x, answer, calls, None if value is None else scalar(value))
            return first
        chosen = in_pairs(func, args, calls)
        if value is None:
            return chosen(x, answer)
        calls["fun"] += 1
        calls["grad"] += 1
        return _of_pair(value, len(x))

    return evaluate


def in_pairs(func: Callable, args: tuple[Any, ...], calls: Counter[str]) -> Objective:
    """The objective of a func that returns (f, g)."""

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        calls["fun"] += 1
        calls["grad"] += 1
        return _of_pair(func(x.copy(), *args), len(x))

    return evaluate


def with_fprime(func: Callable, fprime: Callable, args: tuple[Any, ...], calls: Counter[str]) -> Objective:
    """The objective of a func and its gradient."""

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        calls["fun"] += 1
        f = scalar(func(x.copy(), *args))
        calls["grad"] += 1
        return f, evaluation(f, gradient(fprime(x.copy(), *args), len(x)))

    return evaluate


def by_differences(
    func: Callable, args: tuple[Any, ...], calls: Counter[str], values: Callable | None = None, **scheme: Any
) -> Objective:
    """The objective of a func alone; `scheme` is for `differences.gradient`, `values` a map to call func with."""
    value, values = partial(value_at, func, args), values or in_order

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        calls["fun"] += 1
        f = value(x)
        g, count = differences.gradient(partial(values, value), x, f, **scheme)
        calls["fun"] += count
        calls["grad"] += 1
        return f, evaluation(f, np.where(scheme["lower"] == scheme["upper"], 0, g))

    return evaluate


def in_order(function: Callable, points: Iterable) -> list:
    """The function's values. Not a map: in one, a StopIteration that it raises would be taken for the end."""
    return [function(point) for point in points]


def value_at(func: Callable, args: tuple[Any, ...], x: Vector) -> Any:
    """func's value; here and not inside `by_differences`, so that other processes can be sent it."""
    return scalar(func(x.copy(), *args))


def is_pair(value: Any) -> bool:
    """True for (f, g), whatever else comes with it; False for a number, in an array or not."""
    return (isinstance(value, (tuple, list)) and len(value) > 1) or getattr(value, "size", 1) > 1


def scalar(value: Any) -> Any:
    """func's value, out of its array if it is in one."""
    if isinstance(value, Tracer):
        raise TypeError(TRACED)
    if not np.isscalar(value):
        try:
            value = np.asarray(value).item()
        except JAXTypeError as error:
            raise TypeError(TRACED) from error
        except (TypeError, ValueError) as error:
            raise ValueError("The user-provided objective function must return a scalar value.") from error
    number: Any = value
    operator.lt(number, np.inf)  # what cannot be compared is no value: a TypeError
    return value


def _of_pair(value: Any, n: int) -> Evaluation:
    f = scalar(value[0])
    return f, evaluation(f, gradient(value[1], n))


def gradient(value: Any, n: int) -> Vector:
    """The gradient that a user's function returned, as a vector of float64."""
    try:
        g = np.asarray(value).astype(np.float64).ravel()
    except JAXTypeError as error:
        raise TypeError(TRACED) from error
    if len(g) != n:
        raise ValueError(f"the gradient must have one entry for each of the {n} variables, got shape {np.shape(value)}")
    return g


# jax.grad


def _by_jax(
    func: Callable, args: tuple[Any, ...], x0: Vector, answer: Answer, calls: Counter[str], value: Any
) -> tuple[Objective, Evaluation]:
    """The objective of a func that JAX differentiates, and its evaluation at x0; `value` is func's, if known."""
    near = jax.default_backend() == "cpu"  # the solver's own device: what it answers need not be copied
    home = device() if near else jax.devices()[0]
    compiled, variable = _compiled(func, args, x0, home)

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        calls["fun"] += 1
        calls["grad"] += 1
        return None, outright(compiled, variable, answer if near else np.asarray(answer))

    first = evaluate(x0, answer)
    if value is not None and not np.isclose(np.asarray(first[1])[0], float(value), rtol=1e-3, equal_nan=True):
        # What was compiled is not func any more: a global or a closed-over variable has changed since.
        compiled, variable = _compiled(func, args, x0, home, afresh=True)
        calls.clear()
        first = evaluate(x0, answer)
    return evaluate, first


def _compiled(
    func: Callable, args: tuple[Any, ...], x0: Vector, home: Any, afresh: bool = False
) -> tuple[Compiled, list]:
    """The `_program` of func, and the parts of args that it takes.

    Arrays and floats may vary: a call with others compiles nothing. All else is constant, and so are arrays and floats
    where func cannot be traced otherwise.
    """
    leaves, structure = jax.tree.flatten(args)
    with jax.enable_x64(True):
        variable = jax.device_put([np.asarray(leaf) for leaf in leaves if _may_vary(leaf)], home)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in variable)
    constant = tuple(None if _may_vary(leaf) else (type(leaf), leaf) for leaf in leaves)
    call = func, structure, constant, shapes, len(x0), home
    known, build = _constant(func, constant), _program.__wrapped__
    try:
        program = _program(*call) if known else build(*call)
        if known and (afresh or any(a is not b for a, b in zip(program[1], _surroundings(func), strict=True))):
            program[:] = build(*call)  # in the cache, too
        return program[0], variable
    except TypeError:
        if not variable:
            raise
    constant = tuple((type(leaf), leaf) for leaf in leaves)
    return build(func, structure, constant, (), len(x0), home)[0], []


def _may_vary(leaf: Any) -> bool:
    return isinstance(leaf, float) or (isinstance(leaf, (np.ndarray, jax.Array)) and leaf.dtype.kind in "biufc")


def _constant(func: Callable, constant: tuple) -> bool:
    """False where func or args hold what may change unseen: a method's object, or any other than plain values."""
    plain = all(part is None or isinstance(part[1], PLAIN) for part in constant)
    return plain and isinstance(func, (FunctionType, jax.stages.Wrapped))


def _surroundings(func: Callable) -> list:
    """What a Python function finds in its closure and in its globals; nothing for one that is jitted."""
    if not isinstance(func, FunctionType):
        return []
    cells = [getattr(cell, "cell_contents", None) for cell in func.__closure__ or ()]
    return cells + [func.__globals__.get(name) for name in func.__code__.co_names]


@lru_cache(maxsize=128)
def _program(func: Callable, structure: Any, constant: tuple, shapes: tuple, n: int, home: Any) -> list:
    """(variable, answer) ↦ the `evaluation` of func and its gradient, compiled; and what func found around it."""

    def evaluate(variable: list, answer: Array) -> Array:
        rest = iter(variable)
        args = jax.tree.unflatten(structure, [next(rest) if part is None else part[1] for part in constant])
        f, g = jax.value_and_grad(lambda x: jnp.reshape(func(x, *args), ()))(answer[READS : READS + n])
        return jnp.concatenate([f.astype(g.dtype)[None], g, jnp.zeros(padded(n) - n, g.dtype)])

    surroundings = _surroundings(func)
    answer = jax.ShapeDtypeStruct([READS + 3 * padded(n)], np.float64)
    with jax.enable_x64(True), jax.disable_jit(False), jax.default_device(home):
        try:
            traced = jax.jit(evaluate).trace([jax.ShapeDtypeStruct(*shape) for shape in shapes], answer)
        except Exception as error:
            raise TypeError(WAYS_OUT.format(error=str(error).split("\n")[0])) from error
        if len(traced.jaxpr.in_avals) > len(shapes) + 1:  # func closes over what another transformation traces
            raise TypeError(TRACED)
        return [traced.lower().compile(), surroundings]
