"""The oracle of SciPy's faces: `agree` calls both and compares all that can be seen.

That is the calls of func, fprime and callback in their order with what they were handed, the result with its types and
messages, or the exception, and the warnings.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy
import scipy.optimize
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import rosen, rosen_der

from jaxlbfgsb import fmin_l_bfgs_b

WARNS_OF_OUTPUT = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 16)


class Seen(NamedTuple):
    """One call from outside."""

    calls: list  # (whose, what it was handed)
    result: Any
    error: BaseException | None
    warned: list


def watch(solver: Callable, *args: Any, **options: Any) -> Seen:
    """What can be seen of solver(*args, **options), args[0] being func."""
    calls = []

    def watched(name: str, function: Any) -> Any:
        if not callable(function):
            return function

        @functools.wraps(function)
        def stand_in(*args, **named):
            x, fun = (args[0], None) if args else (named["intermediate_result"][key] for key in ("x", "fun"))
            shown = type(x), x.dtype, x.shape, x.flags.writeable, x.flags.owndata, type(fun), list(named)
            calls.append((name, shown, x.copy()))
            return function(*args, **named)

        return stand_in

    func, *rest = args
    for name in {"fprime", "callback", "jac"} & options.keys():
        options[name] = watched(name, options[name])
    result = error = None
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            result = solver(watched("func", func), *rest, **options)
        except BaseException as caught:
            error = caught
    return Seen(calls, result, error, [(one.category, str(one.message)) for one in heard])


def form(value: Any) -> Any:
    """All of a value but the numbers in arrays and floats."""
    if isinstance(value, np.ndarray):
        return type(value), value.dtype, value.shape, value.flags.writeable
    if isinstance(value, dict):
        return type(value), [(key, form(entry)) for key, entry in value.items()]
    if isinstance(value, tuple):
        return type(value), [form(entry) for entry in value]
    if isinstance(value, (str, int)):
        return type(value), value
    return type(value)


def numbers(value: Any) -> list:
    """The arrays and floats in it."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, (np.ndarray, float)) else []


def compare(ours: Seen, scipys: Seen, rtol: float, message: bool) -> None:
    assert (type(ours.error), message and str(ours.error)) == (type(scipys.error), message and str(scipys.error))
    assert ours.warned == scipys.warned
    assert [(name, shown) for name, shown, _ in ours.calls] == [(name, shown) for name, shown, _ in scipys.calls]
    assert form(ours.result) == form(scipys.result)
    found, wanted = ([x for *_, x in seen.calls] + numbers(seen.result) for seen in (ours, scipys))
    for a, b in zip(found, wanted, strict=True):
        assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=1, where=np.isfinite(b)))


def agree(*args: Any, rtol: float = 1e-9, message: bool = True, **options: Any) -> Seen:
    """What can be seen of our fmin_l_bfgs_b(*args, **options), after a check that it is SciPy's."""
    ours, scipys = (watch(solver, *args, **options) for solver in (fmin_l_bfgs_b, scipy.optimize.fmin_l_bfgs_b))
    compare(ours, scipys, rtol, message)
    return ours


def bowl(x, centre=1.0):
    """(f, g), least at the centre; from START in two iterations."""
    return float(np.sum((x - centre) ** 2)), 2 * (x - centre)


def height(x, centre=1.0):
    return bowl(x, centre)[0]


def slope(x, centre=1.0):
    return bowl(x, centre)[1]


def valley(x):
    """Rosenbrock's function, (f, g)."""
    return rosen(x), rosen_der(x)


START, CREST = np.array([3.0, 4.0]), np.array([-1.2, 1.0])


def alike(a: Any, b: Any) -> None:
    """Checks that two results of fmin_l_bfgs_b are the same, bit for bit."""
    assert form(a) == form(b)
    for one, other in zip(numbers(a), numbers(b), strict=True):
        assert_array_equal(one, other)


def jax_valley(x, a=100.0):
    return jnp.sum(a * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
