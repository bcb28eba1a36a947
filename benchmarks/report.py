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
PEERS = ("SciPy", "jaxopt", "optax", "optimistix, BFGS")
BOX = {"SciPy": "SciPy, NumPy gradient", "jaxopt": "jaxopt.LBFGSB"}
NO_BOX = {"SciPy": "SciPy, NumPy gradient", "optax": "optax.lbfgs", "optimistix, BFGS": "optimistix.BFGS"}
FIRST = BOX | {"SciPy": "SciPy, jitted gradient"}
MANY = {"SciPy": "SciPy, a loop", "jaxopt": "jaxopt.LBFGSB, lax.map", "optax": "optax.lbfgs projected, lax.map"}
ROSENBROCK = "chained Rosenbrock"
LINES = [  # of README's table: what, benchmark, its rows, and which candidate stands for each of PEERS
    ("in a box, n = 10, first call", "compile", {"case": ROSENBROCK}, FIRST),
    ("in a box, n = 10, warm", "single", {"work": BOUNDED, "case": f"{ROSENBROCK}, n = 10"}, BOX),
    ("in a box, n = 100, warm", "single", {"work": BOUNDED, "case": f"{ROSENBROCK}, n = 100"}, BOX),
    ("10,000 fits of 4 parameters in a box", "batched", {"work": "10,000 fits, n = 4"}, MANY),
    ("without bounds, n = 10, warm", "single", {"work": FREE, "case": f"{ROSENBROCK}, n = 10"}, NO_BOX),
    ("without bounds, n = 100, warm", "single", {"work": FREE, "case": f"{ROSENBROCK}, n = 100"}, NO_BOX),
]


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
    tables = all_tables()
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        page.write_text(fill(page.read_text(), tables))
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
    for what, benchmark, where, names in LINES:
        rows = read(benchmark)[1:]
        found = [ratio(rows, names[peer], **where) if peer in names else None for peer in PEERS]
        lines.append([what, "1", *("" if value is None else faster(value) for value in found)])
    return table(["", OURS, *PEERS], lines)


def goals_table(goals: list[Goal]) -> str:
    return table(["", "goal", "measured", ""], ([*goal[:3], "met" if goal.met else "**not met**"] for goal in goals))
