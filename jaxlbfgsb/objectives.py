"""Objectives as SciPy's users write them, and the four ways to a gradient.

    func returns (f, g)        fprime returns g        finite differences of func        jax.grad of func

An objective takes a point, once for people and once as host.py's `answer`, and gives func's value as it came and f and
g in the form that host.py's `advance` takes. It counts its calls. Three of the four call func with NumPy arrays of its
own, once for each value, where and in the order that SciPy does; the last runs func compiled and in float64.
"""

import dis
import inspect
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.errors import JAXTypeError
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.stages import Compiled
from jaxtyping import Array

from . import differences
from .arguments import closed_over, is_key, native, on_cpu
from .differences import Vector
from .host import READS, device, evaluation, outright, padded
from .results import program_digest, python_functions

Answer = Array | np.ndarray
Evaluation = tuple[Any, Array | np.ndarray]  # func's value, or None where it is the first number of the other
Objective = Callable[[Vector, Answer], Evaluation]

MOST = 8  # traces that are kept of a function
HARMLESS = ("abs", "enumerate", "float", "int", "len", "max", "min", "range", "reversed", "sum", "tuple", "zip")
PLAIN = (bool, int, complex, str, bytes, type(None))  # args that cannot change

TRACED = "fmin_l_bfgs_b works on values, and these are traced: inside jit, vmap or grad use jaxlbfgsb.minimize"
THREE = "let func return (f, gradient), pass fprime, or pass approx_grad=True"
WAYS_OUT = (
    "func returned no pair (f, gradient), so that jax.grad has to give that, but JAX cannot trace func ({error}). "
    f"There are three ways out: {THREE}"
)
IN_32_BITS = (
    "Or JAX, set to 32 bits, keeps a NumPy array that func closes over in float32, and func is traced in float64: "
    "set jax_enable_x64, or pass the array in args"
)
DIFFERS = (
    "func returned {value} at x0, but traced by JAX, in float64, it gives {traced}, and that is what is minimized. If "
    "func draws random numbers, counts its calls, asks what type its arguments have or uses what JAX does not know, "
    f"there are three ways out: {THREE}"
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
        if _is_jitted(func):
            within, known = _within(func), func in _TRACES and all(map(_may_vary, jax.tree.leaves(args)))
            with jax.enable_x64(True):
                pair = not known and is_pair(jax.eval_shape(lambda x: within(x, *jax.tree.map(native, args)), x))
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


@dataclass(frozen=True)
class _Trace:
    """What JAX makes of a func: the same if its digest is, whatever the arrays are that func itself has closed over."""

    digest: str
    jaxpr: Any = field(compare=False)  # of f, or of (f, g); it takes x, what varies, and what func has closed over
    calls_python: bool = field(compare=False)


def _by_jax(
    func: Callable, args: tuple[Any, ...], x0: Vector, answer: Answer, calls: Counter[str], value: Any
) -> tuple[Objective, Evaluation]:
    """The objective of a func that JAX differentiates, and its evaluation at x0; `value` is func's, if known."""
    near = on_cpu()  # the solver's own device: what it answers need not be copied
    home = device() if near else jax.devices()[0]
    compiled, parts, calls_python = _compiled(func, args, x0, home, _takes_traced(func, args, x0))

    def evaluate(x: Vector, answer: Answer) -> Evaluation:
        calls["fun"] += 1
        calls["grad"] += 1
        as_it_is = near and not calls_python  # from NumPy's JAX is set to 64 bits, which it asks for in a callback
        return None, outright(compiled, parts, answer if as_it_is else np.asarray(answer))

    def is_func() -> bool:
        traced = np.asarray(first[1])[0]
        return value is None or np.isclose(traced, float(value), rtol=1e-3, atol=1e-6, equal_nan=True)

    first = evaluate(x0, answer)
    if not is_func():  # func may ask an argument for its type
        compiled, parts, calls_python = _compiled(func, args, x0, home, vary=False)
        calls.clear()
        first = evaluate(x0, answer)
    if not is_func():
        found = DIFFERS.format(value=value, traced=np.asarray(first[1])[0])
        warnings.warn(found, RuntimeWarning, stacklevel=5)
    return evaluate, first


def _compiled(func: Callable, args: tuple[Any, ...], x0: Vector, home: Any, vary: bool) -> tuple[Compiled, list, bool]:
    """The `_program` of func, the arrays that it takes, and whether it calls Python.

    The arrays are those that func reaches beside args, and those of args. func is traced at each call where what it
    reaches may have changed unseen, else once. Other parts of args than arrays and floats are constants, and so are
    these where func cannot be traced otherwise.
    """
    leaves, structure = jax.tree.flatten(args)
    moves = [vary and _may_vary(leaf) for leaf in leaves]
    constant = tuple(None if move else (type(leaf), leaf) for leaf, move in zip(leaves, moves, strict=True))
    with jax.enable_x64(True):
        variable = _at(home, [leaf for leaf, move in zip(leaves, moves, strict=True) if move])

    within = _within(func)

    def value(x: Array, variable: list) -> Array:
        rest = iter(variable)
        args = jax.tree.unflatten(structure, [next(rest) if part is None else part[1] for part in constant])
        return jnp.reshape(within(x, *args), ())

    around, shapes = _around(func), tuple((leaf.shape, leaf.dtype) for leaf in variable)
    flat = structure == jax.tree.structure((0,) * len(args))  # no nodes: one of a class may hold what changes
    known = around is not None and flat and all(part is None or _is_plain(part[1]) for part in constant)
    kept = _TRACES.setdefault(func, {}) if known else {}
    key = (structure, repr(constant), shapes, len(x0), home, tuple(map(id, around or ()))) if known else None
    try:
        found = kept.get(key) or (*_traced(value, len(x0), variable, home), around)  # around: no id is used again
        kept[key] = found
        for old in list(kept)[:-MOST]:
            kept.pop(old, None)
        trace, consts, _ = found
        return _program(trace, len(x0), home), variable + consts, trace.calls_python
    except TypeError:
        if not variable:
            raise
    return _compiled(func, args, x0, home, vary=False)


_TRACES: WeakKeyDictionary[Callable, dict] = WeakKeyDictionary()


def _within(func: Callable) -> Callable:
    """func out of its jit, which would keep what it closes over as constants of its own."""
    return inspect.unwrap(func, stop=lambda inner: not _is_jitted(inner))


def _takes_traced(func: Callable, args: tuple[Any, ...], x0: Vector) -> bool:
    """Whether numbers in args may be traced: not those that are static in a func that is jitted."""
    if _is_jitted(func) and any(isinstance(leaf, float) for leaf in jax.tree.leaves(args)):
        try:
            with jax.enable_x64(True):
                jax.eval_shape(lambda args: func(x0, *args), jax.tree.map(native, args))
        except Exception:  # what is wrong otherwise shows later
            return False
    return True


def _around(func: Callable) -> list | None:
    """What func reaches beside its arguments, if none of it can change unseen; nothing for one that is jitted."""
    if _is_jitted(func):
        return []
    names = _global_names(func.__code__) if isinstance(func, FunctionType) else None
    if names is None:
        return None
    cells = closed_over(func)
    known = [func.__globals__[name] for name in names if name in func.__globals__]
    if any(name not in func.__globals__ and name not in HARMLESS for name in names):
        return None
    if len(cells) < len(func.__closure__ or ()):  # some are yet to be assigned
        return None
    found = [*cells, *known, *(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()]
    return [func.__code__, *found] if all(map(_stays, found)) else None


@lru_cache(maxsize=128)
def _global_names(code: CodeType) -> list[str] | None:
    """The globals and builtins that some code reads; None if it imports or defines functions, which may read others."""
    steps = list(dis.get_instructions(code))
    if any(step.opname == "IMPORT_NAME" for step in steps) or any(isinstance(c, CodeType) for c in code.co_consts):
        return None
    return [str(step.argval) for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]


def _stays(part: Any) -> bool:
    """Whether this is the same as long as it is the same object."""
    if isinstance(part, ModuleType):
        return part.__name__.partition(".")[0] in ("jax", "numpy", "math", "scipy")
    return _is_plain(part) or type(part) is float or isinstance(part, jax.Array) or _is_jitted(part)


def _is_plain(part: Any) -> bool:
    return type(part) in PLAIN or (isinstance(part, np.generic) and not isinstance(part, np.void))


def _is_jitted(func: Any) -> bool:
    return isinstance(func, jax.stages.Wrapped) and not isinstance(func, MethodType)  # whose object may change


def _may_vary(leaf: Any) -> bool:
    array = type(leaf) is np.ndarray or isinstance(leaf, jax.Array)  # a masked array is more than its numbers
    return isinstance(leaf, float) or is_key(leaf) or (array and leaf.dtype.kind in "biufc")


def _at(home: Any, leaves: list) -> list:
    """The arrays on that device."""
    return jax.device_put([leaf if is_key(leaf) else native(np.asarray(leaf)) for leaf in leaves], home)


def _traced(value: Callable, n: int, variable: list, home: Any) -> tuple[_Trace, list]:
    """value(x, variable) as JAX traces it, and the arrays that it closes over."""
    x = jax.ShapeDtypeStruct([n], np.float64)
    with jax.enable_x64(True), jax.disable_jit(False), jax.default_device(home):
        try:
            closed = jax.make_jaxpr(value)(x, variable)
            if "custom_" in str(closed.jaxpr) or python_functions(closed.jaxpr):  # a derivative is not to be seen in it
                closed = jax.make_jaxpr(jax.value_and_grad(value))(x, variable)
        except Exception as error:
            raise _untraceable(error) from error
        if any(isinstance(const, Tracer) for const in closed.consts):
            raise TypeError(TRACED)
        # Arguments: as long as an array of NumPy's is the constant of one trace, JAX takes its dtype for all others.
        jaxpr = closed.jaxpr.replace(constvars=[], invars=[*closed.jaxpr.invars, *closed.jaxpr.constvars])
        calls_python = bool(python_functions(jaxpr))
        digest = program_digest(jaxpr, []) + (str(id(jaxpr)) if calls_python else "")
        return _Trace(digest, jaxpr, calls_python), _at(home, closed.consts)


@lru_cache(maxsize=128)
def _program(trace: _Trace, n: int, home: Any) -> Compiled:
    """(parts, answer) ↦ the `evaluation` of what was traced and its gradient, compiled."""
    run = jaxpr_as_fun(ClosedJaxpr(trace.jaxpr, []))

    def evaluate(parts: list, answer: Array) -> Array:
        x = answer[READS : READS + n]
        alone = len(trace.jaxpr.outvars) == 1
        f, g = jax.value_and_grad(lambda x: run(x, *parts)[0])(x) if alone else run(x, *parts)
        return jnp.concatenate([f.astype(g.dtype)[None], g, jnp.zeros(padded(n) - n, g.dtype)])

    parts = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in trace.jaxpr.invars[1:]]
    answer = jax.ShapeDtypeStruct([READS + 3 * padded(n)], np.float64)
    with jax.enable_x64(True), jax.disable_jit(False), jax.default_device(home):
        try:
            return jax.jit(evaluate).lower(parts, answer).compile()
        except Exception as error:
            raise _untraceable(error) from error


def _untraceable(error: Exception) -> TypeError:
    found = WAYS_OUT.format(error=str(error).split("\n")[0])
    return TypeError(f"{found}. {IN_32_BITS}" if "float64, float32" in str(error) else found)
