"""Two processes with one core each beside one process with one core: minimize_many on a mesh over both.

Run `python benchmarks/processes.py`.
"""

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
COUNT, ROUNDS = 20_000, 5


def worker(port: str, processes: int, rank: int) -> None:
    """Fits its share on its own core and prints the median seconds."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import jax

    jax.config.update("jax_enable_x64", True)
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, rank)
    sys.path.insert(0, str(TESTS))
    import peaks
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxlbfgsb import minimize_many

    mesh = jax.make_mesh((processes,), ("fits",))
    split = NamedSharding(mesh, PartitionSpec("fits"))
    x0, data = (
        jax.make_array_from_callback(part.shape, split, lambda index, part=part: part[index])
        for part in peaks.draw(COUNT)
    )
    fit = jax.jit(lambda x, y: minimize_many(peaks.misfit, x, y, bounds=(peaks.LOWER, peaks.UPPER), mesh=mesh).fun)
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        jax.block_until_ready(fit(x0, data))
        times.append(time.perf_counter() - start)
    print(statistics.median(times[1:]))


def seconds(processes: int) -> float:
    """The time of the slowest of so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, port, str(processes)]
    running = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(processes)]
    return max(float(process.communicate()[0]) for process in running)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        ratios = [seconds(1) / seconds(2) for _ in range(3)]
        print(f"two processes with a core each: {statistics.median(ratios):.2f} times the rate of one with one core")
