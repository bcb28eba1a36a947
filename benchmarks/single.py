"""One problem at a time, everything compiled: seconds to SciPy's f, with bounds and without."""

from collections.abc import Callable, Iterator

import jax

from . import loops, peers
from .cases import Case, peaks, quadratic, rosenbrock
from .harness import OURS, Goal, fresh, ratio, ratios, span, take_turns

SIZES = {rosenbrock: (2, 4, 10, 20, 50, 100, 200), quadratic: (10, 50, 200), peaks: (4, 10, 31, 100)}
QUICK = {rosenbrock: (4,)}
SLSQP = (10,)  # the sizes that it runs at: it takes ten seconds to compile
NAMES = {rosenbrock: "chained Rosenbrock", quadratic: "quadratic", peaks: "fit"}
BOUNDED, FREE = "bounded, warm", "without bounds, to the same f, warm"
INLINE = f"{FREE}, dispatched in the calling thread"  # JAX's setting for that is one of the process
SMALL = ((rosenbrock, 2), (rosenbrock, 4), (peaks, 4))
PROGRAM = """import json, jax
jax.config.update("jax_cpu_enable_async_dispatch", False)
from benchmarks import single
print(json.dumps(single.inline({})))"""


def bounded(case: Case, with_slsqp: bool) -> dict[str, Callable]:
    """The candidates for a problem with bounds."""
    candidates = {
        OURS: peers.ours(case),
        f"{OURS}, outside of jit": peers.ours_alone(case),
        "SciPy, NumPy gradient": peers.scipy_by_hand(case),
        "SciPy, jitted gradient": peers.scipy_jitted(case),
        "jaxopt.LBFGSB": loops.to(peers.target(case), loops.by_jaxopt, case),
    }
    return candidates | ({"slsqp-jax": peers.slsqp_to(peers.target(case), case)} if with_slsqp else {})


def free(case: Case) -> dict[str, Callable]:
    """The candidates for a problem without: ours is stopped at SciPy's f as the others are."""
    target = peers.target(case)
    return {
        OURS: loops.to(target, loops.ours, case),
        "optax.lbfgs": loops.to(target, loops.by_optax, case),
        "optimistix.BFGS": peers.optimistix_to(target, case),
        "SciPy, NumPy gradient": peers.scipy_by_hand(case),
    }


def measure(quick: bool = False) -> Iterator[dict]:
    for make, sizes in (QUICK if quick else SIZES).items():
        for n in sizes:
            yield from warm(make, n, 3 if quick else 30)
    yield from fresh(PROGRAM.format(quick))


def warm(make: Callable[[int], Case], n: int, rounds: int) -> Iterator[dict]:
    """The rows of a problem, with bounds and without."""
    case = make(n)
    with_slsqp = n in SLSQP and jax.default_backend() == "cpu"
    for work, problem, candidates in (
        (BOUNDED, case, bounded(case, with_slsqp)),
        (FREE, case.free, free(case.free)),
    ):
        yield from compared(work, problem, f"{NAMES[make]}, n = {n}", candidates, rounds)


def compared(work: str, case: Case, name: str, candidates: dict[str, Callable], rounds: int) -> Iterator[dict]:
    """A row a candidate; without seconds for one that does not come to SciPy's f."""
    target = peers.target(case)
    for candidate, times in take_turns(candidates, rounds).items():
        seconds = times.warm if times.result <= target else None
        row = {"work": work, "case": name, "n": len(case.x0), "candidate": candidate}
        yield row | {"seconds": seconds, "first": times.first}


def inline(quick: bool) -> list[dict]:
    """The rows of the smallest problems without bounds, in a process with this setting."""
    rows = []
    for make, n in SMALL[:1] if quick else SMALL:
        case = make(n).free
        rows += compared(INLINE, case, f"{NAMES[make]}, n = {n}", free(case), 3 if quick else 30)
    return rows


def tables(rows: list[dict]) -> dict[str, str]:
    works = {"single": BOUNDED, "free": FREE, "free, in the calling thread": INLINE}
    return {name: ratios(rows, work=work) for name, work in works.items()}


def goals(rows: list[dict]) -> Iterator[Goal]:
    middle = [row for row in rows if row["work"] == BOUNDED and 4 <= row["n"] <= 100]
    wanted = {"SciPy, NumPy gradient": 3, "SciPy, jitted gradient": 8, "jaxopt.LBFGSB": 5}
    for name, factor in wanted.items():
        yield met_by(middle, f"warm `minimize`, bounded, n = 4 to 100, to {name}", name, factor)
    yield met_by([row for row in rows if row["work"] == FREE], f"{FREE}, to optax.lbfgs", "optax.lbfgs", 1)


def met_by(rows: list[dict], work: str, name: str, factor: float) -> Goal:
    found = [ratio(rows, name, case=row["case"]) for row in rows if row["candidate"] == name and row["seconds"]]
    return Goal(work, f"≥ {factor}", span(found), min(found) >= factor)
