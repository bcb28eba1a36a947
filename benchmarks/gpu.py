"""On an accelerator: a million fits, an iteration of up to ten million variables, and a small problem.

The fits are compared with minimize_many on two cores of the same machine's CPU, in a process of its own; SciPy runs on
that CPU.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import peaks

from jaxlbfgsb import minimize_many

from . import large, single
from .batched import BOUNDS, mapped
from .cases import rosenbrock
from .harness import OURS, Goal, duration, fresh, number, ratio, ratios, table, take_turns

FITS, SIZES, SMALL = 1_000_000, (100_000, 1_000_000, 10_000_000), 10
WORK, CORES = "fits, n = 4, 50 points", "minimize_many on two cores"
HERE = "on an accelerator: "  # before the name of a work
PROGRAM = "import json; from benchmarks.gpu import on_two_cores; print(json.dumps(on_two_cores({})))"
OTHERS = {f"jax.vmap({OURS}.minimize)": 1, "jaxopt.LBFGSB, vmap": 40}  # and the share of the fits that they do


def candidates(count: int) -> dict[str, tuple[Callable, int]]:
    """The ways to fit, and how many each fits."""
    x0, data = peaks.draw(count)
    x, y = jnp.asarray(x0), jnp.asarray(data)

    def fits(x, y):
        return minimize_many(peaks.misfit, x, y, bounds=BOUNDS).fun

    there, others = jax.jit(fits), mapped()
    found = {OURS: (partial(there, x, y), count), f"{OURS}, from the host's memory": (partial(fits, x0, data), count)}
    for name, share in OTHERS.items():
        call, some = jax.jit(others[name]), count // share
        found[name] = partial(call, x[:some], y[:some]), some
    return found


def on_two_cores(count: int) -> float:
    """Seconds a fit outside of jit, which uses all cores that there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    x0, data = peaks.draw(count)
    return take_turns({"": lambda: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS).fun}, 3)[""].warm / count


def measure(quick: bool = False) -> Iterator[dict]:
    if jax.default_backend() == "cpu" and not quick:
        sys.exit("no accelerator here: jax.devices() are CPUs")
    calls = candidates(200 if quick else FITS)
    for name, times in take_turns({name: call for name, (call, _) in calls.items()}, 3).items():
        count = calls[name][1]
        row = {"work": HERE + WORK, "case": "", "candidate": name, "seconds": times.warm / count, "count": count}
        yield row | {"first": times.first}
    some = 200 if quick else 20_000
    cores = fresh(PROGRAM.format(some), JAX_PLATFORMS="cpu")
    yield {"work": HERE + WORK, "case": "", "candidate": CORES, "seconds": cores, "count": some}
    for row in chain(large.measure(quick, SIZES, 3), single.warm(rosenbrock, SMALL, 3 if quick else 5)):
        yield row | {"work": HERE + row["work"]}


def tables(rows: list[dict]) -> dict[str, str]:
    rows = [row | {"work": row["work"].removeprefix(HERE)} for row in rows]
    fits = sorted((row for row in rows if row["work"] == WORK), key=lambda row: row["seconds"])
    found = [table([WORK, "", "a second"], ([row["candidate"], row["count"], 1 / row["seconds"]] for row in fits))]
    for work in dict.fromkeys(row["work"] for row in rows if row["work"] not in (WORK, large.UPDATE)):
        found += [f"{work[0].upper()}{work[1:]}:", ratios(rows, work=work)]
    crossed = [row for row in rows if row["work"] == large.UPDATE]
    lines = [[row["case"], f"{row['share']:.0%}", duration(row["seconds"])] for row in crossed]
    found += ["One update:", table(["", "breakpoints crossed", ""], lines)]
    return {"gpu": "\n\n".join(found)}


def goals(rows: list[dict]) -> Iterator[Goal]:
    times = ratio(rows, CORES, work=HERE + WORK)
    assert times is not None
    (mine,) = (1 / row["seconds"] for row in rows if row["work"] == HERE + WORK and row["candidate"] == OURS)
    measured = f"{mine:,.0f} a second, {number(times)} times two cores"
    yield Goal(f"{FITS:,} {WORK}, on an accelerator", "more than two cores", measured, times > 1)
