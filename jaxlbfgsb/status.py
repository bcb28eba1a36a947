"""Exit codes of the solver and their messages: written here and nowhere else."""

from enum import IntEnum


class Status(IntEnum):
    """Why a run ended; `RUNNING` while it has not. Compare with `result.status`, an integer array.

    Each has a `message`: what happened and, where there is one, the next thing to try.

    Attributes:
      RUNNING: not finished, as in a state between two evaluations.
      GRADIENT: converged, by gtol.
      REDUCTION: converged, by ftol.
      ITERATIONS: stopped by max_iterations.
      EVALUATIONS: stopped by max_evaluations.
      ABNORMAL: stopped, for the line search found no better point.
      NON_FINITE: stopped, for f or its gradient is NaN or inf.
      BAD_X0: not started, for x0 holds NaN or inf.
      BAD_BOUNDS: not started, for bounds are NaN or cross.
      BAD_OPTIONS: not started, for a tolerance is negative or NaN, or max_linesearch below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Status, minimize
      >>> result = minimize(lambda x: jnp.sum(x**2), jnp.ones(2))
      >>> print(result.status == Status.GRADIENT, Status.GRADIENT.message)
      True converged: the projected gradient is at most gtol
    """

    message: str

    def __new__(cls, code: int, message: str) -> "Status":
        self = int.__new__(cls, code)
        self._value_, self.message = code, message
        return self

    RUNNING = 0, "not finished: more evaluations are wanted"
    GRADIENT = 1, "converged: the projected gradient is at most gtol"
    REDUCTION = 2, "converged: the relative reduction of f is at most ftol"
    ITERATIONS = 3, "stopped: max_iterations was reached; raise it, or continue from the state"
    EVALUATIONS = 4, "stopped: max_evaluations was exceeded; raise it, or continue from the state"
    ABNORMAL = (
        5,
        "stopped: the line search found no better point; x is as good as rounding allows (look at residual), f is "
        "noisy, or the gradient wrong",
    )
    NON_FINITE = (
        6,
        "stopped: f or its gradient is NaN or inf at the start or all along the search direction; evaluate it at x, "
        "keep x away by bounds, or look for NaN in args",
    )
    BAD_X0 = 7, "not started: x0 holds NaN or inf"
    BAD_BOUNDS = 8, "not started: a bound is NaN, or a lower bound is above its upper bound"
    BAD_OPTIONS = 9, "not started: a tolerance is negative or NaN, or max_linesearch is below 1"

    @property
    def converged(self) -> bool:
        """True for the two ends at which an optimality test is met."""
        return self in (Status.GRADIENT, Status.REDUCTION)
