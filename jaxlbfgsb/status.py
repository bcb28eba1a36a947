"""Exit codes of the solver and their messages: written here and nowhere else."""

from enum import IntEnum


class Status(IntEnum):
    """Why a run ended; `RUNNING` while it has not. Compare with `result.status`, an integer array.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import Status, minimize
      >>> result = minimize(lambda x: jnp.sum(x**2), jnp.ones(2))
      >>> print(result.status == Status.GRADIENT, Status.GRADIENT.message)
      True converged: the projected gradient is at most gtol
    """

    RUNNING = 0
    GRADIENT = 1
    REDUCTION = 2
    ITERATIONS = 3
    EVALUATIONS = 4
    ABNORMAL = 5
    NON_FINITE = 6
    BAD_X0 = 7
    BAD_BOUNDS = 8
    BAD_OPTIONS = 9

    @property
    def converged(self) -> bool:
        """True for the two ends at which an optimality test is met."""
        return self in (Status.GRADIENT, Status.REDUCTION)

    @property
    def message(self) -> str:
        """One sentence for people: what happened and, where there is one, the next thing to try."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "not finished: more evaluations are wanted",
    Status.GRADIENT: "converged: the projected gradient is at most gtol",
    Status.REDUCTION: "converged: the relative reduction of f is at most ftol",
    Status.ITERATIONS: "stopped: max_iterations was reached; raise it, or continue from the state",
    Status.EVALUATIONS: "stopped: max_evaluations was exceeded; raise it, or continue from the state",
    Status.ABNORMAL: (
        "stopped: the line search found no better point; f may be noisy at this precision, or the gradient wrong"
    ),
    Status.NON_FINITE: (
        "stopped: f or its gradient is NaN or inf at the start or all along the search direction; evaluate it at x, or "
        "keep x away by bounds"
    ),
    Status.BAD_X0: "not started: x0 holds NaN or inf",
    Status.BAD_BOUNDS: "not started: a bound is NaN, or a lower bound is above its upper bound",
    Status.BAD_OPTIONS: "not started: a tolerance is negative or NaN, or max_linesearch is below 1",
}
