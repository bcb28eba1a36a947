"""lbfgsb: the steps of minimize in a user's loop, inside the bounds bit for bit, and a good neighbour in optax."""

from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from devices import printed
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal
from problems import BY_NAME, PROBLEMS, bumpy, random_problem

from jaxlbfgsb import Options, Status, best_params, is_done, lbfgsb, minimize, transform

# Problems whose counts change when the gradient is disturbed by 1e-15: there rounding decides.
CHAOTIC = {"extended_powell_singular", "extended_rosenbrock", "discrete_boundary_value", "nist_mgh10",
           "minimal_surface", "ginzburg_landau", *(f"quadratic_1e{power}" for power in (4, 6, 8, 10))}  # fmt: skip
QUICK = ["hs1", "hs2", "wood", "wood_boxed", "hs110", "quadratic_1e2"]
BFLOAT, HALF, SINGLE = jnp.bfloat16, jnp.float16, jnp.float32


class Run(NamedTuple):
    """A loop from its first evaluation until it was done."""

    points: list  # the params of each evaluation
    values: list
    params: object  # the last ones
    states: list

    @property
    def state(self):
        return self.states[-1]

    @property
    def solver(self):
        return self.state.solver


def loop(loss, tx, params, most=5000):
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    state = tx.init(params)
    points, values, states = [], [], [state]
    while not is_done(state) and len(points) < most:
        value, grads = value_and_grad(params)
        points.append(params)
        values.append(value)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        states.append(state)
    return Run(points, values, params, states)


@cache
def listed(name):
    problem = BY_NAME[name]
    return loop(problem.fun, lbfgsb(problem.lower, problem.upper), jnp.asarray(problem.x0))


@cache
def minimized(name):
    problem = BY_NAME[name]
    return minimize(problem.fun, jnp.asarray(problem.x0), bounds=(problem.lower, problem.upper))


def bowl(x):
    return sum(jnp.sum((leaf - 2) ** 2) for leaf in jax.tree.leaves(x))


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def counts(run):
    return int(run.iterations), int(run.evaluations)


def assert_identical(a, b):
    """Every leaf, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for leaf, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert leaf.dtype == other.dtype
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


# The steps are those of minimize


@pytest.mark.parametrize("name", QUICK)
def test_iterations_are_those_of_minimize(name):
    assert listed(name).solver.iterations == minimized(name).iterations


@pytest.mark.parametrize("name", QUICK)
def test_evaluations_are_those_of_minimize(name):
    assert listed(name).solver.evaluations == minimized(name).evaluations


@pytest.mark.parametrize("name", QUICK)
def test_end_is_that_of_minimize(name):
    assert_allclose(listed(name).params, minimized(name).x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", QUICK)
def test_active_bounds_of_minimize_are_hit_exactly(name):
    problem, x, ours = BY_NAME[name], minimized(name).x, listed(name).params
    for bound in (problem.lower, problem.upper):
        assert_array_equal(ours == bound, x == bound)


@pytest.mark.parametrize("name", QUICK)
def test_status_is_that_of_minimize(name):
    assert listed(name).solver.status == minimized(name).status


@pytest.mark.parametrize("name", QUICK)
def test_value_at_the_end_is_no_worse_than_that_of_minimize(name):
    f = minimized(name).fun
    assert listed(name).state.value <= f + 1e-14 * max(1, abs(f))


@pytest.mark.parametrize("name", ["hs1", "wood", "hs110"])
def test_points_are_those_that_minimize_evaluates_to_rounding(name):
    problem, asked = BY_NAME[name], []

    def recorded(x):
        jax.debug.callback(lambda x: asked.append(np.asarray(x)), x, ordered=True)
        return problem.fun(x)

    minimize(recorded, jnp.asarray(problem.x0), bounds=(problem.lower, problem.upper))
    jax.effects_barrier()
    assert_allclose(listed(name).points, asked, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_counts_are_those_of_minimize_on_95_percent_of_the_problems_where_rounding_does_not_decide():
    names = [problem.name for problem in PROBLEMS if problem.name not in CHAOTIC]
    same = [counts(listed(name).solver) == counts(minimized(name)) for name in names]
    assert np.mean(same) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.name for p in PROBLEMS if p.name not in CHAOTIC])
def test_end_is_no_worse_than_that_of_minimize(name):
    f = minimized(name).fun
    assert listed(name).state.value <= f + 1e-8 * max(1, abs(f))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHAOTIC))
def test_end_where_rounding_decides_is_about_that_of_minimize(name):
    start, f = BY_NAME[name].fun(jnp.asarray(BY_NAME[name].x0)), minimized(name).fun
    assert listed(name).state.value - f <= 1e-5 * abs(start - f)


@pytest.mark.parametrize("name", ["hs1", "hs2", "quadratic_1e2"])
def test_one_evaluation_a_step(name):
    assert len(listed(name).points) - listed(name).solver.evaluations in (0, 1)  # 1: the start was outside the bounds


def test_start_outside_the_bounds_is_moved_inside_before_anything_is_evaluated():
    run = loop(bowl, lbfgsb(0.0, 1.0), jnp.array([-3.0, 0.5, 7.0]))
    assert_array_equal(run.points[1], [0, 0.5, 1])


def test_start_further_outside_than_an_update_can_lead_is_moved_inside():
    run = loop(lambda x: slope(x.astype(SINGLE)), lbfgsb(-6e4, -6e4), jnp.full(3, 6e4, HALF), 20)
    assert is_done(run.state)
    assert_array_equal(run.params, jnp.full(3, -6e4, HALF))


@pytest.mark.parametrize("bounds", [(None, None), (0.0, 2.0)])
@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
def test_start_that_is_not_finite_ends_the_run_before_it_begins(bad, bounds):
    state = lbfgsb(*bounds).init(ONE.at[1].set(bad))
    assert is_done(state)
    assert state.solver.status == Status.BAD_X0


def test_updates_lead_to_no_inf():
    step, _ = transform._step_to(
        jnp.array([6e4, -6e4], HALF), *jnp.array([[1e6, -1e6], [-jnp.inf] * 2, [jnp.inf] * 2], SINGLE)
    )
    assert_array_equal(jnp.array([6e4, -6e4], HALF) + step, jnp.array([65504, -65504], HALF))


def test_point_evaluated_is_the_params_that_update_is_given():
    # A step that someone else makes half as long: the pair is that of the step made, so B stays right and it converges.
    tx, params, scale = lbfgsb(), jnp.array([-1.2, 1.0]), jnp.array([1.0, 30.0])
    state = tx.init(params)
    for _ in range(60):
        value, grads = jax.value_and_grad(lambda x: jnp.sum(scale * (x - 2) ** 2))(params)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, 0.9 * updates)
    assert_allclose(best_params(state, params), 2, atol=1e-5)


# Inside the bounds, bit for bit


def nearest(p, asked, low, high):
    """Of all fl(p + u) in [low, high], u in p's 16-bit dtype, the distance of the nearest to asked."""
    every = np.arange(2**16, dtype=np.uint16).view(p.dtype)
    every = every.astype(np.float32)[np.isfinite(every.astype(np.float32))]
    with np.errstate(over="ignore"):
        ends = (p.astype(np.float32) + every).astype(p.dtype).astype(np.float32)
    ends = ends[(low <= ends) & (ends <= high)]
    return np.abs(ends - asked).min()


@pytest.mark.parametrize(("dtype", "least"), [(BFLOAT, -3), (HALF, -3), (HALF, -8)])
def test_updates_lead_to_the_nearest_point_that_a_sum_can_reach_inside_the_bounds(dtype, least):
    random = np.random.RandomState(0)
    size = 10.0 ** random.uniform(least, 2, (3, 300)) * random.choice([-1, 1], (3, 300))
    low, p, high = np.sort(size, 0).astype(dtype)
    asked = (low + random.uniform(-0.1, 1.1, 300) * (high - low).astype(np.float32)).astype(np.float32)
    asked = np.clip(asked, low.astype(np.float32), high.astype(np.float32))
    box = [bound.astype(np.float32) for bound in (low, high)]
    step, distance = jax.jit(transform._step_to)(jnp.asarray(p), *map(jnp.asarray, (asked, *box)))
    expected = [nearest(*one) for one in zip(p, asked, *box, strict=True)]
    assert_array_equal(distance, np.array(expected, np.float32))
    end = np.asarray(optax.apply_updates(jnp.asarray(p), step)).astype(np.float32)
    assert_array_equal(np.abs(end - asked), distance)


@pytest.mark.parametrize("dtype", [SINGLE, jnp.float64])
def test_no_neighbour_of_an_update_leads_nearer(dtype):
    random = np.random.RandomState(1)
    size = 10.0 ** random.uniform(-9, 2, (3, 20000)) * random.choice([-1, 1], (3, 20000))
    low, p, high = np.sort(size, 0).astype(dtype)
    asked = np.where(random.uniform(size=20000) < 0.3, low, np.clip(low + (high - low) * random.uniform(), low, high))
    step, distance = jax.jit(transform._step_to)(*map(jnp.asarray, (p, asked.astype(dtype), low, high)))
    assert np.isfinite(distance).all()
    for ulps in range(-20, 21):
        near = (np.asarray(step).view(f"i{dtype.dtype.itemsize}") + ulps).view(dtype)
        end = p + near
        closer = (low <= end) & (end <= high) & (np.abs(end - asked) < distance)
        assert not closer.any()


def random_loop(seed, dtypes, steps=40):
    """A loop on a random problem in 12 variables that are spread over leaves of the dtypes, and its bounds."""
    problem = random_problem(seed, 12)
    parts = np.array_split(np.arange(12), len(dtypes))
    args = tuple(jnp.asarray(a, SINGLE) for a in problem.args)

    def cut(x):
        return [jnp.asarray(x[part]).astype(dtype) for part, dtype in zip(parts, dtypes, strict=True)]

    def loss(leaves):
        return bumpy(jnp.concatenate([leaf.astype(SINGLE) for leaf in leaves]), *args)

    lower, upper, start = cut(problem.lower), cut(problem.upper), cut(problem.x0)
    start = [jnp.clip(leaf, low, high) for low, leaf, high in zip(lower, start, upper, strict=True)]
    return loop(loss, lbfgsb(lower, upper), start, steps), lower, upper


LEAVES = pytest.mark.parametrize("dtypes", [(SINGLE,), (BFLOAT,), (BFLOAT, SINGLE, HALF)], ids=["f32", "bf16", "mixed"])


@LEAVES
@pytest.mark.parametrize("seed", range(5))
def test_params_are_never_outside_the_bounds_by_an_ulp(dtypes, seed):
    run, lower, upper = random_loop(seed, dtypes)
    for params in [*run.points, run.params]:
        for low, leaf, high in zip(lower, params, upper, strict=True):
            assert ((low <= leaf) & (leaf <= high)).all()


@LEAVES
def test_updates_are_in_the_dtype_of_each_leaf(dtypes):
    params = [jnp.ones(12 // len(dtypes), dtype) for dtype in dtypes]
    updates, _ = lbfgsb(0.5).update(params, lbfgsb(0.5).init(params), params, value=1.0)
    assert [leaf.dtype for leaf in updates] == list(dtypes)


@LEAVES
@pytest.mark.parametrize("seed", range(5))
def test_best_params_are_the_iterate_of_least_value(dtypes, seed):
    run, _, _ = random_loop(seed, dtypes)
    best = [jax.tree.all(jax.tree.map(jnp.array_equal, best_params(run.state, run.params), x)) for x in run.points]
    assert run.values[best.index(True)] == run.solver.iterate.f
    assert run.solver.iterate.f <= min(state.solver.iterate.f for state in run.states)


@LEAVES
def test_loop_ends_near_the_minimum_that_the_dtype_allows(dtypes):
    params = [jnp.full(12 // len(dtypes), 0.3, dtype) for dtype in dtypes]
    run = loop(lambda x: bowl([leaf.astype(SINGLE) for leaf in x]), lbfgsb(None, 1.0), params)
    assert is_done(run.state)
    for leaf in run.params:
        assert_array_equal(leaf, jnp.ones_like(leaf))


def test_box_is_the_bounds_cast_to_the_dtype_of_the_leaf():
    run = loop(lambda x: bowl(x[0].astype(SINGLE)), lbfgsb(upper=0.1), [jnp.zeros(12, BFLOAT)])
    assert_array_equal(run.params[0], jnp.full(12, 0.1, BFLOAT))


def test_iterates_have_the_digits_of_the_params_where_a_program_of_many_steps_keeps_more():
    # In one jit XLA may hand the params of one step to the next before they are rounded.
    tx, start, scale = lbfgsb(0.1, 2.0), jnp.full(12, 1.37, BFLOAT), jnp.linspace(0.3, 3, 12, dtype=SINGLE)

    def three_steps(x, state):
        for _ in range(3):
            value, grads = jax.value_and_grad(lambda x: jnp.sum(scale * (x.astype(SINGLE) - scale + 1) ** 2))(x)
            updates, state = tx.update(grads, state, x, value=value)
            x = optax.apply_updates(x, updates)
        return x, state.solver.iterate.x

    _, x = jax.jit(three_steps)(start, tx.init(start))
    assert_array_equal(x, x.astype(BFLOAT).astype(SINGLE))


def test_mixed_dtypes_are_computed_in_the_widest():
    state = lbfgsb().init([jnp.ones(1, BFLOAT), jnp.ones(1, jnp.float64)])
    assert state.solver.x.dtype == jnp.float64


def test_narrow_dtypes_are_computed_in_float32():
    assert lbfgsb().init(jnp.ones(1, BFLOAT)).solver.x.dtype == SINGLE


# The end


ONE = jnp.ones(3)  # from which no sum of float64 leads to 0.1


def slope(x):
    return jnp.sum(x)


def test_bound_is_missed_by_one_step_from_afar():
    assert ((loop(slope, lbfgsb(0.1, 2.0), ONE).points[1] - 0.1) > 0).all()


def test_active_bound_is_hit_exactly_at_the_end():
    assert_array_equal(loop(slope, lbfgsb(0.1, 2.0), ONE).params, 0.1)


def test_second_step_onto_a_bound_is_evaluated():
    run = loop(slope, lbfgsb(0.1, 2.0), ONE)
    assert run.state.value == slope(run.params)
    assert run.solver.evaluations == minimize(slope, ONE, bounds=(0.1, 2.0)).evaluations + 1


def test_second_step_onto_a_bound_changes_no_status():
    run = loop(lambda x: jnp.sum(x**2), lbfgsb(0.1, 2.0, options=Options(max_iterations=1)), ONE)
    assert (run.solver.status, run.solver.iterations) == (Status.ITERATIONS, 1)
    assert_array_equal(run.params, 0.1)


@pytest.mark.parametrize(
    ("there", "base", "dtype"),
    [
        (jnp.nan, 0, jnp.float64),
        (jnp.inf, 0, jnp.float64),
        (5, 0, jnp.float64),
        (2, 1e4, SINGLE),
        (1e-3, 1e6, jnp.float64),
    ],
)
def test_second_step_onto_a_bound_is_taken_back_where_the_loss_has_a_cliff(there, base, dtype):
    bound = jnp.array(0.1, dtype)
    run = loop(
        lambda x: base + slope(x) + jnp.where(jnp.all(x == bound), there, 0), lbfgsb(0.1, 2.0), ONE.astype(dtype)
    )
    assert len(run.points) == 3
    assert run.state.value == run.values[1]
    assert_array_equal(run.params, run.points[1])


def test_bound_missed_in_the_middle_is_hit_by_the_next_search():
    # The first variable jumps to its bound at once, the others go on for some iterations.
    scale = jnp.array([0.01, 0.1, 0.4])
    run = loop(lambda x: x[0] + jnp.sum(scale * (x[1:] - 1.5) ** 2), lbfgsb(0.1, 2.0), jnp.ones(4))
    first = np.asarray(run.points)[:, 0]
    assert len(first) > 4
    assert 0.1 < first[1] < 0.1 + 1e-15
    assert_array_equal(first[2:], 0.1)


@pytest.mark.parametrize("name", QUICK)
def test_params_at_the_end_are_the_best(name):
    assert_array_equal(listed(name).params, best_params(listed(name).state, listed(name).params))


@pytest.mark.parametrize(("elsewhere", "status"), [(1e6, Status.ABNORMAL), (jnp.nan, Status.NON_FINITE)])
def test_params_at_the_end_are_the_best_after_a_search_that_failed(elsewhere, status):
    start = jnp.array([1.0, 3.0])
    run = loop(lambda x: jnp.sum(x**2) + jnp.where(jnp.all(x == start), 0, elsewhere), lbfgsb(), start)
    assert run.solver.status == status
    assert (run.points[-1] != start).any()
    assert_array_equal(run.params, start)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("value", [-1e9, jnp.nan])
def test_updates_are_zero_once_done(name, value):
    problem, run = BY_NAME[name], listed(name)
    tx = lbfgsb(problem.lower, problem.upper)
    updates, state = tx.update(jnp.full_like(run.params, value), run.state, run.params, value=jnp.array(value, float))
    assert_array_equal(updates, 0)
    assert_identical(state._replace(count=run.state.count), run.state)


def test_updates_are_zero_once_done_wherever_the_params_are():
    tx, run = lbfgsb(-2.0, 0.8), plain()
    assert_array_equal(tx.update(START, run.state, run.params - 0.5, value=jnp.array(0.0))[0], 0)


def test_run_ends_next_to_a_bound_that_no_sum_can_reach():
    # The differences of numbers next to the least that float64 has are too small for it: they count as 0.
    run = loop(slope, lbfgsb(3e-308, 2.0), ONE, 100)
    assert is_done(run.state)
    assert ((run.params >= 3e-308) & (run.params < 1e-307)).all()


@pytest.mark.parametrize("start", [1.0, 3e-5])
def test_bound_below_the_normal_numbers_of_float16_is_hit_exactly(start):
    run = loop(lambda x: slope(x.astype(SINGLE)), lbfgsb(1e-5, 2.0), jnp.full(3, start, HALF), 100)
    assert is_done(run.state)
    assert_array_equal(run.params, jnp.full(3, 1e-5, HALF))


def test_params_at_the_end_were_evaluated_where_they_are_below_the_normal_numbers_of_float16():
    run = loop(lambda x: jnp.sum((1e4 * x.astype(SINGLE) - 0.5) ** 2), lbfgsb(), jnp.full(3, 3e-5, HALF), 50)
    assert is_done(run.state)
    assert run.state.value == min(run.values)
    assert_allclose(run.params, jnp.full(3, 5e-5, HALF), rtol=1e-3)


def test_not_done_before_the_end():
    assert [bool(is_done(state)) for state in listed("hs1").states] == [False] * len(listed("hs1").points) + [True]


def test_best_params_in_the_middle_are_the_last_iterate_that_was_accepted():
    run, best, iterations, rejected = plain(), START, 0, 0
    for point, value, state in zip(run.points, run.values, run.states[1:], strict=True):
        accepted = state.solver.iterations > iterations
        best, iterations, rejected = point if accepted else best, state.solver.iterations, rejected + (not accepted)
        assert_array_equal(best_params(state, point), best)
        assert accepted == (optax.tree.get(state, "f") == value) or best is START
    assert rejected > 3


def test_nan_is_stepped_back_from():
    # The first step is to below 0, where the logarithm is NaN.
    run = loop(lambda x: jnp.sum(20 * (x - jnp.log(x))), lbfgsb(-10.0, 10.0), jnp.full(3, 3.0))
    assert jnp.isnan(jnp.stack(run.values)).any()
    assert_allclose(run.params, 1, atol=1e-4)


@pytest.mark.parametrize("bad", [Options(gtol=jnp.array(-1.0)), Options(max_linesearch=jnp.array(0))])
def test_traced_options_that_are_bad_end_the_run_before_it_begins(bad):
    def begun(options):
        tx = lbfgsb(options=options)
        state = tx.init(ONE)
        return is_done(state), tx.update(ONE, state, ONE, value=1.0)[0]

    done, updates = jax.jit(begun)(bad)
    assert done
    assert_array_equal(updates, 0)


# In optax


def walk(tx, params, loss, steps):
    """params and state after some steps, all in one jit, by lax.scan."""

    def one(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), value

    return jax.jit(lambda params: jax.lax.scan(one, (params, tx.init(params)), length=steps))(params)


START = jnp.array([-1.2, 0.7, 0.5])


@cache
def plain():
    return loop(rosenbrock, lbfgsb(-2.0, 0.8), START)


def test_scan_takes_the_same_path():
    _, values = walk(lbfgsb(-2.0, 0.8), START, rosenbrock, len(plain().points))
    assert_allclose(values, [rosenbrock(x) for x in plain().points], rtol=1e-9)


def test_scan_beyond_the_end_stays_there():
    (params, state), values = walk(lbfgsb(-2.0, 0.8), START, rosenbrock, len(plain().points) + 20)
    assert is_done(state)
    assert_allclose(params, plain().params, rtol=1e-9)
    assert len(set(values[-20:].tolist())) == 1


def test_while_loop_takes_the_same_path():
    tx = lbfgsb(-2.0, 0.8)

    def one(carry):
        params, state = carry
        value, grads = jax.value_and_grad(rosenbrock)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params, state = jax.jit(lambda x: jax.lax.while_loop(lambda c: ~is_done(c[1]), one, (x, tx.init(x))))(START)
    assert counts(state.solver) == counts(plain().solver)
    assert_allclose(params, plain().params, rtol=1e-9)


def test_step_under_jit_is_traced_once():
    tx, traced = lbfgsb(-2.0, 0.8), []

    @jax.jit
    def one(params, state):
        traced.append(params)
        value, grads = jax.value_and_grad(rosenbrock)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for _ in range(5):
        params, state = one(params, state)
    assert len(traced) == 1


def test_program_holds_a_bound_that_is_a_number_as_a_number():
    tx, x = lbfgsb(0.1, 2.0), jnp.ones(100_000)
    program = jax.jit(tx.update).lower(x, tx.init(x), x, value=1.0)
    assert len(program.as_text()) < 1_000_000


def test_state_keeps_its_structure_shapes_and_dtypes():
    shapes = [jax.tree.map(jax.typeof, state) for state in plain().states]
    assert all(shape == shapes[0] for shape in shapes)


def test_vmap_over_params():
    starts = jnp.stack([START, -START, 0 * START])
    (params, state), _ = jax.vmap(lambda x: walk(lbfgsb(-2.0, 0.8), x, rosenbrock, 100))(starts)
    assert is_done(state).all()
    assert_allclose(params, [loop(rosenbrock, lbfgsb(-2.0, 0.8), x).params for x in starts], rtol=1e-6)


def test_state_can_be_donated():
    tx, params = lbfgsb(-2.0, 0.8), START + 0
    step = jax.jit(lambda x, s: tx.update(x, s, x, value=x @ x), donate_argnums=(0, 1))
    assert step(params, tx.init(params))[1].count == 1


def test_hyperparameters_can_be_injected():
    tx = optax.inject_hyperparams(lbfgsb, static_args="memory_size")(lower=-2.0, upper=0.8)
    assert_array_equal(loop(rosenbrock, tx, START, 3).points, plain().points[:3])


def half_way(params):
    """The path with updates that a later part of a chain has changed."""
    return loop(rosenbrock, optax.chain(lbfgsb(), optax.scale(0.5)), params, 500).state


def test_updates_that_something_else_changed_are_counted():
    assert optax.tree.get(half_way(START), "astray") > 5
    assert plain().state.astray == 0


@LEAVES
def test_rounding_is_not_taken_for_a_change_of_the_updates(dtypes):
    assert random_loop(0, dtypes)[0].state.astray == 0


def test_changed_updates_do_not_keep_a_run_from_its_end():
    assert is_done(half_way(START))


def test_updates_that_something_else_leads_outside_the_bounds_end_the_run():
    run = loop(rosenbrock, optax.chain(lbfgsb(-2.0, 0.8), optax.scale(3.0)), START, 20)
    assert optax.tree.get(run.state, "status") == Status.ABNORMAL
    assert_array_equal(best_params(run.state, run.params), START)


def test_last_of_a_chain():
    tx = optax.chain(optax.identity(), lbfgsb(-2.0, 0.8))
    assert_array_equal(loop(rosenbrock, tx, START).params, plain().params)


TREE = {"frozen": {"a": jnp.ones(2), "b": jnp.ones(1)}, "moving": jnp.full(3, 0.5)}


@pytest.mark.parametrize(
    "lower", [0.1, {"frozen": None, "moving": 0.1}, jax.tree.map(lambda x: jnp.full_like(x, 0.1), TREE)]
)
@pytest.mark.parametrize(
    ("how", "frozen"), [("masked", True), ("partition", {"a": True, "b": True})], ids=["masked", "partition"]
)
def test_frozen_params_stay(how, frozen, lower):
    still = {"frozen": frozen, "moving": False}
    moving = jax.tree.map(lambda leaf: not leaf, still)
    label = jax.tree.map(lambda leaf: "still" if leaf else "moving", still)
    tx = {
        "masked": optax.chain(optax.masked(lbfgsb(lower), moving), optax.masked(optax.set_to_zero(), still)),
        "partition": optax.partition({"moving": lbfgsb(lower), "still": optax.set_to_zero()}, label),
    }[how]
    run = loop(lambda x: slope(x["frozen"]["a"]) + slope(x["moving"] ** 2), tx, TREE)
    assert_array_equal(run.params["frozen"]["a"], 1)
    assert_array_equal(run.params["moving"], 0.1)
    assert_identical(best_params(run.state, run.params), run.params)


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.chain(optax.identity(), tx)], ids=["alone", "chain"])
def test_tree_get_reads_the_state(wrap):
    state = loop(rosenbrock, wrap(lbfgsb(-2.0, 0.8)), START).state
    value, grad = jax.value_and_grad(rosenbrock)(plain().params)
    assert_allclose(optax.tree.get(state, "value"), value, rtol=1e-12)
    assert_allclose(optax.tree.get(state, "grad"), grad, atol=1e-9)
    assert optax.tree.get(state, "iterations") == plain().solver.iterations
    assert optax.tree.get(state, "status") == Status.GRADIENT
    assert optax.tree.get(state, "count") == len(plain().points)


def test_value_is_inf_until_it_is_known():
    assert [float(optax.tree.get(state, "value")) for state in plain().states[:-1]] == [np.inf] * len(plain().points)


def test_tree_get_has_the_value_of_the_last_iterate():
    for state in plain().states[2:]:
        assert_allclose(optax.tree.get(state, "f"), rosenbrock(best_params(state, START)), rtol=1e-12)


def test_loop_written_for_optax_lbfgs():
    # As in optax's documentation: the value and gradient come out of the state where they are known.
    evaluated = []

    def loss(x):
        jax.debug.callback(evaluated.append, x)
        return rosenbrock(x)

    def solve(tx):
        @jax.jit
        def step(params, state):
            value, grad = optax.value_and_grad_from_state(loss)(params, state=state)
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
            return optax.apply_updates(params, updates), state

        params, state = START, tx.init(START)
        for _ in range(60):
            params, state = step(params, state)
        jax.effects_barrier()
        return params

    with jax.numpy_dtype_promotion("standard"):
        assert_allclose(solve(optax.lbfgs()), 1, atol=1e-5)
    evaluated.clear()
    assert_allclose(solve(lbfgsb()), 1, atol=1e-5)
    assert len(evaluated) == loop(rosenbrock, lbfgsb(), START).solver.evaluations


def test_restored_in_the_middle_it_goes_on_identically(tmp_path):
    tx, run = lbfgsb(-2.0, 0.8), plain()
    half = len(run.points) // 2
    saved = {"params": run.points[half], "state": run.states[half]}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "half", saved)
        checkpointer.wait_until_finished()
        like = {"params": START, "state": tx.init(START)}
        restored = checkpointer.restore(tmp_path / "half", like)
    params, state = restored["params"], restored["state"]
    for expected in run.states[half + 1 :]:
        value, grads = jax.jit(jax.value_and_grad(rosenbrock))(params)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        assert_identical(state, expected)
    assert_identical(params, run.params)


SHARDED = """
import jax, jax.numpy as jnp, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_enable_x64", True)
from jaxlbfgsb import best_params, is_done, lbfgsb
loss = lambda x: jnp.sum(jnp.cosh(x["w"] - 1.5)) + jnp.sum((x["v"] - 3.0) ** 2 * jnp.arange(1.0, 5.0))

def alike(a, b):
    return jax.tree.all(jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), a, b))

def kept_by_jit(step, like):
    return jax.jit(step, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like))

def run(x, low, wrap):
    tx = lbfgsb(low, {"w": 1.0, "v": None})
    s, kept = tx.init(x), True
    step = wrap(lambda x, s: tx.update(jax.grad(loss)(x), s, x, value=loss(x)), (x, s))
    while not is_done(s):
        u, t = step(x, s)
        y = optax.apply_updates(x, u)
        kept, x, s = kept and alike((x, x, s), (y, u, t)), y, t
    return x, s, kept

whole = {"w": jnp.zeros((4, 2)), "v": jnp.zeros(4)}
in_jit = lambda step, like: jax.jit(step)
x, s, _ = run(whole, -1.0, in_jit)
alone = lambda step, like: step
for kind, wraps in (AxisType.Auto, (kept_by_jit, alone, in_jit)), (AxisType.Explicit, (in_jit,)):
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(kind,) * 2)
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
    parts = {"w": put(whole["w"], "a", "b"), "v": put(whole["v"], "b")}
    for wrap in wraps:
        y, t, kept = run(parts, jax.tree.map(lambda x: x - 1.0, parts), wrap)
        best = jax.tree.map(jnp.array_equal, best_params(t, y), y)
        print(kept, int(s.count) == int(t.count), bool(jnp.allclose(y["v"], x["v"])), bool((y["w"] == 1.0).all()),
              jax.tree.all(best), t.solver.memory.YS.sharding.spec == P(None, None, ("b", "a")))

for kind in AxisType.Auto, AxisType.Explicit:  # one leaf on the mesh, another nowhere in particular
    mesh = jax.make_mesh((4,), ("a",), axis_types=(kind,))
    x = {"w": jax.device_put(jnp.zeros((4, 2)), NamedSharding(mesh, P("a"))), "v": jnp.zeros(4)}
    y, t, _ = run(x, -1.0, in_jit)
    print(bool(is_done(t)), bool(jnp.allclose(y["v"], 3.0)), bool((y["w"] == 1.0).all()))
"""


@pytest.fixture(scope="module")
def sharded():
    """The lines that the program above prints on four devices."""
    return printed(SHARDED, 4).splitlines()


@pytest.mark.parametrize("line", [0, 1, 3], ids=["jit", "eager", "explicit"])
def test_sharded_params_and_the_state_keep_their_sharding_and_path(sharded, line):
    assert sharded[line] == "True True True True True True"


def test_sharded_params_keep_their_path_where_the_compiler_chooses_shardings(sharded):
    assert sharded[2].split()[1:] == ["True"] * 5


@pytest.mark.parametrize("line", [4, 5], ids=["auto", "explicit"])
def test_some_params_may_be_sharded_and_others_not(sharded, line):
    assert sharded[line] == "True True True"


PARTS = {"kept": {"a": jnp.ones(2), "b": jnp.ones(1)}, "moved": {"p": jnp.full(3, 0.5), "q": jnp.full(2, 0.5)}}
BOUND = {"kept": {"a": jnp.zeros(2), "b": 0.0}, "moved": 0.75}


@pytest.mark.parametrize("mask", [{"kept": False, "moved": True}, jax.tree.map_with_path(
    lambda path, _: path[0].key == "moved", PARTS)], ids=["prefix", "each leaf"])  # fmt: skip
@pytest.mark.parametrize("lower", [BOUND, {**BOUND, "kept": None}, {**BOUND, "moved": {"p": None, "q": 0.75}}],
                         ids=["mixed", "None", "spelled out"])  # fmt: skip
def test_bounds_of_masked_params_may_be_spelled_in_any_way(mask, lower):
    tx = optax.masked(lbfgsb(lower, {"kept": None, "moved": 2.0}), mask)
    state = tx.init(PARTS)
    updates, state = tx.update(PARTS, state, PARTS, value=jnp.array(1.0))
    assert_array_equal(optax.apply_updates(PARTS, updates)["moved"]["q"], [0.75, 0.75])


# In flax and equinox


X = jnp.linspace(-1, 1, 20, dtype=SINGLE)[:, None]
Y = jnp.sin(3 * X)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(1, 6, rngs=rngs)
        self.outer = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


def test_flax_nnx_module_with_bounds_on_one_layer():
    model = Network(nnx.Rngs(0))
    lower = jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), nnx.as_pure(nnx.state(model, nnx.Param)))
    lower["outer"]["kernel"] = jnp.zeros((6, 1), SINGLE)
    optimizer = nnx.Optimizer(model, lbfgsb(lower, 2.0), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(X) - Y) ** 2))(model)
        optimizer.update(model, grads, value=loss)
        return loss

    losses, least = [], []
    for _ in range(60):
        losses.append(float(step(model, optimizer)))
        least.append(float(model.outer.kernel[...].min()))
    assert min(losses) < 0.15 * losses[0]
    assert min(least[1:]) >= 0
    assert optax.tree.get(nnx.as_pure(optimizer.opt_state), "f") == min(losses)
    best = best_params(nnx.as_pure(optimizer.opt_state), nnx.as_pure(nnx.state(model, nnx.Param)))
    nnx.update(model, best)
    assert_allclose(jnp.mean((model(X) - Y) ** 2), min(losses), rtol=1e-5)
    assert is_done(optimizer.opt_state) == (optimizer.opt_state.solver.status != Status.RUNNING)


def test_equinox_module_with_bounds_on_one_layer():
    model = eqx.nn.MLP(1, 1, 6, 1, activation=jnp.tanh, key=jax.random.key(0), dtype=SINGLE)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        return jnp.mean((jax.vmap(eqx.combine(params, static))(X) - Y) ** 2)

    free = jax.tree.map(lambda _: -jnp.inf, params)
    lower = eqx.tree_at(lambda m: m.layers[1].weight, free, 0.0)
    run = loop(loss, lbfgsb(lower, 2.0), params, 60)
    best = best_params(run.state, run.params)
    assert loss(best) < 0.01 * loss(params)
    assert all((x.layers[1].weight >= 0).all() for x in run.points[1:])
    assert all((leaf <= 2).all() for x in run.points[1:] for leaf in jax.tree.leaves(x))


# Bad input


PAIR = {"a": jnp.ones(2), "b": jnp.ones(())}
SINGLES = jax.tree.map(lambda leaf: leaf.astype(SINGLE), PAIR)


def update(tx=None, grads=PAIR, params=PAIR, init=PAIR, state=None, **keywords):
    tx = lbfgsb() if tx is None else tx
    return tx.update(grads, tx.init(init) if state is None else state, params, **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "value is missing: call update"),
        ({"value": 1.0, "params": None}, "params are missing: call update"),
        ({"value": jnp.ones(3)}, r"value must be a real floating-point scalar, got float64\[3\]: call update"),
        ({"value": "high"}, "value must be real floating-point numbers, got str: call update"),
        ({"value": 1.0, "grads": {**PAIR, "b": "high"}}, r"grads\['b'\] must be real floating-point numbers, got str"),
        ({"value": 1.0, "state": lbfgsb(memory_size=3).init(PAIR)}, "state must be of memory_size 10, got 3"),
        ({"value": 1}, r"value must be a real floating-point scalar, got int64\[\]"),
        ({"value": 1.0, "state": optax.EmptyState()}, "state must be what init or update returned, got EmptyState"),
        ({"value": 1.0, "params": {"a": jnp.ones(2)}}, "params must have the structure that init was given"),
        ({"value": 1.0, "grads": {"a": jnp.ones(2)}}, "grads must have the structure that init was given"),
        (
            {"value": 1.0, "params": {**PAIR, "a": jnp.ones(3)}},
            r"params\['a'\] must be as .* float64\[2\], got .*\[3\]",
        ),
        ({"value": 1.0, "grads": {**PAIR, "a": jnp.ones(3)}}, r"grads\['a'\] must be as .* float64\[2\], got .*\[3\]"),
        ({"value": 1.0, "params": {**PAIR, "a": jnp.ones(2, SINGLE)}}, r"params\['a'\] must be as .* float64\[2\]"),
        (
            {"value": 1.0, "init": {**PAIR, "a": jnp.arange(2)}},
            r"params\['a'\] must be .* floating-point.*optax.masked",
        ),
        ({"value": 1.0, "init": {}}, "params must hold at least one number"),
        ({"value": 1.0, "tx": lbfgsb({"a": 0.0})}, r"lower must be a prefix of params's tree.*jax.tree.map"),
        (
            {"value": 1.0, "tx": lbfgsb(upper={"a": jnp.zeros(3), "b": None})},
            r"upper\['a'\] must broadcast to .* \[2\]",
        ),
        ({"value": 1.0, "tx": lbfgsb(1.0, 0.0)}, "lower must not be above upper"),
        ({"value": 1.0, "tx": lbfgsb(jnp.nan)}, "must be free of NaN"),
        (
            {"value": 1.0, "tx": lbfgsb(1e39), "init": SINGLES, "params": SINGLES},
            r"got inf and inf .* float32 being 3.4e\+38",
        ),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_pass(keywords, message):
    with pytest.raises(ValueError, match=message):
        update(**keywords)


@pytest.mark.parametrize("accessor", [is_done, lambda state: best_params(state, PAIR)])
@pytest.mark.parametrize("tx", [optax.identity(), optax.chain(lbfgsb(), lbfgsb())])
def test_accessors_need_one_state_of_lbfgsb(accessor, tx):
    with pytest.raises(ValueError, match=r"state must hold that of one lbfgsb, got [02]: pass what init or update"):
        accessor(tx.init(PAIR))


def test_memory_size_and_options_are_checked_at_once():
    with pytest.raises(ValueError, match="memory_size must be at least 1"):
        lbfgsb(memory_size=0)
    with pytest.raises(TypeError, match="options must be an Options"):
        lbfgsb(options=1e-5)
