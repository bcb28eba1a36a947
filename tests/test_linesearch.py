"""The state machine against the search with its branches written out, trial for trial; that one against the paper."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import linesearch
from jaxlbfgsb.linesearch import FTOL, GTOL, SIZE, STEP_MAX

pack, unpack, advance = (jax.jit(f) for f in (linesearch.pack, linesearch.unpack, linesearch.advance))


@jax.jit
def begin(f, slope, step, step_max):
    return linesearch.pack(linesearch.begin(f, slope, step, step_max))


@jax.jit
def accepts(packed, f, slope):
    return linesearch.accepts(unpack(packed), f, slope)


def unpacked(packed):
    return linesearch.unpack(np.asarray(packed))


def field(packed, name):
    return float(getattr(unpacked(packed), name))


def steps_and_end(values, step, step_max, dtype=np.float64, most=30):
    """The steps that the kernel tries and whether the last is accepted; values(trial, step) gives φ and φ', trial 0 is
    the start. The caller's part, as in the solver: what is not finite is never accepted."""
    packed = begin(*(dtype(number) for number in (*values(0, 0.0), step, step_max)))
    steps = []
    for trial in range(1, most + 1):
        steps.append(field(packed, "step"))
        f, slope = (dtype(number) for number in values(trial, steps[-1]))
        if np.isfinite(f) and np.isfinite(slope) and accepts(packed, f, slope):
            return steps, True
        packed = advance(packed, f, slope)
    return steps, False


def expected_steps_and_end(values, step, step_max, most=30):
    """The same of the oracle, and with which message it ends."""
    search, steps = oracles.LineSearch(*values(0, 0.0), step, step_max), []
    for trial in range(1, most + 1):
        steps.append(search.step)
        search.take(*values(trial, search.step))
        if search.task != "FG":
            return steps, search.task
    return steps, None


def of(phi):
    """values(trial, step) of a function of the step alone."""
    return lambda trial, step: phi(step)


# The six functions of MT §5: φ and φ'.


def rational(t, beta=2):
    return -t / (t**2 + beta), (t**2 - beta) / (t**2 + beta) ** 2


def quintic(t, beta=0.004):
    u = t + beta
    return u**5 - 2 * u**4, 5 * u**4 - 8 * u**3


def wavy(t, beta=0.01, waves=39):
    if t <= 1 - beta:
        f, slope = 1 - t, -1
    elif t >= 1 + beta:
        f, slope = t - 1, 1
    else:
        f, slope = (t - 1) ** 2 / (2 * beta) + beta / 2, (t - 1) / beta
    angle = waves * math.pi / 2 * t
    return f + 2 * (1 - beta) / (waves * math.pi) * math.sin(angle), slope + (1 - beta) * math.cos(angle)


def yanai(beta1, beta2):
    gamma1, gamma2 = (math.sqrt(1 + beta**2) - beta for beta in (beta1, beta2))

    def phi(t):
        left, right = math.hypot(1 - t, beta2), math.hypot(t, beta1)
        return gamma1 * left + gamma2 * right, -gamma1 * (1 - t) / left + gamma2 * t / right

    return phi


PAPER = [rational, quintic, wavy, yanai(0.001, 0.001), yanai(0.01, 0.001), yanai(0.001, 0.01)]
STARTS = [1e-3, 1e-1, 1e1, 1e3]
TABLES = [  # MT, tables I-VI: FTOL, GTOL, and for each start the evaluations and the step they end with
    (0.001, 0.1, [(6, 1.4), (3, 1.4), (1, 10), (4, 37)]),
    (0.1, 0.1, [(12, 1.6), (8, 1.6), (8, 1.6), (11, 1.6)]),
    (0.1, 0.1, [(12, 1.0), (12, 1.0), (10, 1.0), (13, 1.0)]),
    (0.001, 0.001, [(4, 0.085), (1, 0.10), (3, 0.35), (4, 0.83)]),
    (0.001, 0.001, [(6, 0.075), (3, 0.078), (7, 0.073), (8, 0.076)]),
    (0.001, 0.001, [(13, 0.93), (11, 0.93), (8, 0.92), (11, 0.92)]),
]


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("function", range(6))
def test_the_oracle_reproduces_the_tables_of_the_paper(function, start):
    phi, (ftol, gtol, table), step, evaluations = PAPER[function], TABLES[function], STARTS[start], 0
    search = oracles.LineSearch(*phi(0.0), step, 4 * max(1, step), ftol, gtol, xtol=1e-10)
    while search.task == "FG":
        search.take(*phi(search.step))
        evaluations += 1
    assert (evaluations, float(f"{search.step:.2g}")) == table[start]


@pytest.mark.parametrize("step", STARTS)
@pytest.mark.parametrize("phi", PAPER)
def test_steps_on_the_functions_of_the_paper_equal_the_oracle(phi, step):
    steps, _ = steps_and_end(of(phi), step, STEP_MAX)
    expected, _ = expected_steps_and_end(of(phi), step, STEP_MAX)
    assert_allclose(steps, expected, rtol=1e-9)


# Random functions that fall at 0.


def cubic(rng):
    a, b, c = 10 ** rng.uniform(-2, 2), *rng.normal(size=2) * 10
    return lambda t: (-a * t + b * t**2 + c * t**3, -a + 2 * b * t + 3 * c * t**2)


def quartic(rng):
    (a, d), (b, c) = 10 ** rng.uniform(-2, 2, 2), rng.normal(size=2) * 10
    return lambda t: (-a * t + b * t**2 + c * t**3 + d * t**4, -a + 2 * b * t + 3 * c * t**2 + 4 * d * t**3)


def oscillating(rng):
    (a, b, c), w = 10 ** rng.uniform(-2, 2, 3), rng.uniform(1, 60)
    return lambda t: (-a * t + b * t**2 - c * math.sin(w * t), -a + 2 * b * t - c * w * math.cos(w * t))


def steep(rng):
    a, k = 10 ** rng.uniform(-2, 2), rng.uniform(0.1, 8)
    return lambda t: (math.exp(min(k * t, 600)) - (k + a) * t, k * math.exp(min(k * t, 600)) - k - a)


def decaying(rng):
    k = 10 ** rng.uniform(-2, 2)
    return lambda t: (math.exp(-k * t), -k * math.exp(-k * t))


def misleading(rng):
    """Slopes that are wrong by a factor, and of noise."""
    a, b, wrong = 10 ** rng.uniform(-2, 1, 3)
    return lambda t: (-a * t + b * t**2 + 1e-3 * math.sin(1e3 * t), wrong * (-a + 2 * b * t))


FAMILIES = [cubic, quartic, oscillating, steep, decaying, misleading]


def drawn(family, seed):
    """φ, the first step and the longest: in half of the searches it is one that may well be reached."""
    rng = np.random.default_rng(seed)
    phi = family(rng)
    step_max = rng.choice([STEP_MAX, 10 ** rng.uniform(-1, 2)])
    return phi, min(step_max, rng.choice([1, 10 ** rng.uniform(-2, 2)])), step_max


every_function = pytest.mark.parametrize(
    ("family", "seed"), [(family, seed) for family in FAMILIES for seed in range(30)]
)


@every_function
def test_steps_equal_the_oracle_trial_for_trial(family, seed):
    phi, step, step_max = drawn(family, seed)
    steps, _ = steps_and_end(of(phi), step, step_max)
    expected, _ = expected_steps_and_end(of(phi), step, step_max)
    # Differences of φ cancel in the cubics, and each trial rests on those before: sqrt(eps) is room for both, and far
    # from any other branch.
    assert_allclose(steps, expected, rtol=1e-8)


@every_function
def test_the_search_ends_where_the_oracle_does(family, seed):
    phi, step, step_max = drawn(family, seed)
    _, accepted = steps_and_end(of(phi), step, step_max)
    assert accepted == (expected_steps_and_end(of(phi), step, step_max)[1] is not None)


def test_random_searches_end_in_every_way_but_at_step_zero():
    ends = {expected_steps_and_end(of(phi), step, step_max)[1]
            for phi, step, step_max in (drawn(family, seed) for family in FAMILIES for seed in range(30))}  # fmt: skip
    assert {"CONVERGENCE", "WARNING: XTOL TEST SATISFIED", "WARNING: STP = STPMAX"} <= ends


# Values read from a script, whatever the step is: every branch, with ties and zeros, and nothing to amplify rounding.


def script(seed, finite=True):
    rng = np.random.default_rng(seed)
    f, slope = rng.choice([-2, -1, -1e-3, 0, 1e-3, 1], 40), rng.choice([-2, -1, -0.5, 0, 0.5, 1, 2], 40)
    f, slope = (np.where(rng.random(40) < 0.5, a, rng.normal(size=40)) for a in (f, slope))
    f = np.where(rng.random(40) < 0.3, f.cumsum(), f)
    if not finite:
        f = np.where(rng.random(40) < 0.2, rng.choice([np.nan, np.inf, -np.inf], 40), f)
        slope = np.where(rng.random(40) < 0.1, rng.choice([np.nan, np.inf, -np.inf], 40), slope)
    f[0], slope[0] = 0, -rng.choice([0.5, 1, 2])
    step, step_max = rng.choice([1, 0.3]), rng.choice([STEP_MAX, 1, 5])
    return lambda trial, step: (float(f[trial]), float(slope[trial])), step, step_max


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_scripted_steps_equal_the_oracle(seed, finite):
    values, step, step_max = script(seed, finite)
    steps, _ = steps_and_end(values, min(step, step_max), step_max)
    expected, _ = expected_steps_and_end(values, min(step, step_max), step_max)
    assert_allclose(steps, expected, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_scripted_searches_end_where_the_oracle_does(seed, finite):
    values, step, step_max = script(seed, finite)
    _, accepted = steps_and_end(values, min(step, step_max), step_max)
    assert accepted == (expected_steps_and_end(values, min(step, step_max), step_max)[1] is not None)


def test_scripted_searches_end_in_every_way():
    ends = {expected_steps_and_end(values, min(step, step_max), step_max)[1]
            for values, step, step_max in (script(seed) for seed in range(100))}  # fmt: skip
    assert "WARNING: ROUNDING ERRORS PREVENT PROGRESS" in ends


def test_a_cubic_without_a_minimizer_sends_the_step_to_the_end_of_the_interval():
    # From 0.75 to 3.75 the cubic has slopes -8 and -2 and falls by 14: its discriminant is 0, exactly.
    values = [(0.0, -1.0), (-1.0, -8.0), (-15.0, -2.0), (-16.0, 0.0)]
    steps, _ = steps_and_end(lambda trial, step: values[trial], 0.75, STEP_MAX)
    assert steps == [0.75, 3.75, 15.75]


# What has to hold of any search.


@every_function
def test_steps_stay_between_zero_and_the_longest(family, seed):
    phi, step, step_max = drawn(family, seed)
    steps, _ = steps_and_end(of(phi), step, step_max)
    assert all(0 <= step <= step_max for step in steps)


@pytest.mark.parametrize("seed", range(30))
def test_float32_search_meets_the_wolfe_conditions(seed):
    phi, step, _ = drawn(steep, seed)
    steps, accepted = steps_and_end(of(phi), min(step, 2), STEP_MAX, np.float32)
    (f0, slope0), (f, slope) = phi(0.0), phi(steps[-1])
    rounding = 8 * np.finfo(np.float32).eps
    enough = f <= f0 + FTOL * steps[-1] * slope0 + rounding * (abs(f0) + abs(f))
    assert accepted & enough & (abs(slope) <= GTOL * abs(slope0) * (1 + rounding))


def test_a_function_that_falls_for_ever_is_followed_to_the_longest_step():
    steps, accepted = steps_and_end(lambda trial, t: (-t, -1.0), 1.0, 50.0)
    assert accepted
    assert steps[-1] == 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["f", "slope", "both"])
def test_a_trial_that_is_not_finite_halves_the_interval(bad, which):
    packed = begin(1.0, -1.0, 1.0, STEP_MAX)
    f, slope = bad if which != "slope" else 0.5, bad if which != "f" else -0.5
    assert field(advance(packed, f, slope), "step") == 0.5


def walled(phi, wall, beyond):
    return lambda t: phi(t) if t <= wall else (beyond, beyond)


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("family", FAMILIES[:5])
def test_steps_before_a_wall_equal_the_oracle(family, seed, beyond):
    phi, step, _ = drawn(family, seed)
    values = of(walled(phi, 10 ** np.random.default_rng(seed).uniform(-3, 0), beyond))
    steps, _ = steps_and_end(values, step, STEP_MAX)
    assert_allclose(steps, expected_steps_and_end(values, step, STEP_MAX)[0], rtol=1e-8)


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("family", [quartic, steep, decaying])
def test_a_search_before_a_wall_ends_lower_than_it_began(family, seed, beyond):
    phi, step, _ = drawn(family, seed)
    wall = 10 ** np.random.default_rng(seed).uniform(-3, 0)
    steps, accepted = steps_and_end(of(walled(phi, wall, beyond)), step, STEP_MAX)
    assert accepted
    assert steps[-1] <= wall
    assert phi(steps[-1])[0] < phi(0.0)[0]


anything = st.one_of(st.floats(allow_subnormal=False), st.sampled_from([0.0, 1.0, -1.0, 1e308, -1e308, np.nan, np.inf]))


@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=6), st.floats(1e-3, 1e3), st.floats(1, 1e10))
def test_no_step_is_ever_nan_or_out_of_range(values, step, factor):
    packed, step_max = begin(1.0, -1.0, step, step * factor), step * factor
    for f, slope in values:
        if np.isfinite(f) and np.isfinite(slope) and accepts(packed, f, slope):
            break
        packed = advance(packed, f, slope)
        assert 0 <= field(packed, "step") <= step_max


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_near_overflow_gives_a_step(dtype):
    huge = np.finfo(dtype).max / 2
    packed = begin(dtype(1), dtype(-1), dtype(1), dtype(STEP_MAX))
    assert 0 < field(advance(packed, huge, huge), "step") < 1


# The vector that holds the state.


def random_search(seed, dtype):
    numbers = np.random.default_rng(seed).normal(size=SIZE).astype(dtype)
    return linesearch.unpack(numbers)


def test_size_counts_the_numbers_of_a_search():
    assert len(jax.tree.leaves(linesearch.begin(*jnp.array([1.0, -1.0, 1.0, 2.0])))) == SIZE


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_unpacking_undoes_packing(seed, dtype):
    search = random_search(seed, dtype)
    jax.tree.map(assert_array_equal, unpack(pack(search)), search)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_packing_undoes_unpacking(seed, dtype):
    packed = np.random.default_rng(seed).normal(size=SIZE).astype(dtype)
    found = pack(unpack(packed))
    assert found.dtype == dtype
    assert_array_equal(found, packed)


def test_a_search_counts_its_trials():
    packed = begin(1.0, -1.0, 1.0, STEP_MAX)
    for _ in range(3):
        packed = advance(packed, 2.0, 1.0)
    assert field(packed, "trials") == 3
