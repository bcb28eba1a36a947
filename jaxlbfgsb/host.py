"""The solver driven from the host: one compiled `update` for objectives that are any Python.

    run = start(x0, lower, upper, memory_size, ftol, gtol, max_linesearch)
    while run.status == Status.RUNNING:
        run = advance(run, evaluation(*value_and_grad(run.x)))

The work is a few microseconds, so what a call costs beside it is what counts. A State travels as two arrays: the pairs,
which are written in place, and one vector of all the rest; what the host reads of it comes back as a third. The program
runs in the calling thread, and for few variables as one kernel (`device`, kernel.py). Always float64, whatever
jax_enable_x64 says, and on the CPU.

Nothing is compiled for a new objective, and little for a new n: sizes are rounded up, and the variables added are 0,
have no slope and never move. They are bounded if all others are, because that decides the first step.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from jaxtyping import Array, Float

from .argmin import LEAN, compiled
from .arguments import ravel
from .box import Box, Vector
from .cauchy import FEW
from .kernel import known, marked
from .loop import without_pairs
from .memory import empty
from .solver import Options, State, init, update

READS = 4  # numbers of a reply that come before its vectors: status, iterations, pairs held, row the next one takes
DENSE = 32  # variables up to which dense.py is as fast here, and compiles in half of the time
NO_LIBRARY = {"xla_cpu_experimental_ynn_fusion_type": ""}  # matrix products as loops, which can be part of a kernel


class Run(NamedTuple):
    """A run between two evaluations."""

    update: Compiled
    pairs: Float[Array, "2 m k"]  # the Y and S of the solver's memory, k ≥ n variables
    numbers: Vector  # the rest of its State
    problem: Vector  # x0, lower, upper, ftol, gtol, max_linesearch
    answer: Array | np.ndarray  # READS numbers; x; the y and s whose row the last update wrote to
    reply: Float[np.ndarray, " r"]  # the same, for the host to read
    n: int

    @property
    def x(self) -> Float[np.ndarray, " n"]:
        """Where f and g are wanted next, a new array; when it has ended, the last iterate."""
        return self.reply[READS : READS + self.n].copy()

    @property
    def status(self) -> int:
        """Of `Status`."""
        return int(self.reply[0])

    @property
    def iterations(self) -> int:
        """Accepted steps."""
        return int(self.reply[1])


def padded(n: int) -> int:
    """How many variables the program for n of them has: 8, 16, 32, 64, and then at most a quarter more than n."""
    power = 1 << max(n - 1, 7).bit_length()
    unit = power if power <= 64 else power // 8
    return -(-n // unit) * unit


def start(
    x0: Float[np.ndarray, " n"],
    lower: Float[np.ndarray, " n"],
    upper: Float[np.ndarray, " n"],
    memory_size: int,
    ftol: float,
    gtol: float,
    max_linesearch: int,
) -> Run:
    """A run that asks for f and g at x0, which lies in the box."""
    n = len(x0)
    rest = np.zeros(padded(n) - n)
    wide = rest + (1 if np.isfinite(lower).all() and np.isfinite(upper).all() else np.inf)
    problem = np.concatenate([x0, rest, lower, -wide, upper, wide, [ftol, gtol, max_linesearch]])
    begin, update = _programs(padded(n), memory_size)
    pairs, numbers, problem = outright(begin, problem)
    answer = asking(x0)
    return Run(update, pairs, numbers, problem, answer, answer, n)


def asking(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " r"]:
    """The answer of a run that asks for f and g at x."""
    answer = np.zeros(READS + 3 * padded(len(x)))
    answer[READS : READS + len(x)] = x
    return answer


def advance(run: Run, evaluation: Array | np.ndarray) -> Run:
    """The run after f and g at its x, as `evaluation` has them. The old run is used up, but for its reply."""
    pairs, numbers, answer = outright(run.update, run.pairs, run.numbers, run.problem, evaluation)
    return Run(run.update, pairs, numbers, run.problem, answer, np.asarray(answer), run.n)


def evaluation(f: float, g: Float[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    """f and g in the form that `advance` takes."""
    numbers = np.zeros(1 + padded(len(g)))
    numbers[0] = f
    numbers[1 : 1 + len(g)] = g
    return numbers


def pairs_used(reply: np.ndarray, run: Run) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """The pairs S and Y, oldest first, that the last search was aimed with, given the last reply but one.

    The last update may have put its pair in the place of the oldest: that row is undone.
    """
    pairs = np.array(run.pairs)
    held, slot = (int(number) for number in reply[2:READS])
    k = pairs.shape[2]
    pairs[:, slot] = run.reply[READS + k :].reshape(2, k)
    Y, S = pairs[:, (slot - held + np.arange(held)) % pairs.shape[1], : run.n]
    return S, Y


def outright(program: Compiled, *arguments: Any) -> Any:
    """What the program makes of float64 arguments, whatever JAX is set to; only the last of them may be NumPy's."""
    config: Any = jax.config
    as_set = config.jax_enable_x64 or isinstance(arguments[-1], jax.Array)
    if as_set and not config.jax_disable_jit:  # to set both takes 3 µs
        return program(*arguments)
    with jax.enable_x64(True), jax.disable_jit(False):
        return program(*arguments)


@cache
def _programs(n: int, m: int) -> tuple[Compiled, Compiled]:
    """`_begin` and `_update` for n variables and m pairs, compiled."""
    vectors = [jax.ShapeDtypeStruct([size], np.float64) for size in (3 * n + 3, n + 1)]
    with jax.enable_x64(True), jax.disable_jit(False), jax.default_device(device()):
        begin, step = partial(_begin, n, m), partial(_update, n, m)
        packed = jax.eval_shape(begin, vectors[0])[:2]
        small = known() and n <= FEW  # beyond, there is a sort, which cannot be part of a kernel
        step, options = (marked(step), LEAN | NO_LIBRARY) if small else (step, LEAN)
        return (
            compiled(begin, LEAN, vectors[0]),
            compiled(step, options, *packed, *vectors, donate_argnums=(0, 1)),
        )


def _begin(n: int, m: int, problem: Vector) -> tuple[Array, Vector, Vector]:
    """The packed state that asks for f and g at x0."""
    x0, box, _ = _unpack_problem(n, problem)
    return *_pack(_opened(x0, box, m)), problem


def _opened(x0: Vector, box: Box, m: int) -> State:
    """The state at the start; its memory is dense.py's for some more variables than in `init`."""
    state, n = init(x0, box, m), len(x0)
    return state._replace(memory=empty(n, m, x0.dtype, products=0)) if n <= DENSE else state


def _update(
    n: int, m: int, pairs: Array, numbers: Vector, problem: Vector, evaluation: Vector
) -> tuple[Array, Vector, Vector]:
    """The packed state after f and g, and what the host reads of it."""
    x0, box, options = _unpack_problem(n, problem)
    _, unravel = ravel(without_pairs(_opened(x0, box, m)))
    state = unravel(numbers)
    state = state._replace(memory=state.memory._replace(YS=pairs))
    overwritten = jax.lax.dynamic_index_in_dim(pairs, state.memory.slot, axis=1)
    new = update(state, evaluation[0], evaluation[1:], box, options)
    reads = jnp.stack([new.status, new.iterations, new.memory.held, new.memory.slot]).astype(pairs.dtype)
    return *_pack(new), jnp.concatenate([reads, new.x, overwritten.reshape(-1)])


def _pack(state: State) -> tuple[Array, Vector]:
    return state.memory.YS, ravel(without_pairs(state))[0]


def _unpack_problem(n: int, problem: Vector) -> tuple[Vector, Box, Options]:
    x0, lower, upper, (ftol, gtol, max_linesearch) = jnp.split(problem, [n, 2 * n, 3 * n])
    most = np.iinfo(np.int32).max  # the host counts iterations and evaluations
    return x0, Box(lower, upper), Options(ftol, gtol, most, most, max_linesearch)


@cache
def device() -> Any:
    """A jax.Device: a CPU that runs what it is given at once, in the calling thread.

    JAX's own, unless told otherwise when it starts, hands all but the smallest programs to another thread, and to wake
    that one takes longer than an update.
    """
    try:
        from jaxlib.xla_client import make_cpu_client

        return make_cpu_client(asynchronous=False).devices()[0]
    except Exception:  # jaxlib does not promise it
        return jax.devices("cpu")[0]
