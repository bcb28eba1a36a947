"""python -m jaxlbfgsb: what the package does, in half a minute, on problems whose answers are certified.

Eight of NIST's reference fits, beside SciPy's L-BFGS-B; ten thousand refits of one of them, in batches, whose spread
must be the certified standard deviations; and a figure of these.
"""

import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float
from tqdm import tqdm

from . import Options, Result, __version__, minimize, nist
from .box import Scalar, Vector
from .nist import DataSet, Model

LOWER, UPPER = 0.1, 10.0  # the box, in units of NIST's nearer start: known to a factor of ten, either way
MEMORY = 20
FTOL = 5e-16  # about the last decrease that is not rounding's
TIGHT = Options(ftol=FTOL, gtol=0.0)  # as far as rounding goes: README's gtol=1e-9 ends two sets digits earlier
USUAL = Options(ftol=1e7 * sys.float_info.epsilon, gtol=1e-5)  # the defaults, as numbers: compiled with TIGHT
LOOSE = Options(ftol=1e-9, gtol=1e-3)  # of ½ χ², and of its slope over one standard deviation
DIGITS = 11  # NIST certifies no more
FIGURE = "jaxlbfgsb.png"
INK, BLUE, ORANGE = "#7a7a7a", "#3b82d0", "#d9702b"
STYLE: dict[Any, Any] = {  # of a picture without a ground, to be read on white and on black
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "savefig.transparent": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def main(refits: int = 10_000, batch: int = 500) -> None:
    """Prints the fits and the refits, and draws the latter in the current folder; `batch` divides `refits`."""
    began = perf_counter()
    jax.config.update("jax_enable_x64", True)
    versions = f"jaxlbfgsb {__version__}, JAX {jax.__version__}, SciPy {scipy.__version__}"
    print(f"{versions}; float64 on {jax.devices()[0].device_kind}\n")
    show_fits()
    data = nist.load("Gauss1")
    b = show_refits(data, refits, batch)
    print(draw(data, b))
    print(f"\n{perf_counter() - began:.0f} s in all, compilation included.")
    print("Next: data of your own, in README.md under that name; help(jaxlbfgsb.minimize) lists every option.")


class Problem(NamedTuple):
    """Minimize half_squares(model, u, *args) over box[0] ≤ u ≤ box[1], from u0."""

    u0: Float[np.ndarray, " n"]
    args: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    box: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def problem(data: DataSet, b0: np.ndarray, unit: np.ndarray, scale: np.ndarray | float) -> Problem:
    """The fit of u = b / unit from b0 on, each b between a tenth of NIST's nearer start and ten times it."""
    lower, upper = np.sort([LOWER * data.starts[1] / unit, UPPER * data.starts[1] / unit], axis=0)
    return Problem(b0 / unit, (data.x, data.y, unit, np.array(scale, float)), (lower, upper))


def half_squares(
    model: Model, u: Vector, x: Float[Array, " m"], y: Float[Array, " m"], unit: Vector, scale: Scalar
) -> Scalar:
    """½ |y - model(b, x)|² / scale at b = unit u."""
    residual = y - model(unit * u, x)
    return 0.5 * (residual @ residual) / scale


# 1. The fits


def show_fits() -> None:
    """The table of the fits, a line for each set and start, with SciPy's beside them if it is there."""
    try:
        from scipy.optimize import fmin_l_bfgs_b
    except ImportError:
        fmin_l_bfgs_b = None
    solvers = 2 if fmin_l_bfgs_b else 1
    print(f"1. Fits: {len(nist.NAMES)} NIST reference sets, from both starts of each. How many digits are right?\n")
    print(f"{'':32}{'jaxlbfgsb':>16}{'':6}" + f"{'SciPy':>12}{'':10}" * (solvers - 1) + f"{'naive':>12}")
    counts = f"{'digits':>10}{'iter':>6}{'eval':>6}" * solvers
    print(f"{'set':10}{'level':8}{'n':>2}{'m':>5}{'start':>7}{counts}{'digits':>12}")
    for name in nist.NAMES:
        data = nist.load(name)
        guess, plain = data.starts[1], np.ones_like(data.certified)
        fun = partial(half_squares, data.model)
        value_and_grad = jax.jit(jax.value_and_grad(fun))
        for number, b0 in enumerate(data.starts, 1):
            task = problem(data, b0, guess, data.y @ data.y)
            found = [solve(fun, task, TIGHT)]
            if fmin_l_bfgs_b:
                found.append(solve_by(fmin_l_bfgs_b, value_and_grad, task))
            cells = "".join(f"{digits(guess * u, data.certified):10.1f}{i:6}{e:6}" for u, i, e in found)
            naive = digits(solve(fun, problem(data, b0, plain, 1), USUAL)[0], data.certified)
            shape = f"{len(data.certified):2}{len(data.y):5}"
            print(f"{name:10}{data.level:8}{shape}{number:7}{cells}{naive:12.1f}", flush=True)
    print(f"""
n parameters, m observations. Digits: those of the worst parameter that are certified, {DIGITS} at most.
The recipe, the same for all: each parameter in units of a guess, NIST's start 2, and between {LOWER:g}
and {UPPER:g} of them, start 1 moved into that box; half the sum of squares over that of the data;
memory_size={MEMORY}, Options(ftol={FTOL:g}, gtol=0), to stop where rounding takes over.
SciPy: fmin_l_bfgs_b on the same function, box and tolerances; it takes the same steps, until after
dozens of them, on the harder sets, rounding parts the two. Naive: the same box, but parameters and
squares as they come, and the default tolerances.
""")


def solve(fun: Callable, task: Problem, options: Options) -> tuple[np.ndarray, int, int]:
    """u, iterations and evaluations."""
    found = minimize(fun, task.u0, task.args, bounds=task.box, memory_size=MEMORY, options=options)
    return np.asarray(found.x), int(found.iterations), int(found.evaluations)


def solve_by(fmin_l_bfgs_b: Callable, value_and_grad: Callable, task: Problem) -> tuple[np.ndarray, int, int]:
    """The same by SciPy's function, with TIGHT in its terms."""

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(u, *task.args)
        return float(value), np.asarray(grad)

    pairs, factr = list(zip(*task.box, strict=True)), FTOL / sys.float_info.epsilon
    u, _, facts = fmin_l_bfgs_b(objective, task.u0, bounds=pairs, m=MEMORY, factr=factr, pgtol=0)
    return u, facts["nit"], facts["funcalls"]


def digits(b: np.ndarray, certified: np.ndarray) -> float:
    """The decimal digits in which the worst parameter agrees: -log10 max |b / certified - 1|, from 0 to `DIGITS`."""
    return float(np.clip(-np.log10(np.max(np.abs(b / certified - 1)) + 1e-99), 0, DIGITS))


# 2. The refits


def show_refits(data: DataSet, refits: int, batch: int) -> np.ndarray:
    """The table of the spread of b over data made anew, the certified fit plus normal noise; b `(refits, n)`."""
    print(f"2. Refits: {refits:,} of {data.name}, its noise made anew each time. Is their spread the certified one?\n")
    best = np.asarray(data.model(jnp.asarray(data.certified), jnp.asarray(data.x)))
    noise = np.random.default_rng(1).standard_normal((refits, len(best)))
    found, seconds, compiling = refit(data, best + data.residual_std * noise, batch)
    b = data.std * np.asarray(found.x)
    spread = np.std(b, axis=0, ddof=1)
    print(f"{'parameter':10}{'certified':>16}{'its std':>14}{'std of refits':>16}{'ratio':>9}")
    for i, row in enumerate(zip(data.certified, data.std, spread, spread / data.std, strict=True), 1):
        print("b{:<9}{:16.8g}{:14.5g}{:16.5g}{:9.3f}".format(i, *row))
    share, median, most = np.mean(found.converged), np.median(found.evaluations), np.max(found.evaluations)
    rate, chance = refits / seconds, np.sqrt(0.5 / refits)
    print(f"""
Converged: {share:.2%}, in {median:.0f} evaluations ({most} at most). {rate:,.0f} fits a second, {batch} at a time by
jax.vmap: {seconds:.1f} s after {compiling:.1f} s of compilation. Each begins at the certified parameters, in units of
their standard deviations, in the box above. The noise is normal, of the certified residual standard
deviation. Chance alone moves a ratio by {chance:.3f}.
""")
    return b


def refit(data: DataSet, ys: Float[np.ndarray, "k m"], batch: int) -> tuple[Result, float, float]:
    """The fits to each of ys, b = data.std x; the seconds they took, and those of the compilation before."""
    task = problem(data, data.certified, data.std, data.residual_std**2)
    fun, (x, _, unit, scale) = partial(half_squares, data.model), task.args

    def fit(y: Float[Array, " m"]) -> Result:
        return minimize(fun, task.u0, (x, y, unit, scale), bounds=task.box, options=LOOSE)

    began = perf_counter()
    fit_batch = jax.jit(jax.vmap(fit)).lower(ys[:batch]).compile()
    compiled, parts = perf_counter(), []
    with tqdm(total=len(ys), unit=" fits", leave=False) as bar:
        for part in ys.reshape(-1, batch, ys.shape[1]):
            parts.append(jax.block_until_ready(fit_batch(part)))
            bar.update(batch)
    ended = perf_counter()
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), ended - compiled, compiled - began


# 3. The figure


def draw(data: DataSet, b: Float[np.ndarray, "k n"]) -> str:
    """Draws data, fit and refits to `FIGURE`, and says so; or why not."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return "3. No figure: matplotlib is not installed (pip install matplotlib)."
    model, guess = jax.jit(jax.vmap(data.model, (0, None))), data.starts[1]
    u, _, _ = solve(partial(half_squares, data.model), problem(data, guess, guess, data.y @ data.y), TIGHT)
    best = np.asarray(model((guess * u)[None], data.x))[0]
    low, high = np.percentile(np.asarray(model(b, data.x)) - best, [2.5, 97.5], axis=0)
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=[1.2, 1], height_ratios=[2, 1])
        above, beside = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
        below = figure.add_subplot(grid[1, 0], sharex=above)

        above.plot(data.x, data.y, ".", color=INK, markersize=4, label=f"{len(data.y)} observations")
        above.plot(data.x, best, color=BLUE, linewidth=2, label="fit")
        above.set(title=f"NIST {data.name}", ylabel="y")
        above.tick_params(labelbottom=False)
        below.plot(data.x, data.y - best, ".", color=INK, markersize=4)
        below.fill_between(data.x, low, high, color=ORANGE, linewidth=0, label="95 % of the refitted curves")
        below.axhline(0, color=BLUE, linewidth=1.5)
        below.set(xlabel="x", ylabel="y - fit", ylim=(-9, 16))

        edges = np.linspace(-4, 4, 41)
        for i, column in enumerate(((b - data.certified) / data.std).T):
            share, _ = np.histogram(column, edges, density=True)
            label = None if i else f"its {b.shape[1]} parameters, each a line"
            beside.plot((edges[1:] + edges[:-1]) / 2, share, color=BLUE, linewidth=1, label=label)
        t = np.linspace(-4, 4, 201)
        beside.plot(
            t, np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi), color=ORANGE, linewidth=2.5, label="normal, as certified"
        )
        beside.set(title=f"{len(b):,} bounded refits", ylim=(0, 0.55), ylabel="density")
        beside.set(xlabel="(parameter - certified) / certified std")
        above.legend(loc="upper right")
        below.legend(loc="upper right", borderaxespad=0)
        beside.legend(loc="upper right")
        figure.savefig(FIGURE, dpi=180)
    return f"3. Figure: {FIGURE}"


if __name__ == "__main__":
    main()
