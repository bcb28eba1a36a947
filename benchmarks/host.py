"""The host path: `fmin_l_bfgs_b` beside SciPy's, on a NumPy and on a JAX objective.

Run `python benchmarks/host.py`. The candidates take turns in one process; times are medians and only their ratios mean
anything on a shared machine. The solver's own time is that of a run less that of its objective.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
import scipy.optimize  # noqa: E402
from single import chained, chained_numpy, medians, problem  # noqa: E402

from jaxlbfgsb import fmin_l_bfgs_b  # noqa: E402

SIZES = (2, 10, 20, 32, 64, 100)


if __name__ == "__main__":
    print("| n | own time an evaluation, ours / SciPy's | a JAX objective, whole run, ours / SciPy's |\n|---|---|---|")
    for n in SIZES:
        x, lower, upper = map(np.asarray, problem(n))
        options = {"x0": x, "bounds": list(zip(lower.tolist(), upper.tolist(), strict=True))}
        both = jax.jit(jax.value_and_grad(chained))
        evaluations = scipy.optimize.fmin_l_bfgs_b(chained_numpy, **options)[2]["funcalls"]
        times = medians(
            {
                "ours": lambda options=options: fmin_l_bfgs_b(chained_numpy, **options),
                "scipy": lambda options=options: scipy.optimize.fmin_l_bfgs_b(chained_numpy, **options),
                "objective": lambda x=x, k=evaluations: [chained_numpy(x) for _ in range(k)],
                "ours, JAX": lambda options=options: fmin_l_bfgs_b(chained, **options),
                "scipy, JAX": lambda options=options, both=both: scipy.optimize.fmin_l_bfgs_b(both, **options),
            }
        )
        own = (times["ours"] - times["objective"]) / (times["scipy"] - times["objective"])
        print(f"| {n} | {own:.2f} | {times['ours, JAX'] / times['scipy, JAX']:.2f} |")
