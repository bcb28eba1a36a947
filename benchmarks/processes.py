"""minimize_many on a mesh over two processes with one core each, beside one process with one core."""

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator

from .harness import Goal, table, take_turns

WORK = "two processes"
PROGRAM = "from benchmarks.processes import worker; worker({!r}, {}, {}, {})"


def worker(port: str, processes: int, rank: int, count: int) -> None:
    """Fits its share on its own core and prints the median seconds."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import jax

    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, rank)
    import peaks
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxlbfgsb import minimize_many

    mesh = jax.make_mesh((processes,), ("fits",))
    split = NamedSharding(mesh, PartitionSpec("fits"))
    x0, data = (
        jax.make_array_from_callback(part.shape, split, lambda index, part=part: part[index])
        for part in peaks.draw(count)
    )
    fit = jax.jit(lambda x, y: minimize_many(peaks.misfit, x, y, bounds=(peaks.LOWER, peaks.UPPER), mesh=mesh).fun)
    print(json.dumps(take_turns({"": lambda: fit(x0, data)}, 5)[""].warm))


def seconds(processes: int, count: int) -> float:
    """The time of the slowest of so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(port, processes, rank, count)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(processes)
    ]
    return max(json.loads(process.communicate()[0].splitlines()[-1]) for process in running)


def measure(quick: bool = False) -> Iterator[dict]:
    count, rounds = (200, 1) if quick else (20_000, 3)
    times = {processes: [] for processes in (1, 2)}
    for _ in range(rounds):
        for processes, found in times.items():
            found.append(seconds(processes, count))
    for processes, found in times.items():
        yield {"work": WORK, "case": count, "processes": processes, "seconds": statistics.median(found)}


def tables(rows: list[dict]) -> dict[str, str]:
    one = rows[0]["seconds"]
    lines = [[row["processes"], row["case"] / row["seconds"], one / row["seconds"]] for row in rows]
    return {WORK: table(["processes, a core each", "fits a second", "to one process"], lines)}


def goals(_: list[dict]) -> list[Goal]:
    return []
