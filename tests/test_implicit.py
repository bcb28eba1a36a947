"""The derivative of the solution against the KKT system, finite differences of tight solves, and itself."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal
from problems import PROBLEMS, Problem, rotated

from jaxlbfgsb import Options, Status, minimize, minimize_many, reduced_solve

TIGHT = Options(ftol=0.0, gtol=1e-13)
BOX = jnp.zeros(3), jnp.ones(3)
CENTRE = jnp.array([0.3, 2.0, -1.0])  # inside, above, below
SHAPE = jnp.array([[2.0, 0.5, 0.3], [0.5, 3.0, 0.1], [0.3, 0.1, 1.0]])


@pytest.fixture(autouse=True, scope="module")
def compile_fast():
    """What these tests wait for is the compiler."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def bowl(x, centre):
    return (x - centre) @ SHAPE @ (x - centre) / 2


def solution(centre, lower=BOX[0], upper=BOX[1], **keywords):
    return minimize(bowl, jnp.full(3, 0.5), centre, bounds=(lower, upper), options=TIGHT, **keywords)


# Quadratics, whose derivative the KKT system gives


def quadratic(seed, n, share):
    """½ xᵀQx - cᵀx in a box, of whose n variables this share is at a bound of x*, every second one at the upper."""
    random = np.random.RandomState(seed)
    Q = rotated(10 ** random.uniform(0, 2, n), random)
    best = random.uniform(-1, 1, n)
    active = np.arange(n) < round(share * n)
    random.shuffle(active)
    high = active & (np.arange(n) % 2 == 0)
    lower, upper = best - random.uniform(0.5, 1, n), best + random.uniform(0.5, 1, n)
    lower, upper = np.where(active & ~high, best, lower), np.where(high, best, upper)
    multiplier = np.where(active, random.uniform(0.5, 1, n), 0) * np.where(high, -1, 1)
    return Q, Q @ best - multiplier, lower, upper, best


def kkt_derivatives(Q, x, low, high):
    """∂x/∂(c, l, u) and ∂x/∂s, s a factor of Q, from the linear system of the first-order conditions."""
    n, held = len(x), low | high
    K = np.where(held[:, None], np.eye(n), Q)
    right = np.hstack([np.diag(1.0 * ~held), np.diag(1.0 * low), np.diag(1.0 * high)])
    return np.split(scipy.linalg.solve(K, right), 3, axis=1), scipy.linalg.solve(K, np.where(held, 0, -Q @ x))


QUADRATICS = [
    pytest.param(n, share, marks=pytest.mark.slow if n in (2, 50) else [])
    for n in (1, 2, 10, 50, 200)
    for share in (0, 0.5, 1)
]


def fit(c, lower, upper, factor, Q, x0):
    """The minimizer; begun where it is, so that what is compared is the derivative and not the descent."""
    return minimize(lambda x: factor * x @ Q @ x / 2 - c @ x, x0, bounds=(lower, upper), options=TIGHT).x


forward_mode, reverse_mode = (jax.jit(mode(fit, (0, 1, 2, 3))) for mode in (jax.jacfwd, jax.jacrev))


@pytest.mark.parametrize(("n", "share"), QUADRATICS)
def test_derivatives_of_a_quadratic_are_those_of_its_kkt_system(n, share):
    Q, c, lower, upper, best = map(jnp.asarray, quadratic(n, n, share))
    forward = forward_mode(c, lower, upper, 1.0, Q, best)
    Q, lower, upper, best = map(np.asarray, (Q, lower, upper, best))
    by_vector, by_factor = kkt_derivatives(Q, best, best == lower, best == upper)
    for found, expected in zip(forward, [*by_vector, by_factor], strict=True):
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("n", "share"), QUADRATICS)
def test_reverse_is_forward_transposed(n, share):
    Q, c, lower, upper, best = map(jnp.asarray, quadratic(n, n, share))
    forward = forward_mode(c, lower, upper, 1.0, Q, best)
    reverse = reverse_mode(c, lower, upper, 1.0, Q, best)
    for one, other in zip(forward, reverse, strict=True):
        assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "condition"), [("dense", 1e4), ("dense", 1e6), ("dense", 1e8), ("cg", 1e2), ("cg", 1e4)]
)
def test_accurate_where_the_reduced_hessian_is_ill_conditioned(method, condition):
    random = np.random.RandomState(1)
    Q, c = rotated(np.logspace(0, np.log10(condition), 40), random), random.standard_normal(40)
    best = jnp.asarray(scipy.linalg.solve(Q, c))

    def loss(c):
        return jnp.sum(minimize(lambda x: x @ Q @ x / 2 - c @ x, best, linear_solver=method).x)

    expected = scipy.linalg.solve(Q, np.ones(40))
    found = jax.grad(loss)(jnp.asarray(c))
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


# The problem list, against central differences of tight solves


class Moving(NamedTuple):
    """A problem that a number θ tilts by θ pᵀx, while its bounds move by θ q."""

    problem: Problem
    p: jax.Array
    q: jax.Array

    def fun(self, x, theta):
        return self.problem.fun(x) + theta * (self.p @ x)

    def bounds(self, theta):
        return self.problem.lower + theta * self.q, self.problem.upper + theta * self.q

    def solve(self, theta, x0):
        return minimize(self.fun, x0, theta, bounds=self.bounds(theta), memory_size=20, options=TIGHT)


def newton(g, H, x, free, theta):
    """x after Newton steps on its free variables: a solve to rounding by other means."""
    for _ in range(10):
        curvature, slope = np.array(H(x, theta))[np.ix_(free, free)], np.array(g(x, theta))[free]
        x = x.at[free].add(-scipy.linalg.solve(curvature, slope))
    return x


QUICK = ("hs2", "hs25", "ties", "quadratic_1e4")
WITHOUT = (  # a minimum that is flat, degenerate, or of a condition above 1e8
    *("gulf_boxed", "hs25", "powell_badly_scaled_boxed", "powell_badly_scaled", "brown_badly_scaled", "driver1"),
    *("extended_powell_singular", "powell_singular", "biggs_exp6", "meyer", "osborne_1", "nist_lanczos3", "biggsb1"),
    *("quadratic_1e10", "beale", "brown_badly_scaled_boxed", "minimal_surface"),
)


LISTED = [
    pytest.param(entry, id=entry.name, marks=[] if entry.name in QUICK else pytest.mark.slow) for entry in PROBLEMS
]


@pytest.mark.parametrize("problem", LISTED)
def test_derivative_on_the_problem_list_is_that_of_central_differences(problem):
    random = np.random.RandomState(0)
    moving = Moving(problem, *map(jnp.asarray, random.standard_normal((2, len(problem.x0)))))
    result = jax.jit(moving.solve)(0.0, jnp.asarray(problem.x0))
    free = np.array((result.x > problem.lower) & (result.x < problem.upper))
    g, H = jax.jit(jax.grad(moving.fun)), jax.jit(jax.hessian(moving.fun))
    curvature = np.array(H(result.x, 0.0))[np.ix_(free, free)]
    multipliers = np.abs(np.array(result.grad)[~free & (problem.lower < problem.upper)])
    weak = result.degenerate or multipliers.min(initial=np.inf) <= 1e-4 * np.abs(result.grad).max()
    eigenvalues = np.linalg.eigvalsh(curvature) if free.any() else np.ones(1)
    if weak or not eigenvalues[0] > 1e-8 * eigenvalues[-1]:
        assert problem.name in WITHOUT
        return
    x = newton(g, H, result.x, free, 0.0)
    _, found = jax.jvp(lambda theta: moving.solve(theta, x).x, (0.0,), (1.0,))
    errors = []
    for size in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8):  # what is best hangs on the third derivative and on rounding
        h = size * max(1, np.abs(x).max()) / max(1, np.abs(found).max())
        there, back = (newton(g, H, jnp.where(free, x, x + t * moving.q), free, t) for t in (h, -h))
        errors.append(np.abs((there - back) / (2 * h) - found).max() / np.abs(found).max())
    assert min(errors) <= 1e-5


# What is differentiated, and how

WAYS = [jax.grad, lambda f: jax.jit(jax.jacfwd(f))]
way = pytest.mark.parametrize("way", WAYS, ids=["grad", "jit-jacfwd"])


def differences(f, at, h=1e-5):
    """Central differences of f by each entry of a vector, or by a number: one row each."""
    directions = jnp.eye(len(at)) if jnp.ndim(at) else jnp.ones(1)
    return jnp.stack([(f(at + h * e) - f(at - h * e)) / (2 * h) for e in directions])


@way
def test_a_value_that_the_objective_closes_over_gets_its_derivative(way):
    def closing(centre):
        return minimize(lambda x: bowl(x, centre), jnp.zeros(3), bounds=BOX, options=TIGHT).x[0]

    expected = differences(lambda centre: solution(centre).x[0], CENTRE)
    assert abs(expected[0]) > 0.9
    assert_allclose(way(closing)(CENTRE), expected, rtol=1e-8, atol=1e-9)


@way
def test_so_does_one_that_a_jitted_function_inside_the_objective_closes_over(way):
    def closing(centre):
        inner = jax.jit(lambda x: bowl(x, centre))
        return minimize(lambda x: 2 * inner(x), jnp.zeros(3), bounds=BOX, options=TIGHT).x[0]

    assert_allclose(way(closing)(CENTRE), jax.grad(lambda centre: solution(centre).x[0])(CENTRE), rtol=1e-12)


class Model:
    centre: jax.Array

    def __call__(self, x):
        return bowl(x, self.centre)

    def misfit(self, x):
        return bowl(x, self.centre)


@pytest.mark.parametrize("of", [lambda model: model, lambda model: model.misfit], ids=["instance", "method"])
@pytest.mark.parametrize("many", [False, True])
def test_an_object_that_has_come_to_hold_a_traced_value_gives_its_derivative(of, many):
    model = Model()

    def fitted(centre):
        model.centre = centre
        if many:
            return minimize_many(of(model), jnp.zeros((1, 3)), bounds=BOX, options=TIGHT).x[0, 0]
        return minimize(of(model), jnp.zeros(3), bounds=BOX, options=TIGHT).x[0]

    fitted(CENTRE)
    assert_allclose(jax.grad(fitted)(CENTRE), jax.grad(lambda centre: solution(centre).x[0])(CENTRE), rtol=1e-12)


@pytest.mark.parametrize("of", [lambda model: lambda x: bowl(x, model.centre), lambda model: Nested(model)])
def test_so_does_a_function_that_reaches_it_through_what_it_holds(of):
    model = Model()
    fun = of(model)

    def fitted(centre):
        model.centre = centre
        return minimize(fun, jnp.zeros(3), bounds=BOX, options=TIGHT).x[0]

    for _ in range(2):
        found = jax.grad(fitted)(CENTRE)
        assert_allclose(found, jax.grad(lambda centre: solution(centre).x[0])(CENTRE), rtol=1e-12)


class Nested:
    def __init__(self, model):
        self.models = {"a": model, "b": self}

    def __call__(self, x):
        return self.models["a"](x)


class Slotted:
    __slots__ = ("__held",)

    def __init__(self, held):
        self.__held = held

    @property
    def held(self):
        return self.__held


class Pair(NamedTuple):
    first: jax.Array
    second: int


HOLDERS = {
    "tuple": lambda centre: (centre,),
    "list": lambda centre: [0, [centre]],
    "named tuple": lambda centre: Pair(centre, 1),
    "dict": lambda centre: {0: centre},
    "slots": Slotted,
    "partial": lambda centre: partial(bowl, centre=centre),
}


@pytest.mark.parametrize(
    ("holder", "as_partial", "many"), [*((holder, False, False) for holder in HOLDERS), ("slots", True, True)]
)
def test_so_does_one_that_holds_it_in(holder, as_partial, many):
    kept = [None]

    def misfit(x, kept):
        leaf = kept[0].held if holder == "slots" else kept[0]
        leaf = leaf.keywords["centre"] if holder == "partial" else leaf
        return bowl(x, jax.tree.leaves(leaf)[-1 if holder == "list" else 0])

    fun = partial(misfit, kept=kept) if as_partial else lambda x: misfit(x, kept)

    def fitted(centre):
        kept[0] = HOLDERS[holder](centre)
        if many:
            return minimize_many(fun, jnp.zeros((1, 3)), bounds=BOX, options=TIGHT).x[0, 0]
        return minimize(fun, jnp.zeros(3), bounds=BOX, options=TIGHT).x[0]

    fitted(CENTRE)
    expected = jax.grad(lambda centre: solution(centre).x[0])(CENTRE)
    for _ in range(2):
        assert_allclose(jax.grad(fitted)(CENTRE), expected, rtol=1e-12)


def test_an_empty_cell_of_a_closure_is_no_hindrance():
    def fun(x):
        return later if x.shape == (7,) else jnp.sum((x - 1) ** 2)

    assert_allclose(minimize(fun, jnp.zeros(2)).x, [1, 1])
    later = 0.0


@way
def test_a_custom_rule_that_closes_over_a_traced_value_is_refused(way):
    def closing(centre):
        @jax.custom_vjp
        def custom(x):
            return bowl(x, centre)

        custom.defvjp(lambda x: (bowl(x, centre), x), lambda x, f: (f * SHAPE @ (x - centre),))
        return minimize(custom, jnp.zeros(3)).x.sum()

    with pytest.raises(TypeError, match="closes over a traced value"):
        way(closing)(CENTRE)


@way
def test_the_value_has_the_derivative_of_the_envelope(way):
    assert_allclose(
        way(lambda centre: solution(centre).fun)(CENTRE), -SHAPE @ (solution(CENTRE).x - CENTRE), rtol=1e-12
    )


@way
def test_the_value_follows_the_bounds_by_their_multipliers(way):
    x, grad = solution(CENTRE).x, solution(CENTRE).grad
    assert_allclose(way(lambda upper: solution(CENTRE, upper=upper).fun)(BOX[1]), jnp.where(x == 1, grad, 0))


def test_a_gradient_that_is_returned_follows_too():
    jacobian = jax.jacrev(lambda centre: solution(centre).grad)(CENTRE)
    expected = differences(lambda centre: solution(centre).grad, CENTRE).T
    assert_allclose(jacobian, expected, rtol=1e-8, atol=1e-8)


@way
def test_the_start_has_no_derivative(way):
    assert_array_equal(way(lambda x0: minimize(bowl, x0, CENTRE, bounds=BOX).x.sum())(jnp.full(3, 0.1)), 0)


def test_the_options_have_no_derivative():
    assert jax.grad(lambda gtol: minimize(bowl, BOX[0], CENTRE, options=Options(gtol=gtol)).x.sum())(1e-6) == 0


def test_one_number_may_be_the_bound_of_all():
    def stretched(high):
        return minimize(bowl, jnp.zeros(3), 3 * jnp.ones(3), bounds=(None, high), options=TIGHT).x.sum()

    assert jax.grad(stretched)(1.0) == 3


def test_a_fixed_variable_follows_the_bound_that_it_is_pressed_on():
    def fixed(lower, upper):
        return minimize(bowl, jnp.zeros(3), CENTRE, bounds=(lower, upper)).x.sum()

    by_lower, by_upper = jax.grad(fixed, (0, 1))(jnp.ones(3), jnp.ones(3))
    pressed = jax.grad(bowl)(jnp.ones(3), CENTRE) >= 0
    assert_array_equal((by_lower, by_upper), (pressed, ~pressed))


def test_integers_and_keys_in_args_are_fine():
    def noisy(x, data):
        return bowl(x, data["centre"]) * data["count"].astype(x.dtype) + 0 * jax.random.normal(data["key"])

    def fitted(centre):
        data = {"centre": centre, "count": jnp.array(2), "key": jax.random.key(0)}
        return minimize(noisy, jnp.zeros(3), data, bounds=BOX, options=TIGHT).x[0]

    assert_allclose(jax.grad(fitted)(CENTRE), jax.grad(lambda centre: solution(centre).x[0])(CENTRE), rtol=1e-12)


def test_aux_has_the_derivative_that_the_chain_rule_gives():
    def with_aux(x, centre):
        return bowl(x, centre), {"moments": x**2 + centre, "count": jnp.array(3)}

    def aux(centre):
        return minimize(with_aux, jnp.zeros(3), centre, bounds=BOX, has_aux=True, options=TIGHT).aux["moments"]

    x, dx = solution(CENTRE).x, jax.jacrev(lambda centre: solution(centre).x)(CENTRE)
    assert_allclose(jax.jacrev(aux)(CENTRE), 2 * x[:, None] * dx + jnp.eye(3), rtol=1e-12)


def test_a_gradient_of_one_s_own_serves():
    def own(x, centre):
        return bowl(x, centre), SHAPE @ (x - centre)

    def fitted(centre):
        return minimize(own, jnp.zeros(3), centre, bounds=BOX, value_and_grad=True, options=TIGHT).x[0]

    assert_allclose(jax.grad(fitted)(CENTRE), jax.grad(lambda centre: solution(centre).x[0])(CENTRE), rtol=1e-12)


@jax.custom_vjp
def square(x):
    return x @ x


square.defvjp(lambda x: (square(x), x), lambda x, f: (2 * f * x,))


def test_reverse_mode_needs_no_forward_mode_of_the_objective():
    found = jax.grad(lambda c: minimize(lambda x: square(x - c), jnp.zeros(3), bounds=BOX).x.sum())(CENTRE)
    assert_allclose(found, [1, 0, 0])


def test_trees_in_several_dtypes_keep_them():
    def apart(x, centre):
        return (x["a"].astype(float) - centre) ** 2 + (x["b"] - 2 * centre) ** 2

    def fitted(centre):
        return minimize(apart, {"a": jnp.zeros((), jnp.float32), "b": jnp.array(0.0)}, centre).x

    found = jax.jacfwd(fitted)(0.5)
    assert (found["a"].dtype, found["b"].dtype) == (jnp.float32, jnp.float64)
    assert_allclose((found["a"], found["b"]), (1, 2), rtol=1e-6)


def test_single_precision():
    shape, centre = SHAPE.astype(jnp.float32), CENTRE.astype(jnp.float32)

    def fitted(centre):
        box = jnp.zeros(3, jnp.float32), jnp.ones(3, jnp.float32)
        return minimize(lambda x: (x - centre) @ shape @ (x - centre), jnp.zeros(3, jnp.float32), bounds=box).x[0]

    expected = jax.grad(lambda centre: solution(centre).x[0])(CENTRE)
    assert_allclose(jax.grad(fitted)(centre), expected.astype(jnp.float32), rtol=1e-5, atol=1e-6)


# Composition


def test_under_vmap_each_has_its_own():
    centres = jnp.stack([CENTRE, -CENTRE, 0.5 * CENTRE])
    found = jax.vmap(jax.grad(lambda centre: solution(centre).x @ jnp.arange(3.0)))(centres)
    each = [jax.grad(lambda centre: solution(centre).x @ jnp.arange(3.0))(centre) for centre in centres]
    assert_allclose(found, jnp.stack(each), rtol=1e-12, atol=1e-14)


def steep(x, centre):
    return bowl(x, centre) + jnp.sum((x - centre) ** 4) * jnp.sum(jnp.cosh(centre))


def steepest(centre):
    return minimize(steep, jnp.full(3, 0.5), centre, bounds=BOX, options=TIGHT)


def unrolled(centre):
    """The same solution by Newton steps from it, each of which makes one more derivative right."""
    x = jax.lax.stop_gradient(steepest(centre).x)
    free = (x > 0) & (x < 1)
    for _ in range(4):
        g, H = jax.grad(steep)(x, centre), jax.hessian(steep)(x, centre)
        H = jnp.where(free[:, None] & free[None, :], H, jnp.eye(3))
        x = x - jnp.linalg.solve(H, jnp.where(free, g, 0))
    return x


def test_second_derivatives_of_the_solution():
    expected = jax.hessian(lambda centre: unrolled(centre).sum())(CENTRE)
    assert jnp.max(jnp.abs(expected)) > 0.01
    assert_allclose(jax.hessian(lambda centre: steepest(centre).x.sum())(CENTRE), expected, rtol=1e-7, atol=1e-9)


def test_second_derivatives_of_the_value():
    expected = jax.hessian(lambda centre: steep(unrolled(centre), centre))(CENTRE)
    assert_allclose(jax.hessian(lambda centre: steepest(centre).fun)(CENTRE), expected, rtol=1e-7, atol=1e-9)


def test_a_fit_inside_a_fit_s_objective():
    def outer(centre):
        def objective(y):
            inner = minimize(steep, jnp.full(3, 0.5), y * centre, bounds=BOX, options=TIGHT)
            return (y - 1) ** 2 + inner.x[0] ** 2 / 4 + inner.fun / 50

        return minimize(objective, jnp.array(0.9), bounds=(0.8, 1.2), options=TIGHT).x

    assert_allclose(jax.jit(jax.grad(outer))(CENTRE), differences(jax.jit(outer), CENTRE), rtol=1e-5, atol=1e-7)


def test_through_scan():
    def repeated(centre):
        def follow(x, _):
            return minimize(bowl, x, x / 2 + centre / 4, bounds=BOX, options=TIGHT).x, None

        return jax.lax.scan(follow, centre, None, length=3)[0].sum()

    found = jax.grad(repeated)(CENTRE)
    assert_allclose(found, differences(repeated, CENTRE), rtol=1e-6, atol=1e-8)


def test_one_compilation_serves_all_values():
    gradient = jax.jit(jax.grad(lambda centre: solution(centre).x.sum()))
    gradient(CENTRE)
    gradient(2 * CENTRE)
    assert gradient._cache_size() == 1


# minimize_many

MANY = jnp.stack([CENTRE, -CENTRE, 0.4 * CENTRE, 3 * CENTRE, 0 * CENTRE + 0.7])


def weighted(x, centre, weight, count):
    return weight * bowl(x, centre) + count.astype(x.dtype) * jnp.sum((x - centre) ** 4)


def each_of_many(centres, weight, counts, upper):
    fits = [
        minimize(weighted, jnp.zeros(3), (*case, weight, count), bounds=(BOX[0], upper), options=TIGHT)
        for (*case,), count in zip([[c] for c in centres], counts, strict=True)
    ]
    return jnp.stack([fit.x for fit in fits])


def many(centres, weight, counts, upper):
    args, axes = (centres, weight, counts), (0, (0, None, 0), None)
    return minimize_many(
        weighted, jnp.zeros((len(centres), 3)), args, bounds=(BOX[0], upper), in_axes=axes, options=TIGHT
    ).x


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_many_fits_have_the_derivatives_of_each(transform):
    counts = jnp.arange(5)

    def loss(fits):
        return lambda centres, weight, upper: jnp.sum(jnp.sin(fits(centres, weight, counts, upper)) * MANY)

    at = MANY, jnp.array(1.5), jnp.array([1.0, 0.8, 0.9])
    found, expected = transform(jax.grad(loss(many), (0, 1, 2)))(*at), jax.grad(loss(each_of_many), (0, 1, 2))(*at)
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def test_many_fits_over_a_mesh_have_them_too():
    mesh = jax.make_mesh((1,), ("fits",))

    def loss(weight, **keywords):
        fits = minimize_many(
            lambda x, centre: weighted(x, centre, weight, jnp.array(1)), 0 * MANY, MANY, options=TIGHT, **keywords
        )
        return jnp.sum(fits.x * MANY)

    assert_allclose(jax.grad(partial(loss, mesh=mesh))(1.5), jax.grad(loss)(1.5), rtol=1e-9)


def test_a_masked_failure_among_many_leaves_the_others_their_derivative():
    def loss(scale):
        result = minimize_many(
            lambda x, centre, power: jnp.sqrt(power) * jnp.sum((scale * x - centre) ** 2), 0 * MANY, (MANY, POWERS)
        )
        return jnp.sum(jnp.where(result.converged[:, None], result.x, 0))

    POWERS = jnp.array([1.0, 1.0, -1.0, 1.0, 1.0])
    assert_allclose(jax.grad(loss)(1.0), -jnp.sum(MANY[POWERS > 0]), rtol=1e-6)


def forked(x, centre):
    return jax.lax.cond(x[0] > 0.1, bowl, lambda x, centre: bowl(x, 2 * centre), x, centre)


@pytest.mark.parametrize("fits", [jax.vmap(partial(minimize, forked)), partial(minimize_many, forked)])
def test_many_with_a_branch_that_depends_on_x_have_it_in_reverse_too(fits):
    found = jax.grad(lambda centres: jnp.sum(fits(0 * MANY, centres).x))(MANY)
    assert_allclose(found, np.where(np.asarray(MANY)[:, :1] > 0, 1, 2) * np.ones(3), rtol=1e-6)


# What has no derivative, and how that is told


def test_at_a_bound_with_no_multiplier_the_variable_stays_and_the_result_says_so():
    def touching(centre):
        return minimize(bowl, jnp.ones(3), centre, bounds=(BOX[0], None), options=TIGHT)

    result = touching(jnp.zeros(3))
    assert_array_equal(result.x, 0)
    assert result.degenerate
    assert_array_equal(jax.jacrev(lambda centre: touching(centre).x)(jnp.zeros(3)), 0)


def test_an_error_in_the_free_variables_does_not_hide_a_multiplier_of_zero():
    steep = jnp.array([[1000.0, 30.0], [30.0, 1.0]])  # the multiplier found is 30 times the error in x[1]

    def fun(x):
        return x @ steep @ x / 2 + jnp.sum(x**4) / 10 + 1

    result = minimize(fun, jnp.full(2, 0.5), bounds=(jnp.array([0.0, -jnp.inf]), None))
    assert result.grad[0] > 10 * result.residual
    assert result.degenerate


def test_a_strictly_complementary_solution_is_not_degenerate():
    assert not solution(CENTRE).degenerate


def test_a_fixed_variable_is_not_degenerate():
    assert not minimize(bowl, jnp.zeros(3), jnp.zeros(3), bounds=(0.0, 0.0)).degenerate


def test_many_say_which_are_degenerate():
    result = minimize_many(bowl, 0 * MANY[:3] + 1, jnp.stack([CENTRE, 0 * CENTRE, CENTRE]), bounds=(0.0, 1.0))
    assert_array_equal(result.degenerate, [False, True, False])


def valley(x, centre):
    return (x[0] + x[1] - centre) ** 2


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_a_cotangent_whose_square_is_no_number_is_no_zero(method):
    zero = jnp.zeros(3, jnp.float32)
    found = jax.grad(lambda c: 1e-24 * jnp.sum(minimize(narrow, zero, c, linear_solver=method).x))(zero)
    assert_allclose(found, 1e-24 * jnp.ones(3), rtol=1e-5)


def narrow(x, centre):
    return jnp.sum((x - centre) ** 2)


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_the_narrowest_leaf_says_how_well_a_system_can_be_solved(method):
    mix = rotated(np.logspace(0, 2, 4), np.random.RandomState(0))

    def both(x, c):
        z = jnp.concatenate([x["single"].astype(float), x["double"]])
        return z @ mix @ z / 2 - c @ z

    def loss(c):
        x0 = {"single": jnp.zeros(2, jnp.float32), "double": jnp.zeros(2)}
        x = minimize(both, x0, c, linear_solver=method).x
        return jnp.sum(x["single"]).astype(float) + jnp.sum(x["double"])

    assert_allclose(jax.grad(loss)(jnp.ones(4)), scipy.linalg.solve(mix, np.ones(4)), rtol=1e-4)


@pytest.mark.parametrize("method", ["dense", "cg"])
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_singular_reduced_hessian_gives_nan_or_what_solves_the_system(method, mode):
    found = mode(lambda centre: minimize(valley, jnp.zeros(2), centre, linear_solver=method).x)(1.0)
    assert jnp.all(jnp.isnan(found)) or (method == "cg" and jnp.abs(found.sum() - 1) < 1e-9)


def test_a_value_at_a_singular_reduced_hessian_has_its_derivative():
    value = jax.grad(lambda shift: minimize(lambda x: valley(x, 1.0) + 3 * shift, jnp.zeros(2)).fun)(0.0)
    assert_allclose(value, 3)


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_a_solve_that_misses_its_tolerance_gives_nan_and_says_so(method):
    condition = jnp.logspace(0, 17, 400)
    mix = jnp.asarray(np.linalg.qr(np.random.RandomState(0).standard_normal((400, 400)))[0])

    def hilly(x, c):
        return jnp.sum(condition * (mix @ x) ** 2) / 2 - c @ x

    def fitted(c):
        return minimize(hilly, jnp.zeros(400), c, linear_solver=method)

    b = jnp.asarray(np.random.RandomState(1).standard_normal(400))
    c = jnp.zeros(400)
    solve = reduced_solve(hilly, fitted(c), b, c, linear_solver=method)
    assert not solve.accurate
    assert jnp.all(jnp.isnan(jax.grad(lambda c: fitted(c).x @ b)(c)))


def test_a_saddle_gives_nan():
    assert jnp.isnan(jax.grad(lambda c: minimize(lambda x: c * x[0] - x[0] ** 2, jnp.zeros(1)).x[0])(0.0))


def test_a_run_at_its_limit_gives_the_formula_at_the_point_where_it_ended():
    short = Options(max_iterations=2)

    def ended(centre):
        return minimize(steep, jnp.full(3, 0.5), centre, bounds=(BOX[0], None), options=short)

    result = ended(CENTRE)
    assert result.status == Status.ITERATIONS
    free = np.array(result.x > 0)
    H = jax.hessian(steep)(result.x, CENTRE)
    mixed = jax.jacfwd(jax.grad(steep), 1)(result.x, CENTRE)
    expected = np.zeros((3, 3))
    expected[free] = -scipy.linalg.solve(H[np.ix_(free, free)], mixed[free])
    assert_allclose(jax.jacrev(lambda centre: ended(centre).x)(CENTRE), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("field", ["x", "fun"])
def test_a_run_that_never_began_gives_nan(mode, field):
    def crossed(lower):
        return getattr(minimize(bowl, jnp.zeros(3), CENTRE, bounds=(lower, BOX[0])), field)

    assert jnp.all(jnp.isnan(mode(crossed)(jnp.ones(3))))


def test_a_run_that_ended_on_nan_gives_nan():
    def fenced(x, c):
        return jnp.where(x[0] < 0.5, jnp.nan, c * x[0] + (x[1] - c) ** 2)

    def x(c):
        return minimize(fenced, jnp.ones(2), c).x

    assert minimize(fenced, jnp.ones(2), 1.0).status == Status.NON_FINITE
    assert minimize(fenced, jnp.ones(2), 1.0).iterations > 0
    assert jnp.all(jnp.isnan(jax.jacfwd(x)(1.0)))


def test_large_problems_take_conjugate_gradients_in_memory_for_vectors():
    n = 100_000
    centre = jnp.linspace(-1, 2, n)

    def chain(x, centre):
        return jnp.sum((x - centre) ** 2) + jnp.sum((x[1:] - x[:-1]) ** 2)

    def loss(centre):
        return jnp.sum(minimize(chain, jnp.zeros(n), centre, bounds=(0.0, 1.0)).x ** 2) / 2

    gradient = jax.jit(jax.grad(loss)).lower(centre).compile()
    used = gradient.memory_analysis()
    assert used.temp_size_in_bytes <= 80 * n * 8
    x = minimize(chain, jnp.zeros(n), centre, bounds=(0.0, 1.0)).x
    free = (np.array(x) > 0) & (np.array(x) < 1)
    bands = np.zeros((2, n))
    bands[1] = np.where(free, 2 + 2 * np.r_[1, np.full(n - 2, 2), 1], 1)
    bands[0, 1:] = np.where(free[1:] & free[:-1], -2, 0)
    expected = 2 * scipy.linalg.solveh_banded(bands, np.where(free, x, 0))
    assert_allclose(gradient(centre), expected, rtol=1e-8, atol=1e-9)


# reduced_solve


def test_reduced_solve_gives_what_the_derivative_uses():
    b = jnp.array([1.0, -2.0, 3.0])
    result = solution(CENTRE)
    solve = reduced_solve(bowl, result, b, CENTRE, bounds=BOX)
    mixed = jax.jacfwd(jax.grad(bowl), 1)(result.x, CENTRE)
    assert_allclose(-solve.z @ mixed, jax.grad(lambda centre: solution(centre).x @ b)(CENTRE), rtol=1e-12)


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_the_residual_of_a_solve_that_went_well_is_small(method):
    solve = reduced_solve(bowl, solution(CENTRE), jnp.ones(3), CENTRE, bounds=BOX, linear_solver=method)
    assert solve.accurate
    assert solve.residual < 1e-9


@pytest.mark.parametrize("method", ["dense", "cg"])
def test_reduced_solve_of_nothing_is_nothing_whatever_the_hessian_is(method):
    solve = reduced_solve(valley, minimize(valley, jnp.zeros(2), 1.0), jnp.zeros(2), 1.0, linear_solver=method)
    assert_array_equal(solve.z, 0)
    assert solve.accurate


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"b": jnp.ones(4)}, ValueError, r"b must have the structure and shapes of result\.x"),
        ({"b": jnp.ones(3, complex)}, TypeError, "b must hold real floating-point numbers"),
        ({"fun": 3}, TypeError, "fun must be a function of x, got int"),
        ({"result": {"x": 1}}, TypeError, "result must be what minimize returned, got dict"),
        ({"result": "many"}, ValueError, "result must be that of one problem"),
    ],
)
def test_reduced_solve_names_what_is_wrong(wrong, error, message):
    if wrong == {"result": "many"}:
        wrong = {"result": minimize_many(bowl, 0 * MANY, MANY)}
    with pytest.raises(error, match=message):
        reduced_solve(**{"fun": bowl, "result": solution(CENTRE), "b": jnp.ones(3), "args": CENTRE} | wrong)


@pytest.mark.parametrize(
    "call", [minimize, partial(reduced_solve, b=CENTRE), minimize_many], ids=["one", "solve", "many"]
)
def test_a_linear_solver_that_there_is_not_is_named(call):
    with pytest.raises(ValueError, match="linear_solver must be 'dense', 'cg' or None, got 'lu'"):
        call(bowl, CENTRE, linear_solver="lu")
