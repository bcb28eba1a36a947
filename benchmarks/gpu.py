"""All of it on an accelerator: a million fits, ten million variables, and the tables of the other benchmarks there.

The fits are compared with minimize_many on two cores of the same machine's CPU, in a process of its own.
"""

import os
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import peaks

from jaxlbfgsb import minimize_many

from . import large, single
from .cases import rosenbrock
from .harness import OURS, Goal, fresh, table, take_turns

FITS, VARIABLES = 1_000_000, 10_000_000
WORK, CORES = "fits, n = 4, 50 points", "minimize_many on two cores"
PROGRAM = "import json; from benchmarks.gpu import on_two_cores; print(json.dumps(on_two_cores({})))"


def per_fit(count: int, rounds: int) -> float:
    """Seconds a fit of so many on the default device, data there beforehand."""
    x0, data = map(jnp.asarray, peaks.draw(count))
    fit = jax.jit(lambda x, y: minimize_many(peaks.misfit, x, y, bounds=(peaks.LOWER, peaks.UPPER)).fun)
    return take_turns({"": lambda: fit(x0, data)}, rounds)[""].warm / count


def on_two_cores(count: int) -> float:
    """The same outside of jit, which uses all cores that there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    x0, data = peaks.draw(count)
    box = peaks.LOWER, peaks.UPPER
    return take_turns({"": lambda: minimize_many(peaks.misfit, x0, data, bounds=box).fun}, 3)[""].warm / count


def measure(quick: bool = False) -> Iterator[dict]:
    if jax.default_backend() == "cpu" and not quick:
        sys.exit("no accelerator here: jax.devices() are CPUs")
    count = 200 if quick else FITS
    here = {"work": WORK, "case": f"{count:,}"}
    yield here | {"candidate": OURS, "seconds": per_fit(count, 3)}
    cores = fresh(PROGRAM.format(min(count, 20_000)), JAX_PLATFORMS="cpu")
    yield here | {"candidate": CORES, "seconds": cores}
    yield from large.measure(quick, (*large.SIZES, VARIABLES))
    yield from single.measure(quick, {rosenbrock: (10, 100)})


def tables(rows: list[dict]) -> dict[str, str]:
    fits = [row for row in rows if row["work"] == WORK]
    found = [table(["", "fits", "fits a second"], ([r["candidate"], r["case"], 1 / r["seconds"]] for r in fits))]
    found += large.tables([row for row in rows if row["work"].startswith("one ")]).values()
    found += single.tables([row for row in rows if row["work"] in (single.BOUNDED, single.FREE)]).values()
    return {"gpu": "\n\n".join(found)}


def goals(rows: list[dict]) -> Iterator[Goal]:
    mine, cores = (row["seconds"] for row in rows if row["work"] == WORK)
    measured = f"{1 / mine:,.0f} fits a second, {cores / mine:.3g} times two cores"
    yield Goal(f"{FITS:,} {WORK}, on an accelerator", "more than two cores", measured, mine < cores)
