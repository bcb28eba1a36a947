"""Objectives that JAX differentiates: what is traced and compiled when, and what a program remembers."""

import functools
import gc
import logging
import math
import sys
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
import scipy.optimize
from beside_scipy import CREST, START, agree, alike, bowl, form, height, jax_valley, numbers, slope, valley
from numpy.testing import assert_allclose
from scipy.optimize import rosen

from jaxlbfgsb import fmin_l_bfgs_b, host, objectives, scipy_method

# jax.grad


def by_scipy(func, x0, *args, **options):
    """SciPy's run with the gradient that JAX gives."""
    pair = jax.jit(jax.value_and_grad(func))
    return scipy.optimize.fmin_l_bfgs_b(lambda x: pair(x, *args), x0, **options)


JAX_FUNCTIONS = {"plain": jax_valley, "jitted": jax.jit(jax_valley), "partial": functools.partial(jax_valley, a=100.0),
                 "lambda": lambda x, *args: jax_valley(x, *args)}  # fmt: skip


@pytest.mark.parametrize("kind", JAX_FUNCTIONS)
@pytest.mark.parametrize("args", [(), (30.0,)], ids=str)
def test_a_scalar_alone_is_differentiated(kind, args):
    if (kind, args) == ("partial", (30.0,)):
        args = ()
    ours = fmin_l_bfgs_b(JAX_FUNCTIONS[kind], CREST, args=args, maxiter=10)
    scipys = by_scipy(JAX_FUNCTIONS[kind], CREST, *args, maxiter=10)
    assert form(ours) == form(scipys)
    for a, b in zip(numbers(ours), numbers(scipys), strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: jnp.reshape(f, 1), lambda f: jnp.reshape(f, (1, 1)),
                                  lambda f: f.astype(jnp.float32)], ids=["(1,)", "(1, 1)", "float32"])  # fmt: skip
def test_a_scalar_in_any_wrapping_is_differentiated(wrap):
    assert_allclose(fmin_l_bfgs_b(lambda x: wrap(jnp.sum((jnp.asarray(x) - 1) ** 2)), START)[0], 1, rtol=1e-6)


def kinds_seen(decorate):
    """The kinds of x that a differentiated function is called with in a run, and the run."""
    kinds = []

    def func(x):
        kinds.append(type(x) if isinstance(x, np.ndarray) else jax.core.Tracer if isinstance(x, jax.core.Tracer) else x)
        return jnp.sum((x - 1) ** 2)

    return kinds, fmin_l_bfgs_b(decorate(func), START)


def test_func_is_called_once_with_numpy_and_then_traced():
    kinds, _ = kinds_seen(lambda func: func)
    assert kinds[:1] == [np.ndarray]
    assert set(kinds[1:]) == {jax.core.Tracer}


def test_a_jitted_func_is_only_traced():
    kinds, _ = kinds_seen(jax.jit)
    assert set(kinds) == {jax.core.Tracer}


def test_the_first_value_counts_as_an_evaluation():
    _, (*_, found) = kinds_seen(lambda func: func)
    assert found["funcalls"] == agree(bowl, START).result[2]["funcalls"]


def test_a_func_that_may_return_a_pair_once_returns_pairs_for_good():
    calls = iter(range(9))
    with pytest.raises((TypeError, IndexError)):
        fmin_l_bfgs_b(lambda x: valley(x) if next(calls) < 2 else rosen(x), CREST)


UNTRACEABLE = {
    "math": lambda x: math.cos(x[0]),
    "branch": lambda x: x[0] if x[0] > 1 else -x[0],
    "NumPy": lambda x: np.sum(np.sin(x)),
    "float": lambda x: float(x[0] ** 2),
    "scipy.special": lambda x: scipy.special.gammaln(x).sum(),
    "writing": lambda x: (x.__setitem__(0, 1.0), x[1] ** 2)[1:],
    "int": lambda x: 3,
    "own": lambda x: int(x[0] // 1),
}
WAYS_OUT = ["(f, gradient)", "fprime", "approx_grad"]


@pytest.mark.parametrize("kind", sorted(UNTRACEABLE.keys() - {"int"}))
def test_a_scalar_that_jax_cannot_trace_gets_the_three_ways_out(kind):
    with pytest.raises(TypeError) as caught:
        fmin_l_bfgs_b(UNTRACEABLE[kind], START)
    assert [way for way in WAYS_OUT if way not in str(caught.value)] == []


def test_a_jitted_scalar_that_jax_cannot_trace_is_an_error_about_tracing():
    with pytest.raises((TypeError, jax.errors.JAXTypeError)):
        fmin_l_bfgs_b(jax.jit(UNTRACEABLE["math"]), START)


@pytest.mark.parametrize("args", [(2, 3.0), ("two", 3.0), (np.float64(2), np.int64(3)), (np.full(2, 2.0), {"a": 3.0}),
                                  ([2, [3.0]], None), (jnp.float32(2), True), (len, 1.0)], ids=str)  # fmt: skip
def test_args_of_a_differentiated_func_may_be_anything(args):
    seen = []

    def func(x, a, b):
        seen.append(jax.tree.structure((a, b)))
        return jnp.sum((x - 1) ** 2)

    fmin_l_bfgs_b(func, START, args=args)
    assert set(seen) == {jax.tree.structure(args)}


def test_args_that_func_branches_on_are_constants():
    x, *_ = fmin_l_bfgs_b(lambda x, a: jnp.sum((x - (1 if a > 2 else 0)) ** 2), START, args=(3.0,))
    assert_allclose(x, 1, rtol=1e-6)


SCALE = 1.0


def test_a_global_that_changed_is_noticed(monkeypatch):
    def func(x):
        return jnp.sum((x - SCALE) ** 2)

    fmin_l_bfgs_b(func, START)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert_allclose(fmin_l_bfgs_b(func, START)[0], 2, rtol=1e-6)


@pytest.mark.parametrize(
    "transform", [jax.jit, jax.grad, lambda f: lambda x: jax.vmap(f)(x[None])], ids=["jit", "grad", "vmap"]
)
@pytest.mark.parametrize("solver", [fmin_l_bfgs_b, scipy_method], ids=["fmin_l_bfgs_b", "scipy_method"])
def test_inside_a_transformation_minimize_is_named(transform, solver):
    with pytest.raises(TypeError, match=r"jaxlbfgsb\.minimize"):
        transform(lambda x: jnp.sum(solver(bowl, x)[0]))(START)


def test_inside_jit_minimize_is_named_also_where_nothing_is_traced():
    with pytest.raises(TypeError, match=r"jaxlbfgsb\.minimize"):
        jax.jit(lambda: fmin_l_bfgs_b(bowl, START)[1])()


def test_a_traced_value_of_func_is_an_error_that_names_minimize():
    with pytest.raises(TypeError, match=r"jaxlbfgsb\.minimize"):
        jax.grad(lambda a: fmin_l_bfgs_b(lambda x: (jnp.sum((x - a) ** 2), slope(x)), START)[1])(1.0)


TRACED = {
    "plain": lambda a: {"func": lambda x: jnp.sum((x - a) ** 2)},
    "jitted": lambda a: {"func": jax.jit(lambda x: jnp.sum((x - a) ** 2))},
    "jitted pair": lambda a: {"func": jax.jit(lambda x: (jnp.sum((x - a) ** 2), 2 * (x - a)))},
    "differences": lambda a: {"func": jax.jit(lambda x: jnp.sum((x - a) ** 2)), "approx_grad": True},
    "value in a list": lambda a: {"func": lambda x: ([a], x)},
    "gradient": lambda a: {"func": lambda x: (1.0, x * a)},
    "gradient in a list": lambda a: {"func": lambda x: (1.0, [a, a])},
    "fprime": lambda a: {"func": height, "fprime": lambda x: x * a},
    "jitted fprime": lambda a: {"func": height, "fprime": jax.jit(lambda x: x * a)},
    "x0": lambda a: {"func": bowl, "x0": [a, 1.0]},
    "bounds": lambda a: {"func": bowl, "bounds": [(a, 1.0), (0.0, None)]},
    "args": lambda a: {"func": bowl, "args": (a,)},
    "dict in args": lambda a: {"func": lambda x, d: bowl(x), "args": ({"a": a},)},
    "pgtol": lambda a: {"func": bowl, "pgtol": a},
    "factr": lambda a: {"func": bowl, "factr": a},
    "epsilon": lambda a: {"func": height, "approx_grad": True, "epsilon": a},
}


@pytest.mark.parametrize("what", TRACED)
@pytest.mark.parametrize("transform", [
    jax.grad, lambda f: lambda a: jax.vmap(f)(a[None]), lambda f: lambda a: jax.jvp(f, (a,), (a,)), jax.jit
], ids=["grad", "vmap", "jvp", "jit"])  # fmt: skip
def test_whatever_is_traced_minimize_is_named(transform, what):
    with pytest.raises(TypeError, match=r"jaxlbfgsb\.minimize"):
        transform(lambda a: fmin_l_bfgs_b(**{"x0": START} | TRACED[what](a))[1])(jnp.ones(()))


GUARDED = {
    "pair": lambda: fmin_l_bfgs_b(bowl, START),
    "JAX": lambda: fmin_l_bfgs_b(lambda x, a: jnp.sum((x - a) ** 2), START, args=(2.0,)),
    "jitted": lambda: fmin_l_bfgs_b(jax.jit(lambda x, a: jnp.sum((x - a) ** 2)), START, args=(np.ones(2),)),
    "jitted gradient": lambda: fmin_l_bfgs_b(lambda x: jnp.sum(x**2), START, jax.jit(lambda x: 2 * x)),
    "differences": lambda: fmin_l_bfgs_b(jax.jit(lambda x: jnp.sum(x**2)), START, approx_grad=True),
    "new size": lambda: fmin_l_bfgs_b(bowl, np.zeros(9), m=7),
    "method": lambda: tuple(scipy_method(bowl, START, jac=True)[key] for key in ("x", "fun", "jac", "nfev")),
}


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("level", ["disallow", "disallow_explicit"])
@pytest.mark.parametrize("kind", GUARDED)
def test_a_transfer_guard_is_no_hindrance_and_stays(kind, level, x64):
    with jax.enable_x64(x64):
        with jax.transfer_guard(level):
            guarded = GUARDED[kind]()
            assert jax.config.jax_transfer_guard_host_to_device == level
        alike(guarded, GUARDED[kind]())


# What is compiled


@pytest.fixture
def compiled(caplog):
    """The names of the programs compiled since it was last emptied."""
    names = []

    class Ear(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("Finished XLA compilation"):
                names.append(record.getMessage())

    ear, logger = Ear(), logging.getLogger("jax")
    logger.addHandler(ear)
    with jax.log_compiles():
        yield names
    logger.removeHandler(ear)


def test_a_new_size_is_compiled(compiled):
    """Else the tests below could not fail."""
    host._programs.cache_clear()
    fmin_l_bfgs_b(valley, CREST)
    assert compiled != []


ROUTES = {"pair": {}, "fprime": {"fprime": slope}, "approx_grad": {"approx_grad": True}}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("x0", [np.ones(2), [1.0], np.arange(7), START.astype(np.float32)], ids=str)
def test_nothing_is_compiled_for_another_numpy_function(compiled, route, x0):
    fmin_l_bfgs_b(valley, CREST)
    compiled.clear()
    fmin_l_bfgs_b((lambda x: bowl(x)) if route == "pair" else (lambda x: height(x)), x0, **ROUTES[route], bounds=None,
                  factr=10, pgtol=1e-9, maxls=7, maxiter=9)  # fmt: skip
    assert compiled == []


def test_another_function_compiles_nothing_but_itself(compiled):
    run_lambda(jax.jit, 1.0)
    compiled.clear()
    run_lambda(jax.jit, 2.5)
    assert len(compiled) == 1


@pytest.mark.parametrize("wrap", [jax.jit, lambda func: func], ids=["jitted", "plain"])
def test_a_new_lambda_that_reads_the_same_compiles_nothing(compiled, wrap):
    run_lambda(wrap, 1.0)
    run_lambda(wrap, np.ones(2))
    compiled.clear()
    x, *_ = run_lambda(wrap, np.full(2, 3.0))
    run_lambda(wrap, 1.0)
    assert compiled == []
    assert_allclose(x, 3, rtol=1e-6)


def run_lambda(wrap, centre):
    return fmin_l_bfgs_b(wrap(lambda x: jnp.sum((x - centre) ** 2)), START)


def test_a_jitted_function_that_is_known_is_not_traced_again():
    traced = []

    @jax.jit
    def func(x, centre):
        traced.append(x)
        return jnp.sum((x - centre) ** 2)

    fmin_l_bfgs_b(func, START, args=(1.0,))
    traced.clear()
    fmin_l_bfgs_b(func, START, args=(2.0,))
    assert traced == []


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("x64", [False, True])
def test_functions_that_call_python_share_no_program(jitted, x64):
    def calling(centre):
        @jax.custom_jvp
        def back(x):
            value = jax.pure_callback(lambda x: np.asarray(x - centre), jax.ShapeDtypeStruct(x.shape, x.dtype), x)
            return jnp.sum(value**2)

        back.defjvp(lambda x, dx: (back(*x), 2 * (x[0] - centre) @ dx[0]))
        return jax.jit(lambda x: back(jnp.asarray(x))) if jitted else lambda x: back(jnp.asarray(x))

    with jax.enable_x64(x64):
        for centre in (1.0, 5.0):
            assert_allclose(fmin_l_bfgs_b(calling(centre), START)[0], centre, rtol=1e-6)


@pytest.mark.parametrize("centre", [1.0, 5.0])
def test_a_value_called_back_for_is_that_of_this_function(centre):
    def func(x):
        return jnp.sum((x - jax.pure_callback(lambda: np.float64(centre), jax.ShapeDtypeStruct((), np.float64))) ** 2)

    assert_allclose(fmin_l_bfgs_b(func, START)[0], centre, rtol=1e-6)


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_a_transpose_that_is_not_in_the_program_is_that_of_this_function(slope):
    def func(x):
        line = jax.custom_derivatives.linear_call(lambda _, x: 2 * x, lambda _, ct: slope * ct, (), x)
        return jnp.sum((line - 1) ** 2)

    seen = []
    fmin_l_bfgs_b(func, START, callback=lambda x: seen.append(x), maxiter=1)
    step = scipy.optimize.fmin_l_bfgs_b(jax.jit(jax.value_and_grad(func)), START, maxiter=1)[0]
    assert_allclose(seen[0], step, rtol=1e-12)


def test_a_number_that_is_static_in_a_jitted_func_stays_one():
    @functools.partial(jax.jit, static_argnums=1)
    def func(x, centre):
        return jnp.sum((x - (7.0 if isinstance(centre, float) else 1.0)) ** 2)

    assert_allclose(fmin_l_bfgs_b(func, START, args=(2.0,))[0], 7, rtol=1e-6)


def test_what_a_jitted_func_returns_is_asked_again_where_it_may_be_another():
    @functools.partial(jax.jit, static_argnums=1)
    def func(x, pair):
        f = jnp.sum((x - 1) ** 2)
        return (f, 2 * (x - 1)) if pair else f

    for pair in (False, True, False):
        assert_allclose(fmin_l_bfgs_b(func, START, args=(pair,))[0], 1, rtol=1e-6)


def test_a_func_that_makes_a_key_is_compiled_once():
    def drawing():
        return lambda x: jnp.sum((x - jax.random.normal(jax.random.key(0), x.shape)) ** 2)

    fmin_l_bfgs_b(drawing(), START)
    before = objectives._program.cache_info().misses
    fmin_l_bfgs_b(drawing(), START)
    assert objectives._program.cache_info().misses == before


def test_a_name_that_is_assigned_later_is_no_hindrance():
    def func(x):
        return later if x.shape == (7,) else jnp.sum((x - 1) ** 2)

    assert_allclose(fmin_l_bfgs_b(func, START)[0], 1, rtol=1e-6)
    later = 0.0


class Shifted(float):
    shift = 1.0


@pytest.mark.parametrize("kind", [Shifted, type("Number", (int,), {})])
def test_an_attribute_of_a_kind_of_number_is_seen(kind):
    number = kind(1)

    def func(x):
        return jnp.sum((x - number.shift) ** 2)

    for number.shift in (1.0, 4.0):
        assert_allclose(fmin_l_bfgs_b(func, START)[0], number.shift, rtol=1e-6)


def test_an_array_that_jax_keeps_in_32_bits_is_named_as_what_may_be_wrong():
    data = np.array([1 / 3, 2 / 3])
    inner = jax.jit(lambda x: x - data)
    with jax.enable_x64(False), pytest.raises(TypeError, match=r"set jax_enable_x64, or pass the array in args"):
        fmin_l_bfgs_b(lambda x: jnp.sum(inner(x) ** 2), np.zeros(2))


def test_a_jitted_func_over_an_array_stays_usable_in_32_bits():
    data = np.array([1 / 3, 2 / 3])
    func = jax.jit(lambda x: jnp.sum((x - data) ** 2))
    with jax.enable_x64(False):
        assert_allclose(fmin_l_bfgs_b(func, np.zeros(2))[0], data, rtol=1e-6)
        assert func(np.zeros(2)).dtype == np.float32


def test_nor_is_one_that_reaches_nothing_that_can_change(caplog):
    one = jnp.ones(2)
    with jax.log_compiles():
        for centre in (1.0, 2.0):
            caplog.clear()
            x, *_ = fmin_l_bfgs_b(outer(one), START, args=(centre,))
            assert_allclose(x, 1 + centre, rtol=1e-6)
    assert "Finished tracing" in caplog.text  # another function object
    func = outer(one)
    fmin_l_bfgs_b(func, START, args=(1.0,))
    with jax.log_compiles():
        caplog.clear()
        fmin_l_bfgs_b(func, START, args=(2.0,))
    assert "Finished tracing value" not in caplog.text


def outer(one):
    def func(x, centre):
        return jnp.sum((x - one - centre) ** 2)

    return func


SETTINGS = types.ModuleType("settings_of_a_test")


def imported(x):
    import settings_of_a_test

    return jnp.sum(x**2 - 2 * settings_of_a_test.centre * x)


def looked_up(x):
    return jnp.sum(x**2 - 2 * globals()["SETTINGS"].centre * x)


def handed(function, x):
    return jnp.sum(x**2 - 2 * function * SETTINGS.centre * x)


@jax.tree_util.register_pytree_node_class
class Centred:
    def tree_flatten(self):
        return (SETTINGS.centre,), None

    @classmethod
    def tree_unflatten(cls, _, centre):
        new = cls()
        new.centre = centre[0]
        return new

    @jax.jit
    def loss(self, x):
        return jnp.sum(x**2 - 2 * self.centre * x)


LOSS = Centred().loss


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (imported, ()),
        (looked_up, ()),
        (lambda x, f: f(x), (jax.tree_util.Partial(handed, 1.0),)),
        (LOSS, ()),
        (lambda x: LOSS(x), ()),
    ],
    ids=["import", "globals", "Partial", "jitted method", "through a jitted method"],
)
def test_what_changes_out_of_sight_is_seen(monkeypatch, func, args):
    monkeypatch.setitem(sys.modules, "settings_of_a_test", SETTINGS)
    for SETTINGS.centre in (1.0, 2.0, 3.0):  # the value at zero does not tell
        assert_allclose(fmin_l_bfgs_b(func, np.zeros(2), args=args)[0], SETTINGS.centre, rtol=1e-6)


def test_traces_of_what_a_function_has_reached_are_not_kept_for_ever():
    shift = 0.0

    def func(x):
        return jnp.sum((x - shift) ** 2)

    for step in range(20):
        shift = 1.0 + step
        assert_allclose(fmin_l_bfgs_b(func, START)[0], shift, rtol=1e-5)
    assert len(objectives._TRACES[func]) <= objectives.MOST


def test_functions_and_what_they_hold_are_not_kept_alive():
    class Data:
        def __init__(self):
            self.values = np.ones(1000)

    alive = []
    for wrap in (jax.jit, lambda func: func):
        data = Data()
        alive.append(weakref.ref(data))
        fmin_l_bfgs_b(wrap(lambda x, data=data: jnp.sum((x - data.values[:2]) ** 2)), START)
    del data
    jax.clear_caches()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize("other", [jnp.full(2, 2.0), np.full(2, 3.0)], ids=["JAX", "NumPy"])
def test_other_arrays_in_args_compile_nothing(compiled, other):
    func = jax.jit(lambda x, a: jnp.sum((x - a) ** 2))
    fmin_l_bfgs_b(func, START, args=(other - 1,))
    compiled.clear()
    x, *_ = fmin_l_bfgs_b(func, CREST, args=(other,))
    assert_allclose(x, other, rtol=1e-6)
    assert compiled == []


def test_other_floats_in_args_compile_nothing(compiled):
    func = jax.jit(jax_valley)
    fmin_l_bfgs_b(func, START, args=(3.0,))
    compiled.clear()
    fmin_l_bfgs_b(func, START, args=(4.0,))
    assert compiled == []


# What a program remembers, and what it must not


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def loss(self, x):
        return self.weight * jnp.sum(x**2) - jnp.sum(x)


def test_a_method_sees_its_object_as_it_is_now():
    ridge = Weighted(1.0)
    first = fmin_l_bfgs_b(ridge.loss, np.zeros(2))[0]
    ridge.weight = 10.0  # the value at the start does not tell
    assert_allclose([first, fmin_l_bfgs_b(ridge.loss, np.zeros(2))[0]], [[0.5, 0.5], [0.05, 0.05]])


def test_an_object_in_args_is_seen_as_it_is_now():
    ridge, found = Weighted(1.0), []
    for ridge.weight in (1.0, 10.0):
        found.append(fmin_l_bfgs_b(lambda x, ridge: ridge.loss(x), np.zeros(2), args=(ridge,))[0])
    assert_allclose(found, [[0.5, 0.5], [0.05, 0.05]])


def test_what_a_function_closes_over_is_seen_as_it_is_now():
    def loss(x):
        return weight * jnp.sum(x**2) - jnp.sum(x)

    weight = 1.0
    first = fmin_l_bfgs_b(loss, np.zeros(2))[0]
    weight = 10.0
    assert_allclose([first, fmin_l_bfgs_b(loss, np.zeros(2))[0]], [[0.5, 0.5], [0.05, 0.05]])


SIGN = 1.0


def through(x):
    return jnp.sum((x - SIGN) ** 2)


def test_data_that_changed_in_place_are_seen_as_they_are_now(monkeypatch):
    data, options = np.array([1.0, -1.0]), [1.0]

    def loss(x):
        return jnp.sum(options[0] * (x - data) ** 2) + through(x)

    for sign in (1.0, -1.0):  # the value at zero does not tell
        monkeypatch.setitem(globals(), "SIGN", sign)
        data *= sign
        assert_allclose(fmin_l_bfgs_b(loss, np.zeros(2))[0], (sign + data) / 2, atol=1e-6)


@pytest.mark.parametrize("centre", [1.0, 2.0])
def test_arrays_that_a_jitted_function_inside_closes_over_are_its_own(centre):
    data = np.full(2, centre)
    inner = jax.jit(lambda x: jnp.sum((x - data) ** 2))
    assert_allclose(fmin_l_bfgs_b(lambda x: 2 * inner(x), np.zeros(2))[0], centre)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_a_custom_derivative_is_that_of_this_function(slope):
    @jax.custom_vjp
    def loss(x):
        return jnp.sum(x**2)

    loss.defvjp(lambda x: (loss(x), x), lambda x, f: (f * (2 * x + slope),))
    x, _, d = fmin_l_bfgs_b(lambda x: loss(x), np.ones(2), maxiter=1)
    assert_allclose(d["grad"], 2 * x + slope)


def test_an_argument_that_func_asks_for_its_type_is_a_constant():
    def loss(x, a):
        return jnp.sum((x - (a if np.isscalar(a) else 0)) ** 2)

    assert_allclose(fmin_l_bfgs_b(loss, np.zeros(2), args=(3.0,))[0], 3)


def test_a_masked_array_is_not_taken_for_its_numbers():
    masked = np.ma.array([1.0, 2.0, 100.0], mask=[0, 0, 1])
    with pytest.raises(TypeError, match="three ways out"):
        fmin_l_bfgs_b(lambda x, d: ((x[0] - d) ** 2).sum() + x[1] ** 2, np.zeros(2), args=(masked,))


def test_another_function_than_func_is_warned_of():
    random = np.random.default_rng(0)
    with pytest.warns(RuntimeWarning, match="traced by JAX.*three ways out"):
        fmin_l_bfgs_b(lambda x: jnp.sum(x**2) + random.random(), START)


def test_the_value_of_func_in_float32_is_no_other_function():
    with jax.enable_x64(False):
        fmin_l_bfgs_b(lambda x: jnp.sum((x - 1 / 3) ** 2), np.full(3, 1 / 3))


@pytest.mark.parametrize("wrap", [jax.jit, lambda func: func], ids=["jitted", "plain"])
@pytest.mark.parametrize("seen", ["args", "closure"])
def test_data_may_be_keys_or_of_another_byte_order(wrap, seen):
    key, foreign = jax.random.key(1), np.array([1.0, 2.0], ">f8")

    def loss(x, key=key, foreign=foreign):
        return jnp.sum((x - foreign.astype(float) - jax.random.normal(key, (2,))) ** 2)

    args = (key, foreign) if seen == "args" else ()
    x, *_ = fmin_l_bfgs_b(wrap(lambda x, *args: loss(x, *args)), np.zeros(2), args=args)
    assert_allclose(x, foreign + np.asarray(jax.random.normal(key, (2,))))


def test_where_a_gpu_is_the_default_the_answer_goes_to_the_device_of_jax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, *_ = fmin_l_bfgs_b(lambda x, a: jnp.sum((x - a) ** 2), START, args=(2.0,))
    assert_allclose(x, 2, rtol=1e-6)


def test_a_point_is_not_evaluated_twice_in_a_row():
    counts = [
        solve(lambda x: (float(np.sum((x - 1) ** 2)), 2 * (x - 1)), [1e30, 1.0])[2]["funcalls"]
        for solve in (scipy.optimize.fmin_l_bfgs_b, fmin_l_bfgs_b)
    ]
    assert counts[0] == counts[1]


def test_complex_differences_beside_a_fixed_variable():
    found = scipy_method(lambda x: sum((x - 3) ** 2), [0.0, 1.0], jac="cs", bounds=[(0, 5), (1, 1)])
    assert_allclose(found.x, [3, 1])
