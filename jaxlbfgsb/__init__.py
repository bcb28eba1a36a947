"""L-BFGS-B in JAX: bounded minimization that takes SciPy's steps, under jit, vmap and shardings."""

from .argmin import Result, minimize
from .box import Box
from .fmin import fmin_l_bfgs_b, scipy_method
from .many import minimize_many
from .sensitivity import ReducedSolve, reduced_solve
from .solver import Options, State, continue_from, init, run, step, update
from .status import Status
from .transform import LbfgsbState, best_params, is_done, lbfgsb
from .uncertainty import covariance

__version__ = "0.1.0"
__all__ = [
    "Box",
    "LbfgsbState",
    "Options",
    "ReducedSolve",
    "Result",
    "State",
    "Status",
    "best_params",
    "continue_from",
    "covariance",
    "fmin_l_bfgs_b",
    "init",
    "is_done",
    "lbfgsb",
    "minimize",
    "minimize_many",
    "reduced_solve",
    "run",
    "scipy_method",
    "step",
    "update",
]
