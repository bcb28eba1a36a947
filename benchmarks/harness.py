"""How the benchmarks measure, what they keep and how it becomes tables.

All candidates for a piece of work take turns in one process, so that what else the machine does hits them alike: only
ratios of medians mean anything on a shared machine. The first call of each, which compiles, is kept apart. Results are
JSON lines in benchmarks/results: the machine first, then one row a measurement. A row with `work`, `case`, `candidate`
and `seconds` enters the list of what another is faster at, unless `candidate` is ours.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlbfgsb.__main__ import BLUE, ORANGE, STYLE

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OURS = "jaxlbfgsb"
PACKAGES = ("jax", "numpy", "scipy", "jaxopt", "optax", "optimistix", "slsqp-jax")
COLORS = (BLUE, ORANGE, "#2a9d73", "#cc79a7")  # blue is ours
PICTURE = STYLE | {"axes.prop_cycle": f"cycler(color={COLORS}, linestyle=['-', '--', '-.', ':'])"}


class Times(NamedTuple):
    """Seconds of the first call and the median of those after it; what the first returned."""

    first: float
    warm: float
    result: Any


class Goal(NamedTuple):
    """What we want of some work, and what was measured."""

    work: str
    goal: str
    measured: str
    met: bool


def seconds(call: Callable) -> tuple[float, Any]:
    """How long the call and all that it starts take, and what it returns."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def take_turns(candidates: dict[str, Callable], rounds: int) -> dict[str, Times]:
    """The times of each candidate: one first call and `rounds` warm ones, turn by turn."""
    first = {name: seconds(call) for name, call in candidates.items()}
    warm: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            warm[name].append(seconds(call)[0])
    return {name: Times(*first[name][:1], statistics.median(warm[name]), first[name][1]) for name in candidates}


def fresh(program: str, **environment: str) -> Any:
    """The JSON that a program prints last, run in a process of its own."""
    command, env = [sys.executable, "-c", program], os.environ | environment
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict:
    """What the figures depend on beside the code."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load": round(os.getloadavg()[0], 1),
    }


def write(path: Path, rows: Iterable[dict]) -> None:
    """One JSON object a line, its floats with four digits, NaN and inf as null."""
    path.write_text("".join(json.dumps(_short(row)) + "\n" for row in rows))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def read(name: str) -> list[dict]:
    """The machine and the rows of a benchmark; nothing if it was never run."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def conditions(here: dict) -> str:
    """The machine in one line under a table."""
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    device = "" if here["device"] == "cpu" else f", {here['device']}"
    load = "load " + " to ".join(str(here[when]) for when in ("load", "load after") if when in here)
    return f"{here['cores']} cores of {here['cpu']}{device}, {load}, float64; Python {here['python']}, {versions}."


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; numbers with three digits at most."""
    lines = [list(head), *(list(row) for row in rows)]
    cells = [[cell if isinstance(cell, str) else number(cell) for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def number(value: float | None) -> str:
    """A number with three digits, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def ratio(rows: Iterable[dict], candidate: str, base: str = OURS, **where: Any) -> float | None:
    """The candidate's seconds over those of the base, in the one row each that `where` selects."""
    chosen = {row["candidate"]: row["seconds"] for row in rows if where.items() <= row.items()}
    mine, other = chosen.get(base), chosen.get(candidate)
    return None if mine is None or other is None else other / mine


def ratios(rows: list[dict], base: str = OURS, **where: Any) -> str:
    """A table with a line a case and a column a candidate: its seconds over those of the base, bold below 1."""
    rows = [row for row in rows if where.items() <= row.items()]
    cases, candidates = (list(dict.fromkeys(row[field] for row in rows)) for field in ("case", "candidate"))
    peers = [name for name in candidates if name != base]
    lines = []
    for case in cases:
        found = [ratio(rows, name, base, case=case) for name in peers]
        unit = next(row["seconds"] for row in rows if row["case"] == case and row["candidate"] == base)
        cells = [number(value) if OURS in name else faster(value) for name, value in zip(peers, found, strict=True)]
        lines.append([case, duration(unit), *cells])
    return table(["", base, *peers], lines)


def faster(value: float | None) -> str:
    """A ratio, bold where the other is faster than we are."""
    return f"**{number(value)}**" if value is not None and value < 1 else number(value)


def duration(seconds: float | None) -> str:
    """Seconds in a unit that suits them, a dash where there are none."""
    if seconds is None:
        return number(seconds)
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"


def losses(rows: Iterable[dict]) -> list[tuple[str, str, str, float]]:
    """Work, case, candidate and its seconds over ours, where that is below 1."""
    rows = [row for row in rows if {"work", "case", "candidate"} <= row.keys() and row.get("seconds")]
    found = []
    for row in rows:
        value = ratio(rows, row["candidate"], work=row["work"], case=row["case"])
        if value is not None and value < 1 and not row["candidate"].startswith(OURS):
            found.append((row["work"], str(row["case"]), row["candidate"], value))
    return found


def span(values: Iterable[float]) -> str:
    """The least and the greatest of some numbers, and the median."""
    values = list(values)
    return f"{min(values):.3g} to {max(values):.3g}, median {statistics.median(values):.3g}"


def exponent(n: Iterable[float], seconds: Iterable[float]) -> float:
    """k of the least squares fit seconds ~ n^k."""
    return float(np.polyfit(np.log(list(n)), np.log(list(seconds)), 1)[0])


def profile(costs: dict[str, list[float]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Dolan's and Moré's performance profile of each candidate: factors τ, and the share of problems within them.

    Costs are those of the same problems for each candidate, inf where it does not solve one. τ is the cost over the
    least that any candidate had on that problem; problems that none solves count as unsolved. Math. Prog. 91 (2002).
    """
    least = np.min(list(costs.values()), axis=0)
    profiles = {}
    for name, cost in costs.items():
        solved = np.isfinite(cost)
        factors = np.sort(np.array(cost)[solved] / least[solved])
        profiles[name] = factors, np.arange(1, len(factors) + 1) / len(least)
    return profiles


def fill(text: str, tables: dict[str, str]) -> str:
    """The page with the tables put between their markers, `<!-- name -->` and `<!-- end of name -->`."""
    for name, content in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text
