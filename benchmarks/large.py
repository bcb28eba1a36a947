"""One iteration of a large problem: its time, how it grows with n, and how many passes over S and Y that is.

Runs with a full memory go on by turns, some iterations each. A pass is the time in which S and Y, 2m vectors, are read
at the rate of a copy, reads and writes counted; the objective's share is taken off first.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from threading import Semaphore, Thread
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import fmin_l_bfgs_b

from jaxlbfgsb import Box, Options, State, Status, continue_from, init, run, step, update
from jaxlbfgsb.cauchy import CauchyPoint, cauchy_point, direction
from jaxlbfgsb.model import model

from .cases import Case, elastic_torsion, rosenbrock
from .harness import COLORS, OURS, Goal, exponent, ratio, ratios, span, table, take_turns
from .overhead import alone

M = 10
EACH = 3  # iterations timed together
SIZES = (10_000, 100_000, 1_000_000)  # beyond, SciPy takes minutes
NAMES = {rosenbrock: "chained Rosenbrock", elastic_torsion: "torsion"}
SHARES = (0.0, 0.1)
ITERATION, UPDATE = "one iteration", "one update, breakpoints crossed"


class Progress(NamedTuple):
    """How far a run is."""

    iterations: int
    evaluations: int


def ours(case: Case) -> Callable[[], Progress]:
    """Each call goes on with the run for EACH iterations, in place; the first begins where the memory is full."""
    both, x = jax.value_and_grad(case.fun), jnp.asarray(case.x0)
    box = Box(jnp.asarray(case.lower), jnp.asarray(case.upper))

    @partial(jax.jit, donate_argnums=0)
    def advance(state: State, box: Box, more: int) -> State:
        most = state.iterations + more
        return jax.lax.while_loop(
            lambda state: (state.status == Status.RUNNING) & (state.iterations < most),
            lambda state: step(both, state, box, Options(ftol=0.0, gtol=0.0)),
            state,
        )

    held = [advance(jax.tree.map(jnp.copy, init(x, box, M)), box, M + 2)]

    def call() -> Progress:
        held[0] = advance(held[0], box, EACH)
        return Progress(int(held[0].iterations), int(held[0].evaluations))

    return call


def by_jaxopt(case: Case) -> Callable[[], Progress]:
    """The same; its iterations take equal time from the first."""
    solver, box = jaxopt.LBFGSB(case.fun, history_size=M), (jnp.asarray(case.lower), jnp.asarray(case.upper))

    @partial(jax.jit, donate_argnums=0)
    def advance(run: tuple, box: tuple) -> tuple:
        return jax.lax.fori_loop(0, EACH, lambda _, run: tuple(solver.update(*run, box)), run)

    x = jnp.asarray(case.x0)
    held = [jax.tree.map(jnp.copy, (x, jax.jit(solver.init_state)(x, box)))]

    def call() -> Progress:
        held[0] = advance(held[0], box)
        return Progress(int(held[0][1].iter_num), int(held[0][1].num_fun_eval))

    return call


def by_scipy(case: Case, calls: int) -> Callable[[], Progress]:
    """The same, by a thread in which SciPy waits for its turn after every EACH iterations."""
    turn, done = Semaphore(0), Semaphore(0)
    iterations, evaluations = count(1), [0]

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        evaluations[0] += 1
        return case.by_hand(x)

    def wait(_: np.ndarray) -> None:
        past = next(iterations) - (M + 2)
        if past >= 0 and past % EACH == 0 and past < calls * EACH:
            done.release()
            turn.acquire()

    def run() -> None:
        most = M + 2 + calls * EACH
        fmin_l_bfgs_b(fun, case.x0, bounds=case.pairs, m=M, factr=0, pgtol=0, maxiter=most, callback=wait)
        done.release(calls)  # had it ended early, nobody would wait for it

    Thread(target=run, daemon=True).start()
    done.acquire()
    place = count(M + 2 + EACH, EACH)

    def call() -> Progress:
        turn.release()
        done.acquire()
        return Progress(next(place), evaluations[0])

    return call


def candidates(case: Case, calls: int) -> dict[str, Callable[[], Progress]]:
    found = {OURS: ours(case), "jaxopt.LBFGSB": by_jaxopt(case)}
    return found | ({"SciPy": by_scipy(case, calls)} if len(case.x0) <= SIZES[-1] else {})


def iterations(case: Case, rounds: int) -> Iterator[dict]:
    """Seconds an iteration of each candidate, and without the objective."""
    calls = candidates(case, rounds + 2)
    first = {name: call() for name, call in calls.items()}
    objective = {"JAX": alone(case, 10)} | ({"NumPy": lambda: case.by_hand(case.x0)[0]} if "SciPy" in calls else {})
    times = take_turns(calls | objective, rounds - 1)
    for name, call in calls.items():
        last = call()
        evaluations = (last.evaluations - first[name].evaluations) / (last.iterations - first[name].iterations)
        took = times["NumPy"].warm if name == "SciPy" else times["JAX"].warm / 10
        each = times[name].warm / EACH
        yield {"candidate": name, "seconds": each, "own": each - evaluations * took}


def bandwidth(n: int) -> float:
    """Bytes a second that a copy of n numbers reads and writes, by XLA or NumPy, whichever is faster."""
    source = np.random.default_rng(0).normal(size=n)
    there, held = np.empty_like(source), jnp.asarray(source)
    copy = jax.jit(lambda v: v * 1.5)
    times = take_turns({"NumPy": lambda: np.copyto(there, source), "XLA": lambda: copy(held)}, 9)
    return 16 * n / min(time.warm for time in times.values())


def passes(own: float, n: int, rate: float) -> float:
    return own * rate / (16 * M * n)


def search(x: Any, g: Any, box: Box, memory: Any) -> CauchyPoint:
    return cauchy_point(x, g, box, model(memory), memory.YS @ direction(x, g, box))


def crossing(n: int, share: float) -> tuple[State, Any, Any, Box]:
    """A state with a full memory, its f and g, and a box of which the Cauchy search crosses this share."""
    case = rosenbrock(n)
    both = jax.value_and_grad(case.fun)
    wide = Box(jnp.full(n, -1e9), jnp.full(n, 1e9))
    state = jax.jit(lambda x: run(both, init(x, wide, M), wide, Options(0.0, 0.0, M + 2)))(jnp.asarray(case.x0))
    state, (x, f, g) = continue_from(state, wide), state.iterate
    point = jax.jit(lambda box: search(x, g, box, state.memory))
    first = jnp.max(jnp.abs(point(wide).x - x)) / jnp.max(jnp.abs(g))  # where the path has its minimum with no bound
    when = first * jnp.asarray(np.random.default_rng(0).uniform(size=n))

    def box(width: float) -> Box:
        end = x - width * when * g
        return Box(jnp.where(g > 0, end, wide.lower), jnp.where(g < 0, end, wide.upper))

    if share == 0:
        return state, f, g, wide
    low, high = 0.0, 6.0  # exponents: the wider, the fewer
    for _ in range(20):
        middle = (low + high) / 2
        crossed = float(jnp.mean(~point(box(10**middle)).free))
        low, high = (middle, high) if crossed > share else (low, middle)
    return state, f, g, box(10**high)


def updates(n: int, share: float, repeats: int) -> Callable:
    """The same update so many times in one program, S and Y written in place as in a run."""
    prepared = crossing(n, share)

    @jax.jit
    def repeat(prepared: Any) -> Any:
        state, f, g, box = prepared

        def again(_: int, held: State) -> State:
            memory = state.memory._replace(YS=held.memory.YS)
            return update(state._replace(memory=memory), f, g + 0 * held.residual, box)  # as in overhead.alone

        return jax.lax.fori_loop(0, repeats, again, state._replace(residual=0 * f)).x

    return lambda: repeat(prepared)


def measure(quick: bool = False, sizes: tuple[int, ...] = SIZES, rounds: int = 5) -> Iterator[dict]:
    for n in (1024, 4096) if quick else sizes:
        rounds = 2 if quick else rounds
        rate = bandwidth(2 * M * n)
        for make in (rosenbrock, elastic_torsion):
            case = make(n)
            for row in iterations(case, rounds):
                read = passes(row["own"], len(case.x0), rate)
                row = {"work": f"{ITERATION}, {NAMES[make]}", "case": f"n = {len(case.x0):,}", "n": len(case.x0)} | row
                yield row | {"passes": read, "rate": rate}
        repeats = max(10, min(200, 2_000_000 // n))  # what a call takes beside them must not count
        calls = {share: updates(n, share, repeats) for share in SHARES}
        for share, times in take_turns(calls, rounds).items():
            yield {"work": UPDATE, "case": f"n = {n:,}", "n": n, "share": share, "seconds": times.warm / repeats}


def growth(rows: list[dict], **where: Any) -> float:
    chosen = [row for row in rows if where.items() <= row.items() and row["seconds"] > 0]
    return exponent([row["n"] for row in chosen], [row["seconds"] for row in chosen])


def series(rows: list[dict]) -> dict[str, dict]:
    """What selects the rows of each line of the picture and of the table of growth."""
    iteration = {f"{row['work']}, {row['candidate']}": row for row in rows if row["work"] != UPDATE}
    chosen = {name: {"work": row["work"], "candidate": row["candidate"]} for name, row in iteration.items()}
    return chosen | {f"{OURS}, {share:.0%} of the breakpoints crossed": {"share": share} for share in SHARES}


def tables(rows: list[dict]) -> dict[str, str]:
    works = [f"{ITERATION}, {name}" for name in NAMES.values()]
    lines = [
        [row["case"], row["work"].removeprefix(f"{ITERATION}, "), row["candidate"], row["passes"]]
        for row in rows
        if "passes" in row
    ]
    return {f"large, {name}": ratios(rows, work=work) for name, work in zip(NAMES.values(), works, strict=True)} | {
        "passes": table(["", "", "", "passes over S and Y"], lines),
        "growth": table(["", "exponent"], ([name, growth(rows, **where)] for name, where in series(rows).items())),
    }


def picture(rows: list[dict]) -> Figure:
    """Seconds an iteration against n."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip((OURS, "SciPy", "jaxopt"), COLORS, strict=False))
    styles = {"Rosenbrock": "o-", "torsion": "s--", "crossed": "^:"}
    for name, where in series(rows).items():
        chosen = [row for row in rows if where.items() <= row.items()]
        color, style = (next(look for key, look in looks.items() if key in name) for looks in (colors, styles))
        n, seconds = [row["n"] for row in chosen], [row["seconds"] for row in chosen]
        inside = "none" if " 0%" in name else color  # one color and style are two lines'
        label = name.removeprefix(f"{ITERATION}, ")
        axes.loglog(n, seconds, style, color=color, markerfacecolor=inside, label=label)
    axes.set(xlabel="variables", ylabel="seconds an iteration")
    figure.legend(loc="outside right upper")
    return figure


def goals(rows: list[dict]) -> Iterator[Goal]:
    most = max(row["n"] for row in rows)
    for peer, limit in (("SciPy", 0.35), ("jaxopt.LBFGSB", 0.06)):
        found = [1 / ratio(rows, peer, n=row["n"], work=row["work"]) for row in rows if is_largest(row, most, peer)]
        yield Goal(f"one iteration at n = {most:,}, to {peer}'s", f"≤ {limit}", span(found), max(found) <= limit)
    counts = [row["passes"] for row in rows if is_largest(row, most, OURS)]
    yield Goal(f"passes over S and Y at n = {most:,}", "≤ 8", span(counts), max(counts) <= 8)
    found = [growth(rows, **where) for name, where in series(rows).items() if OURS in name]
    yield Goal("growth of an iteration with n, exponent", "≤ 1.1", span(found), max(found) <= 1.1)


def is_largest(row: dict, n: int, candidate: str) -> bool:
    return row.get("candidate") == candidate and row["n"] >= 0.99 * n
