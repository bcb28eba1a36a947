"""The solver: pure functions over a state, one evaluation an update, every end reached, none of them left again."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import BY_NAME, bumpy, random_problem

from jaxlbfgsb import Box, Options, Status, continue_from, init, solver, step

update = jax.jit(solver.update)
run = jax.jit(solver.run, static_argnums=0)

# Small and large n (dense and compact models), with bounds that become active and without.
MIXED = ["chained_rosenbrock_10", "chained_rosenbrock_50", "broyden_tridiagonal", "wood"]
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@cache
def listed(name, dtype=jnp.float64):
    """A problem of the list as run takes it: value_and_grad, state, box."""
    problem = BY_NAME[name]
    box = Box(jnp.asarray(problem.lower, dtype), jnp.asarray(problem.upper, dtype))
    box = box if np.isfinite(box).any() else None
    return jax.jit(jax.value_and_grad(problem.fun)), init(jnp.asarray(problem.x0, dtype), box), box


def rosenbrock(x, height=100.0):
    return height * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def at(*x, dtype=jnp.float64):
    return jnp.array(x, dtype)


def solve(fun, x0, box=None, options=Options()):
    return run(jax.value_and_grad(fun), init(x0, box), box, options)


def walk(value_and_grad, state, box=None, options=Options()):
    """The states after each evaluation until the run ends."""
    while state.status == Status.RUNNING:
        state = update(state, *value_and_grad(state.x), box, options)
        yield state


def assert_identical(a, b):
    """Every leaf, bit for bit."""
    for leaf, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert leaf.dtype == other.dtype
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


# init


def test_init_asks_for_the_projected_start():
    assert_array_equal(init(at(-3, 0, 3), Box(at(-1, -1, -1), at(1, 1, 1))).x, [-1, 0, 1])


def test_init_has_evaluated_nothing():
    assert init(at(1, 2)).evaluations == 0


def test_init_is_running():
    assert init(at(1, 2)).status == Status.RUNNING


def floating(state):
    return [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@DTYPES
def test_init_computes_in_the_dtype_of_x0(dtype):
    assert set(floating(init(at(1, 2, dtype=dtype)))) == {jnp.dtype(dtype)}


# update


@DTYPES
@pytest.mark.parametrize("name", MIXED)
def test_update_keeps_every_shape_and_dtype(name, dtype):
    value_and_grad, state, box = listed(name, dtype)
    assert jax.eval_shape(partial(step, value_and_grad, box=box), state) == jax.eval_shape(lambda: state)


def test_update_takes_one_evaluation():
    value_and_grad, state, box = listed("chained_rosenbrock_10")
    assert [new.evaluations for new in walk(value_and_grad, state, box)] == list(range(1, 55))


@pytest.mark.parametrize("name", MIXED)
def test_iterate_holds_f_and_g_of_its_own_x(name):
    value_and_grad, start, box = listed(name)
    for state in walk(value_and_grad, start, box):
        assert_identical((state.iterate.f, state.iterate.g), value_and_grad(state.iterate.x))


@pytest.mark.parametrize("name", MIXED)
def test_f_never_rises(name):
    f = [state.iterate.f for state in walk(*listed(name))]
    assert np.all(np.diff(f) <= 0)


def test_residual_is_that_of_the_iterate():
    value_and_grad, start, box = listed("chained_rosenbrock_10")
    for state in walk(value_and_grad, start, box):
        assert_allclose(state.residual, oracles.kkt_residual(state.iterate.x, state.iterate.g, *box), rtol=1e-9)


def test_update_is_traced_once_for_many_objectives():
    calls = []

    @jax.jit
    def counted(state, f, g):
        calls.append(f)
        return solver.update(state, f, g)

    for height in (1.0, 10.0, 100.0):
        state = init(at(-1.2, 1))
        while state.status == Status.RUNNING:
            state = counted(state, *jax.value_and_grad(rosenbrock)(state.x, height))
    assert len(calls) == 1


def test_concave_pair_is_not_remembered():
    box = Box(at(-1, -1), at(2, 1))
    state, *_ = [s for s in walk(jax.value_and_grad(lambda x: -(x @ x)), init(at(0.1, 0.2), box), box) if s.iterations]
    assert (state.iterations, state.memory.held) == (1, 0)


# run, step


@pytest.mark.parametrize("name", MIXED)
def test_run_is_step_until_it_ends(name):
    value_and_grad, state, box = listed(name)
    *_, last = walk(value_and_grad, state, box)
    end = run(value_and_grad, state, box, Options())
    # Two programs round differently: which of two tests is met first at the end may hang on that.
    assert (end.iterations, end.evaluations) == (last.iterations, last.evaluations)


def test_scan_with_step_records_the_path_of_run():
    value_and_grad, state, box = listed("chained_rosenbrock_10")

    def record(state, _):
        new = step(value_and_grad, state, box)
        return new, new.iterate.f

    _, path = jax.lax.scan(record, state, length=54)
    assert_allclose(path, [new.iterate.f for new in walk(value_and_grad, state, box)], rtol=1e-9)


@pytest.mark.parametrize("n", [2, 25])
def test_run_under_vmap_ends_as_each_alone(n):
    problems = [random_problem(seed, n)[1:] for seed in range(8)]

    def end(x0, lower, upper, args):
        box = Box(lower, upper)
        state = solver.run(jax.value_and_grad(lambda x: bumpy(x, *args)), init(x0, box), box)
        return jnp.stack([state.iterations, state.evaluations, state.status])

    alone = [jax.jit(end)(*problem) for problem in problems]
    assert_array_equal(jax.vmap(end)(*jax.tree.map(lambda *leaves: np.stack(leaves), *problems)), alone)


# Ends


def cliff(x):
    """Nothing but NaN, and at x0 = (1, 1) too."""
    return jnp.sum(jnp.log(-x))


@jax.custom_jvp
def misled(x):
    return x @ x


@misled.defjvp
def _(primals, tangents):
    return misled(*primals), -2 * primals[0] @ tangents[0]


def island(x):
    """Finite at (1, 1) alone."""
    return jnp.where(jnp.all(x == 1), x @ x, jnp.nan)


ENDS = {
    Status.GRADIENT: (rosenbrock, Options(ftol=0.0)),
    Status.REDUCTION: (rosenbrock, Options(gtol=0.0)),
    Status.ITERATIONS: (rosenbrock, Options(max_iterations=3)),
    Status.EVALUATIONS: (rosenbrock, Options(max_evaluations=3)),
    Status.ABNORMAL: (misled, Options()),
    Status.NON_FINITE: (cliff, Options()),
}
EACH_END = pytest.mark.parametrize("status", ENDS, ids=lambda status: status.name)


@cache
def ended(status):
    """A run that ends with the status, and its options."""
    fun, options = ENDS[status]
    return solve(fun, at(1, 1) if fun is not rosenbrock else at(-1.2, 1), None, options), options


@EACH_END
def test_each_status_is_reached(status):
    assert ended(status)[0].status == status


@EACH_END
@pytest.mark.parametrize("fed", [0.0, np.nan, np.inf])
def test_finished_state_stays_as_it_is_bit_for_bit(status, fed):
    state, options = ended(status)
    assert_identical(update(state, jnp.array(fed), jnp.full(2, fed), None, options), state)


@pytest.mark.parametrize("name", MIXED)
def test_finished_state_with_a_memory_stays_as_it_is_bit_for_bit(name):
    value_and_grad, state, box = listed(name)
    end = run(value_and_grad, state, box, Options())
    assert_identical(update(end, jnp.array(np.nan), jnp.full_like(end.x, np.nan), box, Options()), end)


@EACH_END
def test_finished_state_has_its_iterate_in_x(status):
    state, _ = ended(status)
    assert_array_equal(state.x, state.iterate.x)


def test_start_at_the_minimum_ends_after_one_evaluation():
    state = solve(rosenbrock, at(1, 1))
    assert (state.status, state.iterations, state.evaluations) == (Status.GRADIENT, 0, 1)


def test_max_iterations_are_not_exceeded():
    assert solve(rosenbrock, at(-1.2, 1), None, Options(max_iterations=7)).iterations == 7


def test_max_linesearch_ends_a_search():
    assert solve(misled, at(1, 1), None, Options(max_linesearch=6)).evaluations == 7


# Line searches that fail


def feed(state, searches, f, box=None):
    """The state after this f at every trial of so many line searches, and a slope that rises."""
    for _ in range(3 * searches):
        state = update(state, jnp.array(f), -state.iterate.g, box, Options(max_linesearch=3))
    return state


def after(iterations, box=None):
    """A run on Rosenbrock's function with a memory."""
    return next(
        s for s in walk(jax.value_and_grad(rosenbrock), init(at(-1.2, 1), box), box) if s.iterations == iterations
    )


def test_failed_search_drops_the_memory():
    state = after(5)
    assert (state.memory.held, feed(state, 1, 1e3).memory.held) == (5, 0)


def test_failed_search_with_a_memory_goes_on():
    state = after(5)
    assert feed(state, 1, 1e3).status == Status.RUNNING


def test_failed_search_is_followed_by_steepest_descent():
    state = after(5)
    new = feed(state, 1, 1e3)
    assert_allclose(new.target, state.iterate.x - state.iterate.g, rtol=1e-15)


def test_failed_search_is_followed_by_the_projected_gradient():
    box = Box(at(-2, -2), at(2, 1.1))
    state = after(5, box)
    new = feed(state, 1, 1e3, box)
    assert_allclose(new.target, oracles.project(state.iterate.x - state.iterate.g, *box), rtol=1e-15)


def test_failed_search_keeps_the_iterate():
    state = after(5)
    assert_identical(feed(state, 1, 1e3).iterate, state.iterate)


def test_second_failed_search_is_abnormal():
    state = after(5)
    assert feed(state, 2, 1e3).status == Status.ABNORMAL


def test_second_failed_search_keeps_the_iterate():
    state = after(5)
    assert_identical(feed(state, 2, 1e3).iterate, state.iterate)


def test_run_goes_on_after_a_failed_search():
    state = after(5)
    *_, end = walk(jax.value_and_grad(rosenbrock), feed(state, 1, 1e3))
    assert_allclose(end.x, 1, atol=1e-5)


# NaN and inf


BAD = pytest.mark.parametrize("bad", [np.nan, np.inf])


def barrier(x, bad):
    """x - log x, least at 1; `bad` for x ≤ 0."""
    inside = x > 0
    return jnp.sum(jnp.where(inside, x - jnp.log(jnp.where(inside, x, 1)), bad))


@pytest.mark.parametrize("n", [2, 30])
@pytest.mark.parametrize("boxed", [False, True])
def test_a_box_for_init_alone_or_for_update_alone_is_an_error(n, boxed):
    box, x = Box(jnp.zeros(n), jnp.ones(n)), jnp.ones(n)
    with pytest.raises(ValueError, match="box must be None in update if it was None in init"):
        update(init(x, box if boxed else None), jnp.array(1.0), x, None if boxed else box)


@BAD
@pytest.mark.parametrize("x0", [2.0, 5.0, 100.0])
def test_step_into_a_bad_region_is_shortened_and_the_fit_goes_on(x0, bad):
    assert_allclose(solve(lambda x: barrier(x, bad), at(x0)).x, 1, atol=1e-4)


@BAD
def test_step_into_a_bad_region_is_shortened_inside_a_box(bad):
    box = Box(at(-50, -50), at(50, 50))
    assert_allclose(solve(lambda x: barrier(x, bad), at(5, 0.3), box).x, 1, atol=1e-4)


def test_square_root_model_leaves_its_domain_and_comes_back():
    data = jnp.linspace(0.0, 4.0, 20)
    state = solve(lambda b: jnp.mean((jnp.sqrt(b[0] + b[1] * data) - jnp.sqrt(0.5 + 3 * data)) ** 2), at(9, 0.1))
    assert_allclose(state.x, [0.5, 3], rtol=1e-2)


@BAD
def test_bad_gradient_beside_a_finite_value_is_stepped_back_from(bad):
    def value_and_grad(x):
        f, g = jax.value_and_grad(lambda x: barrier(x, bad))(jnp.maximum(x, 0.01))
        return f, jnp.where(x > 0.01, g, -bad)

    assert_allclose(run(value_and_grad, init(at(5)), None, Options()).x, 1, atol=1e-4)


def test_gradient_of_nan_at_the_start_is_non_finite():
    assert update(init(at(1, 2)), jnp.array(1.0), at(1, np.nan)).status == Status.NON_FINITE


def test_infinite_gradient_against_a_bound_leaves_the_other_variables_free():
    box = Box(at(0, -9), at(9, 9))
    assert_allclose(solve(lambda x: jnp.sqrt(x[0]) + (x[1] - 3) ** 2, at(0, 0), box).x, [0, 3], atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_value_at_the_start_is_non_finite(bad):
    assert update(init(at(1, 2)), jnp.array(bad), at(1, 2)).status == Status.NON_FINITE


def test_bad_value_everywhere_leaves_x_at_the_start():
    assert_array_equal(solve(cliff, at(1, 2)).x, [1, 2])


def test_bad_value_all_along_the_first_direction_is_non_finite():
    assert solve(island, at(1, 1)).status == Status.NON_FINITE


def test_bad_value_all_along_the_first_direction_leaves_the_start():
    state = solve(island, at(1, 1))
    assert_identical(state.iterate, solver.Iterate(at(1, 1), jnp.array(2.0), at(2, 2)))


@BAD
def test_bad_value_in_the_middle_leaves_the_last_iterate(bad):
    state = after(5)
    assert_identical(feed(state, 2, bad).iterate, state.iterate)


@BAD
def test_bad_value_in_the_middle_is_non_finite(bad):
    state = after(5)
    assert feed(state, 2, bad).status == Status.NON_FINITE


# continue_from


STOPS = pytest.mark.parametrize("stop", [
    Options(max_iterations=0), Options(max_iterations=1), Options(max_iterations=12), Options(max_evaluations=15),
    Options(gtol=1.0)], ids=str)  # fmt: skip


@STOPS
@pytest.mark.parametrize("name", MIXED)
def test_continued_run_is_bit_for_bit_the_one_that_never_stopped(name, stop):
    value_and_grad, state, box = listed(name)
    stopped = run(value_and_grad, state, box, stop)
    continued = run(value_and_grad, continue_from(stopped, box), box, Options())
    assert_identical(continued, run(value_and_grad, state, box, Options()))


def test_continued_run_may_stop_many_times():
    value_and_grad, state, box = listed("chained_rosenbrock_10")
    end = run(value_and_grad, state, box, Options())
    for iterations in range(0, 46, 5):
        state = continue_from(run(value_and_grad, state, box, Options(max_iterations=iterations)), box)
    assert_identical(run(value_and_grad, state, box, Options()), end)


def target_fit(x, target):
    return BY_NAME["chained_rosenbrock_50"].fun(x) + jnp.sum((x - target) ** 2)


@jax.jit
def fit(state, box, target):
    """The run on data that may change."""
    return solver.run(jax.value_and_grad(lambda x: target_fit(x, target)), state, box)


def test_continued_run_on_data_that_changed_needs_fewer_iterations():
    _, start, box = listed("chained_rosenbrock_50")
    before, target = fit(start, box, jnp.zeros(50)), jnp.full(50, 1e-3)
    warm = fit(continue_from(before, box), box, target)
    assert 2 * (warm.iterations - before.iterations) < fit(start, box, target).iterations


def test_continued_run_on_data_that_changed_ends_where_a_new_one_does():
    _, start, box = listed("chained_rosenbrock_50")
    warm = fit(continue_from(fit(start, box, jnp.zeros(50)), box), box, jnp.full(50, 1e-3))
    assert_allclose(warm.x, fit(start, box, jnp.full(50, 1e-3)).x, atol=1e-3)


def test_continued_run_in_another_box_starts_inside_it():
    _, start, box = listed("chained_rosenbrock_50")
    tight = Box(jnp.full(50, -0.1), jnp.full(50, 0.1))
    assert np.max(np.abs(continue_from(fit(start, box, jnp.zeros(50)), tight).x)) == 0.1


def test_continued_run_that_had_not_ended_goes_on_where_it_was():
    state = after(5)
    assert_identical(continue_from(state), state)
