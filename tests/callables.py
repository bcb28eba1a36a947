"""What users might hand to SciPy's faces: values, functions and callbacks of every kind."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
from beside_scipy import valley
from scipy.optimize import rosen, rosen_der

VALUES = {
    "float": float,
    "float64": np.float64,
    "float32": np.float32,
    "int": round,
    "bool": bool,
    "0-d": np.array,
    "(1,)": lambda f: np.array([f]),
    "(1, 1)": lambda f: np.array([[f]]),
    "list": lambda f: [f],
    "nested list": lambda f: [[f]],
    "tuple": lambda f: (f,),
    "0-d int": lambda f: np.array(round(f)),
    "JAX": jnp.asarray,
    "JAX (1,)": lambda f: jnp.asarray([f]),
}

CALLBACKS = {
    "xk": lambda xk: None,
    "another name": lambda parameters: None,
    "result": lambda intermediate_result: None,
    "result by keyword": lambda *, intermediate_result: None,
    "a default beside": lambda xk, a=3: None,
    "star": lambda *a: None,
    "result and a default": lambda intermediate_result, other=None: None,
    "true": lambda xk: True,
    "a value": lambda xk: "stop",
    "partial": functools.partial(lambda a, xk: None, 3),
    "partial result": functools.partial(lambda intermediate_result, a: None, a=3),
    "two arguments": lambda xk, more: None,
    "none": lambda: None,
    "keywords": lambda **named: None,
    "builtin": [].append,
}


class OwnError(Exception):
    """An exception of the user's."""


def thrower(error, after, value):
    """A function that returns value(x), but the call that follows the first `after` raises."""
    calls = itertools.count()

    def function(x):
        if next(calls) == after:
            raise error
        return value(x)

    return function


def turncoat(turn):
    """A function like `valley`, the gradient of which is reversed from evaluation number `turn` on."""
    calls = []

    def func(x):
        calls.append(1)
        return rosen(x), rosen_der(x) * (1 if len(calls) < turn else -1)

    return func


def after(number, kind=StopIteration):
    """A callback that raises at that iteration."""
    count = []

    def callback(x):
        count.append(1)
        if len(count) == number:
            count.clear()
            raise kind

    return callback


def scribbling(x):
    pair = valley(x)
    x[:] = np.nan
    return pair


def beale(x):
    terms = [(1.5, 1), (2.25, 2), (2.625, 3)]
    r = np.array([c - x[0] * (1 - x[1] ** p) for c, p in terms])
    J = np.array([[-(1 - x[1] ** p), x[0] * p * x[1] ** (p - 1)] for _, p in terms])
    return r @ r, 2 * J.T @ r
