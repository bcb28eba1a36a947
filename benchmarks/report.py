"""Runs a benchmark, keeps its results, and writes the tables and pictures of docs/ from all that are kept."""

import os
import sys
from importlib import import_module

from matplotlib import rc_context

from .harness import (
    OURS,
    PICTURE,
    RESULTS,
    ROOT,
    Goal,
    conditions,
    faster,
    fill,
    losses,
    machine,
    ratio,
    read,
    table,
    write,
)
from .single import BOUNDED, FREE

DOCS = ROOT / "docs"
LOSSES, BESIDE = "where another is faster", "speed beside others"
FITS = {"work": "10,000 fits, n = 4"}
GRADIENT = "SciPy, NumPy gradient"
LINES = [  # of README's table: what, benchmark, its rows, and who stands there for each of PEERS
    (
        "in a box, n = 10, first call",
        "compile",
        {"case": "chained Rosenbrock"},
        "SciPy, jitted gradient",
        "jaxopt.LBFGSB",
    ),
    (
        "in a box, n = 10, warm",
        "single",
        {"work": BOUNDED, "case": "chained Rosenbrock, n = 10"},
        GRADIENT,
        "jaxopt.LBFGSB",
    ),
    (
        "in a box, n = 100, warm",
        "single",
        {"work": BOUNDED, "case": "chained Rosenbrock, n = 100"},
        GRADIENT,
        "jaxopt.LBFGSB",
    ),
    (
        "10,000 fits of 4 parameters in a box",
        "batched",
        FITS,
        "SciPy, a loop",
        "jaxopt.LBFGSB, lax.map",
        "optax.lbfgs projected, lax.map",
    ),
    (
        "without bounds, n = 10, warm",
        "single",
        {"work": FREE, "case": "chained Rosenbrock, n = 10"},
        GRADIENT,
        "",
        "optax.lbfgs",
        "optimistix.BFGS",
    ),
    (
        "without bounds, n = 100, warm",
        "single",
        {"work": FREE, "case": "chained Rosenbrock, n = 100"},
        GRADIENT,
        "",
        "optax.lbfgs",
        "optimistix.BFGS",
    ),
]
PEERS = ("SciPy", "jaxopt", "optax", "optimistix, BFGS")


def run(name: str, quick: bool) -> None:
    """Measures; prints the tables if quick, else keeps the results and writes them all into docs/."""
    benchmark, here = import_module(f"benchmarks.{name}"), machine()
    rows = []
    for row in benchmark.measure(quick):
        print(*row.values(), sep="  ", file=sys.stderr, flush=True)
        rows.append(row)
    here["load after"] = round(os.getloadavg()[0], 1)
    if quick:
        print("\n\n".join(benchmark.tables(rows).values()))
        return
    write(RESULTS / f"{name}.jsonl", [here, *rows])
    document()


def document() -> None:
    """Writes the tables and pictures of docs/ and README from the results that are kept."""
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        page.write_text(fill(page.read_text(), all_tables()))
    for name in names():
        benchmark = import_module(f"benchmarks.{name}")
        if hasattr(benchmark, "picture"):
            with rc_context(PICTURE):
                benchmark.picture(read(name)[1:]).savefig(DOCS / f"{name}.png", dpi=180, metadata={"Software": None})


def names() -> list[str]:
    """The benchmarks that have results."""
    return sorted(path.stem for path in RESULTS.glob("*.jsonl"))


def all_tables() -> dict[str, str]:
    """Every table by the name of its markers, each benchmark's conditions, the goals and the losses."""
    found, goals, lost = {"gpu": "Not measured yet: there was no accelerator at hand."}, [], []
    for name in names():
        benchmark, (here, *rows) = import_module(f"benchmarks.{name}"), read(name)
        found |= benchmark.tables(rows) | {f"{name}, conditions": conditions(here)}
        if hasattr(benchmark, "picture"):
            found[f"{name}, picture"] = f"![{benchmark.picture.__doc__}]({name}.png)"
        goals += benchmark.goals(rows)
        lost += losses(rows)
    lines = ([work, case, candidate, f"{value:.2f}"] for work, case, candidate, value in lost)
    return found | {
        "goals": goals_table(goals),
        LOSSES: table(["", "", "", "its time / jaxlbfgsb's"], lines),
        BESIDE: beside(),
    }


def beside() -> str:
    """README's table of speed."""
    lines = []
    for what, benchmark, where, *names in LINES:
        found = [ratio(read(benchmark)[1:], name, **where) for name in names]
        cells = ["" if value is None else faster(value) for value in found]
        lines.append([what, "1", *cells, *[""] * (len(PEERS) - len(cells))])
    return table(["", OURS, *PEERS], lines)


def goals_table(goals: list[Goal]) -> str:
    return table(["", "goal", "measured", ""], ([*goal[:3], "met" if goal.met else "**not met**"] for goal in goals))
