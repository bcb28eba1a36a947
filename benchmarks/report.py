"""Runs a benchmark, keeps its results, and writes the tables and pictures of docs/ from all that are kept."""

import os
import sys
from importlib import import_module

from matplotlib import rc_context

from .harness import PICTURE, RESULTS, ROOT, Goal, conditions, fill, losses, machine, read, table, write

DOCS = ROOT / "docs"
LOSSES = "where another is faster"


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
    """Writes the tables and pictures of docs/ from the results that are kept."""
    for page in DOCS.glob("*.md"):
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
    }


def goals_table(goals: list[Goal]) -> str:
    return table(["", "goal", "measured", ""], ([*goal[:3], "met" if goal.met else "**not met**"] for goal in goals))
