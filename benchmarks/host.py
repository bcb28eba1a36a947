"""The host path: `fmin_l_bfgs_b` beside SciPy's, on a NumPy and on a JAX objective, warm and in a fresh process.

The solver's own time is that of a run less that of its objective.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator

import scipy.optimize

from jaxlbfgsb import fmin_l_bfgs_b

from . import peers
from .cases import Case, rosenbrock
from .harness import OURS, Goal, fresh, ratio, ratios, span, take_turns

OWN, WHOLE, FRESH = (f"host path, {what}" for what in ("own time an evaluation", "a JAX objective", "a fresh process"))
PROGRAM = """
import time; start = time.perf_counter()
import numpy as np
from {} import fmin_l_bfgs_b
def chained(x):
    a, b, g = x[1:] - x[:-1] ** 2, 1 - x[:-1], np.zeros_like(x)
    g[1:] += 200 * a
    g[:-1] -= 400 * a * x[:-1] + 2 * b
    return 100 * a @ a + b @ b, g
fmin_l_bfgs_b(chained, np.zeros({}), bounds=[(-1.5, 0.8)] * {})
print(time.perf_counter() - start)
"""


def on_numpy(case: Case, repeats: int) -> dict[str, Callable]:
    return {
        OURS: lambda: fmin_l_bfgs_b(case.by_hand, case.x0, bounds=case.pairs)[1],
        "SciPy": peers.scipy_by_hand(case),
        "objective": lambda: [case.by_hand(case.x0) for _ in range(repeats)],
    }


def on_jax(case: Case) -> dict[str, Callable]:
    """The objective as JAX has it: SciPy gets its jitted value_and_grad."""
    return {
        OURS: lambda: fmin_l_bfgs_b(case.fun, case.x0, bounds=case.pairs)[1],
        "SciPy": peers.scipy_jitted(case),
    }


def warm(n: int, rounds: int) -> Iterator[dict]:
    case = rosenbrock(n)
    count = scipy.optimize.fmin_l_bfgs_b(case.by_hand, case.x0, bounds=case.pairs)[2]["funcalls"]
    numpy, both = (take_turns(calls, rounds) for calls in (on_numpy(case, count), on_jax(case)))
    for name in (OURS, "SciPy"):
        own = (numpy[name].warm - numpy["objective"].warm) / count
        yield {"work": OWN, "case": f"n = {n}", "n": n, "candidate": name, "seconds": own}
        yield {"work": WHOLE, "case": f"n = {n}", "n": n, "candidate": name, "seconds": both[name].warm}


def from_nothing(n: int, rounds: int) -> Iterator[dict]:
    """Import and first call together; ours also where JAX keeps its compiled programs."""
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        calls = {
            OURS: ("jaxlbfgsb", {}),
            "SciPy": ("scipy.optimize", {}),
            f"{OURS}, programs cached": ("jaxlbfgsb", cache),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds + 1):
            for name, (package, environment) in calls.items():
                times[name].append(fresh(PROGRAM.format(package, n, n), **environment))
    for name, values in times.items():  # the first fills the cache
        yield {"work": FRESH, "case": f"n = {n}", "n": n, "candidate": name, "seconds": statistics.median(values[1:])}


def measure(quick: bool = False) -> Iterator[dict]:
    for n in (2,) if quick else (2, 10, 20, 32, 64, 100):
        yield from warm(n, 3 if quick else 30)
    for n in (2,) if quick else (10, 40):
        yield from from_nothing(n, 1 if quick else 5)


def tables(rows: list[dict]) -> dict[str, str]:
    return {work: ratios(rows, work=work) for work in (OWN, WHOLE, FRESH)}


def goals(rows: list[dict]) -> Iterator[Goal]:
    def to_scipy(work: str) -> dict[int, float]:
        sizes = dict.fromkeys(row["n"] for row in rows if row["work"] == work)
        return {n: 1 / ratio(rows, "SciPy", work=work, n=n) for n in sizes}

    own, whole = to_scipy(OWN).get(10), to_scipy(WHOLE).values()
    if own:
        yield Goal(f"{OWN} at n = 10, to SciPy's", "≤ 3", f"{own:.2g}", own <= 3)
    yield Goal(f"{WHOLE}, to SciPy's time", "≤ 1", span(whole), max(whole) <= 1)
    for row in rows:
        if row["work"] == FRESH and row["candidate"] == OURS:
            yield Goal(f"{FRESH}, {row['case']}", "≤ 1.5 s", f"{row['seconds']:.2f} s", row["seconds"] <= 1.5)
