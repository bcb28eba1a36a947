"""The line search of Moré and Thuente as a state machine on scalars: one evaluation of φ(t) = f(x + t d) a call.

It looks for a step t that meets the strong Wolfe conditions                                         MT (1.1)-(1.2)

    φ(t) ≤ φ(0) + FTOL t φ'(0),        |φ'(t)| ≤ GTOL |φ'(0)|

in an interval with ends `best` (the least value so far) and `other`. Stage one works on ψ(t) = φ(t) - φ(0) -
FTOL t φ'(0) until ψ(t) ≤ 0 and φ'(t) ≥ 0. The trial steps are safeguarded cubic and secant steps (MT §4, MINPACK-2's
dcstep). A NaN or inf counts as +inf: the interval ends there and is halved.

The whole state is one vector (`pack`), because on a CPU every scalar that a loop carries costs a kernel.

MT: Moré, Thuente, ACM TOMS 20 (1994).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .box import Scalar

FTOL = 1e-3  # sufficient decrease
GTOL = 0.9  # curvature: loose, as quasi-Newton steps want it
XTOL = 0.1  # relative width at which a bracket is given up
SHRINK = 0.66  # a bracket has to lose a third of its width in two trials, or it is halved
EXTEND_LO, EXTEND_HI = 1.1, 4.0  # an open interval grows by these multiples of the last move
STEP_MAX = 1e10  # where no bound is nearer


class Point(NamedTuple):
    """A step t with φ(t) and φ'(t)."""

    step: Scalar
    f: Scalar
    slope: Scalar


class Search(NamedTuple):
    """All that the search remembers between two evaluations, all of it real numbers (truths are 0 or 1)."""

    start: Point
    best: Point
    other: Point
    step: Scalar  # to be tried next
    step_max: Scalar
    lo: Scalar  # the trial step stays in [lo, hi]
    hi: Scalar
    width: Scalar  # of the interval, one and two trials ago
    width_before: Scalar
    bracketed: Scalar
    stage_one: Scalar
    trials: Scalar


SIZE = 18  # numbers in a Search


def pack(search: Search) -> Float[Array, " 18"]:
    """The search as one vector."""
    at = jnp.arange(SIZE)
    packed = jnp.zeros(SIZE, search.start.f.dtype)
    for i, number in enumerate(jax.tree.leaves(search)):  # a chain of selects fuses where a concatenation does not
        packed = jnp.where(at == i, jnp.asarray(number, packed.dtype), packed)
    return packed


def unpack(packed: Float[Array, " 18"]) -> Search:
    """The search from one vector."""
    numbers = [packed[i] for i in range(SIZE)]
    return Search(Point(*numbers[:3]), Point(*numbers[3:6]), Point(*numbers[6:9]), *numbers[9:])


def begin(f: Scalar, slope: Scalar, step: Scalar, step_max: Scalar) -> Search:
    """A search that wants `step` tried first and never goes beyond `step_max`; slope = φ'(0) < 0."""
    start = Point(jnp.zeros_like(f), f, slope)
    return Search(
        start,
        start,
        start,
        step,
        step_max,
        lo=jnp.zeros_like(f),
        hi=step + EXTEND_HI * step,
        width=step_max,
        width_before=2 * step_max,
        bracketed=jnp.zeros_like(f),
        stage_one=jnp.ones_like(f),
        trials=jnp.zeros_like(f),
    )


def accepts(search: Search, f: Scalar, slope: Scalar) -> Bool[Array, ""]:
    """True if the search ends where φ = f and φ' = slope: by MT (1.1)-(1.2), or with nothing better in sight."""
    step, lo, hi = search.step, search.lo, search.hi
    decrease = FTOL * search.start.slope
    enough = f <= search.start.f + step * decrease
    return (
        (enough & (jnp.abs(slope) <= GTOL * -search.start.slope))
        | ((search.bracketed > 0) & ((step <= lo) | (step >= hi) | (hi - lo <= XTOL * hi)))
        | ((step == search.step_max) & enough & (slope <= decrease))
        | ((step == 0) & (~enough | (slope >= decrease)))
    )


def advance(packed: Float[Array, " 18"], f: Scalar, slope: Scalar) -> Float[Array, " 18"]:
    """The search after a step that it does not accept, with φ = f and φ' = slope there (dcsrch)."""
    search = unpack(packed)
    now = Point(search.step, f, slope)
    decrease = FTOL * search.start.slope
    enough = f <= search.start.f + now.step * decrease
    stage_one = (search.stage_one > 0) & ~(enough & (slope >= 0))

    # Stage one: a lower value that is not yet low enough is judged by ψ.
    tilt = jnp.where(stage_one & (f <= search.best.f) & ~enough, decrease, 0)
    tilted = _tilt(search.best, tilt), _tilt(search.other, tilt), _tilt(now, tilt)
    trial, best, other, bracketed = _trial_step(*tilted, search.bracketed > 0, search.lo, search.hi)
    best, other = _tilt(best, -tilt), _tilt(other, -tilt)

    width = jnp.abs(other.step - best.step)
    slow = bracketed & (width >= SHRINK * search.width_before)
    trial = jnp.where(slow, best.step + 0.5 * (other.step - best.step), trial)
    moved = trial - best.step
    lo = jnp.where(bracketed, jnp.minimum(best.step, other.step), trial + EXTEND_LO * moved)
    hi = jnp.where(bracketed, jnp.maximum(best.step, other.step), trial + EXTEND_HI * moved)
    trial = jnp.clip(trial, 0, search.step_max)
    spent = bracketed & ((trial <= lo) | (trial >= hi) | (hi - lo <= XTOL * hi))
    search = search._replace(
        best=best,
        other=other,
        step=jnp.where(spent, best.step, trial),
        lo=lo,
        hi=hi,
        width=jnp.where(bracketed, width, search.width),
        width_before=jnp.where(bracketed, search.width, search.width_before),
        bracketed=bracketed,
        stage_one=stage_one,
        trials=search.trials + 1,
    )
    return pack(search)


def _tilt(point: Point, slope: Scalar) -> Point:
    return Point(point.step, point.f - point.step * slope, point.slope - slope)


def _trial_step(
    best: Point, other: Point, now: Point, bracketed: Bool[Array, ""], lo: Scalar, hi: Scalar
) -> tuple[Scalar, Point, Point, Bool[Array, ""]]:
    """The next trial step and the updated interval: the four cases of MT §4 (dcstep), and one for NaN and inf."""
    finite = jnp.isfinite(now.f) & jnp.isfinite(now.slope)
    higher = now.f > best.f  # 1: the minimizer lies between best and now
    turned = ~higher & (now.slope * jnp.sign(best.slope) < 0)  # 2: so it does here
    flatter = ~higher & ~turned & (jnp.abs(now.slope) < jnp.abs(best.slope))  # 3: it lies ahead
    steady = ~higher & ~turned & ~flatter  # 4: still falling as fast

    cubic, ahead = _cubic(_choose(higher, best, now), _choose(higher, now, _choose(steady, other, best)))
    gap = now.step - best.step
    quadratic = best.step + (best.slope / ((best.f - now.f) / gap + best.slope)) / 2 * gap
    secant = now.step - now.slope / (now.slope - best.slope) * gap
    end = jnp.where(gap > 0, hi, lo)

    # 3: the cubic may have no minimizer ahead, or run away
    cubic_3 = jnp.where(ahead, cubic, end)
    nearer = jnp.abs(cubic_3 - now.step) < jnp.abs(secant - now.step)
    limit = now.step + SHRINK * (other.step - now.step)
    inside = jnp.where(nearer, cubic_3, secant)
    inside = jnp.where(gap > 0, jnp.minimum(limit, inside), jnp.maximum(limit, inside))
    outside = jnp.clip(jnp.where(jnp.abs(cubic_3 - now.step) > jnp.abs(secant - now.step), cubic_3, secant), lo, hi)
    # 4: an end at which f is inf has no cubic
    beyond = jnp.where(jnp.isfinite(other.f), cubic, now.step + 0.5 * (other.step - now.step))

    trial = jnp.where(
        higher,
        jnp.where(jnp.abs(cubic - best.step) < jnp.abs(quadratic - best.step), cubic, cubic + (quadratic - cubic) / 2),
        jnp.where(
            turned,
            jnp.where(jnp.abs(cubic - now.step) > jnp.abs(secant - now.step), cubic, secant),
            jnp.where(bracketed, jnp.where(flatter, inside, beyond), jnp.where(flatter, outside, end)),
        ),
    )
    trial = jnp.where(finite & jnp.isfinite(trial), trial, best.step + 0.5 * gap)  # the cubic of huge values overflows
    wall = Point(now.step, jnp.full_like(now.f, jnp.inf), jnp.full_like(now.f, jnp.inf))
    other = _choose(finite, _choose(higher, now, _choose(turned, best, other)), wall)
    best = _choose(finite & ~higher, now, best)
    return trial, best, other, bracketed | higher | turned | ~finite


def _choose(condition: Bool[Array, ""], a: Point, b: Point) -> Point:
    return Point(*(jnp.where(condition, p, q) for p, q in zip(a, b, strict=True)))


def _cubic(a: Point, b: Point) -> tuple[Scalar, Bool[Array, ""]]:
    """The minimizer of the cubic through a and b with their slopes, and whether it lies ahead of a, away from b."""
    h = b.step - a.step
    theta = 3 * (a.f - b.f) / h + a.slope + b.slope
    scale = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    gamma = scale * jnp.sqrt(
        jnp.maximum((theta / scale) ** 2 - (a.slope / scale) * (b.slope / scale), 0)  # max: rounding may go below 0
    )
    gamma = jnp.where(h < 0, -gamma, gamma)
    ratio = ((gamma - a.slope) + theta) / (((gamma - a.slope) + gamma) + b.slope)
    return a.step + ratio * h, (ratio < 0) & (gamma != 0)
