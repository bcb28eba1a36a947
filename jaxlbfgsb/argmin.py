"""minimize: the solver as a function of pytrees.

Parameters are ravelled once into the vector the solver sees, in the widest of their dtypes, and the bounds with them.
The objective is traced once, to a jaxpr that serves validation, the loop and the gradient, and stands once in the
program.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import ModuleType, NoneType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.core import Tracer
from jax.errors import ConcretizationTypeError, TracerArrayConversionError, TracerIntegerConversionError
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array, Bool, Int

from . import implicit, loop
from .arguments import (
    PyTree,
    check_args,
    check_bounds,
    check_callable,
    check_gradient,
    check_linear_solver,
    check_memory_size,
    check_options,
    check_x0,
    closed_over,
    described,
    inside_jit,
    is_array,
    ravel,
    traced_status,
)
from .box import Box, Scalar, Vector
from .solver import Options, State, init
from .status import Status

SCALARS = frozenset({bool, int, float, complex, str, bytes, NoneType})
OPAQUE = (jax.Array, np.ndarray, np.generic, type, ModuleType)
NAMED = 5  # problems that did not converge, in a summary
UNTRACEABLE = ConcretizationTypeError, TracerArrayConversionError, TracerIntegerConversionError


class Result(NamedTuple):
    """What `minimize` found. Under vmap and in batches every field has the leading axes of the batch.

    Attributes:
      x: the best point, in the structure, shapes and dtypes of x0; never outside the bounds.
      fun: the objective there, `()`, in the widest dtype of x0.
      grad: its gradient there, like x; not projected.
      residual: max |P(x - g) - x|, the norm of the projected gradient, `()`: 0 at a first-order point.
      status: why it ended, `()`, an integer of `Status`.
      iterations: accepted steps, `()`.
      evaluations: of the objective with its gradient, `()`.
      degenerate: whether a variable is at a bound, or too near to tell, with a multiplier |g_i| too small to tell from
        zero: then the derivative of x is one-sided, `()`.
      aux: what the objective returned beside its value at x, with `has_aux`; else None.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from jaxlbfgsb import Status, minimize, minimize_many
      >>> result = minimize(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(2), bounds=(None, 1.0))
      >>> result
      converged: the projected gradient is at most gtol
      fun         2
      residual    0
      iterations  2
      evaluations 3
      x           [1. 1.]
      >>> Status(int(result.status)).name
      'GRADIENT'

      Of many problems, those that failed, and problem 1 alone:

      >>> fits = minimize_many(lambda x, c: jnp.sum((x - c) ** 2), jnp.zeros((3, 1)), np.array([[1], [2], [np.nan]]))
      >>> np.flatnonzero(~fits.converged)
      array([2])
      >>> print(jax.tree.map(lambda leaf: leaf[1], fits).x)
      [2.]
    """

    x: PyTree
    fun: Scalar
    grad: PyTree
    residual: Scalar
    status: Int[Array, ""]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    degenerate: Bool[Array, ""]
    aux: PyTree = None

    @property
    def converged(self) -> Bool[Array, ""]:
        """True where an optimality test was met."""
        return (self.status == Status.GRADIENT) | (self.status == Status.REDUCTION)

    @property
    def message(self) -> str:
        """The status in words, for one problem; how many ended in which way, for a batch. Not under jit."""
        codes, counts = np.unique(np.asarray(self.status), return_counts=True)
        if np.ndim(self.status) == 0:
            return Status(codes[0]).message
        return "\n".join(f"{count} × {Status(code).message}" for code, count in zip(codes, counts, strict=True))

    def __repr__(self) -> str:
        seen = is_array(self.status) and not isinstance(self.status, Tracer)
        if not seen or not getattr(self.status, "is_fully_addressable", True):
            return f"Result(x={self.x}, fun={self.fun}, status={self.status})"
        if np.ndim(self.status) > 0:
            return "\n".join([f"Result of {np.size(self.status)} problems", self.message, *_summary(self)])
        lines = [
            self.message,
            f"fun         {float(self.fun):.10g}",
            f"residual    {float(self.residual):.3g}",
            f"iterations  {int(self.iterations)}",
            f"evaluations {int(self.evaluations)}",
            f"x           {np.array2string(np.asarray(self.x), prefix=' ' * 12) if is_array(self.x) else self.x}",
        ]
        return "\n".join(lines)


def _summary(many: Result) -> list[str]:
    """Lines on the values of many problems and on those that did not converge."""
    fun, residual, failed = np.asarray(many.fun), np.asarray(many.residual), np.argwhere(~np.asarray(many.converged))
    finite, known = fun[np.isfinite(fun)], residual[np.isfinite(residual)]
    span = [f"{finite.min():.10g} to {finite.max():.10g}"] if len(finite) else []
    nan = [f"NaN in {np.isnan(fun).sum()}"] if np.isnan(fun).any() else []
    named = [str(at[0] if len(at) == 1 else tuple(at)) for at in failed[:NAMED].tolist()]
    said = {
        "fun": [*span, *nan],
        "residual": [f"{np.median(known):.3g} in the median, at most {known.max():.3g}"] if len(known) else [],
        "unconverged": [*named, "..."] if len(failed) > NAMED else named,
    }
    return [f"{name:11} {', '.join(what)}" for name, what in said.items() if what]


def minimize(
    fun: Callable,
    x0: PyTree,
    args: Any = (),
    *,
    bounds: Any = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    memory_size: int = 10,
    linear_solver: str | None = None,
    options: Options = Options(),
) -> Result:
    """A local minimizer of fun(x, *args) over l ≤ x ≤ u, by L-BFGS-B.

    Takes SciPy's steps: iterations and evaluations are those of `scipy.optimize.fmin_l_bfgs_b` wherever these don't
    hang on rounding; docs/algorithm.md lists the exceptions.
    Works inside jit, vmap (over x0, args, bounds and options), lax.map and scan, and with x0 sharded over devices.
    Its x, fun, grad and aux have derivatives, forward and reverse, to any order, by args, bounds and what fun closes
    over: those of the solution, by the implicit function theorem. x0 and options have none.

    Args:
      fun: a function of x (like x0) and args, traceable by JAX, that returns a real scalar; with `has_aux`, a pair
        (scalar, aux). A value of NaN or inf counts as +inf: the step into it is shortened. Called once a compilation;
        as with jit, what it closes over is constant unless traced, so pass what changes through `args`.
      x0: where to begin, any pytree of float32 or float64 arrays; projected on the bounds first. The computation runs
        in the widest dtype among them.
      args: a tuple of pytrees of arrays, passed on to fun; anything else is taken as the one argument.
      bounds: None; (lower, upper), a tuple of two, each a prefix of x0's tree with arrays that broadcast to its leaves,
        None or ±inf where there is none; for a 1-D x0 also a list of (low, high) pairs, an (n, 2) array or a
        `scipy.optimize.Bounds`; refused where it may be either, as ((0, 1), (2, 3)). Cast to the leaf's dtype; that box
        is never left, not by one ulp.
      has_aux: whether fun returns (scalar, aux).
      value_and_grad: whether fun returns (value, gradient) itself, value being (scalar, aux) with `has_aux`, and the
        gradient like x. Otherwise the gradient is jax.grad's.
      memory_size: how many pairs (Δx, Δg) the model of the Hessian remembers; 3 to 20 is usual.
      linear_solver: how the derivative's linear system is solved: "dense", by a Cholesky factorization of the Hessian
        of the free variables; "cg", by conjugate gradients, in memory for some vectors; None, dense up to 2048
        variables. Says nothing about the minimization.
      options: when to stop; see `Options`.

    Returns:
      A `Result`. Where values are traced and so cannot be checked beforehand, a NaN in x0, bounds that cross or bad
      options give a status that says so, with x = x0 and no evaluation.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what was expected.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import minimize
      >>> result = minimize(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(3), bounds=(0.0, jnp.array([1.0, 3.0, 3.0])))
      >>> print(result.x, result.converged)
      [1. 2. 2.] True

    References:
      Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16 (1995); Zhu, Byrd, Lu, Nocedal, ACM TOMS 23 (1997), Algorithm 778;
      Morales, Nocedal, ACM TOMS 38 (2011); Moré, Thuente, ACM TOMS 20 (1994).
    """
    fun, memory_size = check_statics(fun, memory_size)
    check_linear_solver(linear_solver)
    x0 = check_x0(x0)
    lower, upper = check_bounds(bounds, x0)
    options = check_options(options)
    args = check_args(args if isinstance(args, tuple) else (args,))
    # In a box, by XLA's older emitters, one kernel takes half as long again to compile as many.
    fast = lower is None or inside_jit() or not OLDER
    fast = fast and not any(type(leaf).__name__ == "BatchTracer" for leaf in jax.tree.leaves((x0, args, lower, upper)))
    return _compiled(fun, x0, args, lower, upper, options, has_aux, value_and_grad, memory_size, linear_solver, fast)


def check_statics(fun: Any, memory_size: Any) -> tuple[Callable, int]:
    """fun, as something that can be hashed, and memory_size, if they can be right."""
    check_callable(fun)
    memory_size = check_memory_size(memory_size)
    try:
        hash(fun)
    except TypeError:  # an instance with arrays in it, say
        fun = fun.__call__
    if _holds_traced(fun):
        fun = partial(fun)  # which is like no other: fun itself stays the same when what it holds becomes another
    return fun, memory_size


def _holds_traced(fun: Callable) -> bool:
    """Whether a traced value is in the closure of a function, the object of a method, or a part of it, however deep."""
    seen, waiting = {}, [fun]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, Tracer):
            return True
        if id(thing) not in seen and not isinstance(thing, OPAQUE):
            seen[id(thing)] = thing
            waiting += [part for part in _parts(thing) if type(part) not in SCALARS]
    return False


def _parts(thing: Any) -> list:
    """What an object holds: a function in its closure, a container as entries, any other as attributes."""
    found = [*closed_over(thing), *getattr(thing, "__dict__", {}).values(), getattr(thing, "__self__", None)]
    if isinstance(thing, Mapping):
        found += thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        found += thing
    elif isinstance(thing, partial):
        found += [thing.func, thing.args, thing.keywords]
    return [*found, *(getattr(thing, name, None) for name in _slots(type(thing)))]


@lru_cache(maxsize=256)
def _slots(kind: type) -> list[str]:
    """The names of what the instances of a class have beside a dict."""
    declared = [(base, vars(base).get("__slots__", ())) for base in kind.__mro__]
    names = [(base, name) for base, some in declared for name in ([some] if isinstance(some, str) else some)]
    private = [f"_{base.__name__.lstrip('_')}{name}" for base, name in names if name.startswith("__")]
    return [*(name for _, name in names), *private]


def _solve(
    fun: Callable,
    x0: PyTree,
    args: tuple,
    lower: PyTree,
    upper: PyTree,
    options: Options,
    has_aux: bool,
    value_and_grad: bool,
    memory_size: int,
    linear_solver: str | None,
    fast: bool,
) -> Result:
    solve = partial(_run, fun, has_aux, value_and_grad, memory_size, linear_solver, fast)
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, x0)
    explicit = [s.mesh for s in jax.tree.leaves(shardings) if AxisType.Explicit in s.mesh.axis_types]
    if explicit:  # a solver is made of sums over all variables: the compiler places them, and x ends as x0 began
        one = NamedSharding(explicit[0], PartitionSpec())
        fields: list[Any] = [shardings, one, shardings, one, one, one, one, one, one]
        solve = jax.sharding.auto_axes(out_sharding=Result(*fields))(solve)
    return solve(x0, args, lower, upper, options)


def _run(
    fun: Callable,
    has_aux: bool,
    value_and_grad: bool,
    memory_size: int,
    linear_solver: str | None,
    fast: bool,
    x0: PyTree,
    args: tuple,
    lower: PyTree,
    upper: PyTree,
    options: Options,
) -> Result:
    objective, theta, aux = trace(fun, x0, args, has_aux, value_and_grad)
    solver = implicit.linear_solver(linear_solver, x0)
    x0, unravel = ravel(x0)
    box = None if lower is None else Box(ravel(lower)[0], ravel(upper)[0])

    @jax.custom_jvp
    def solve(theta: Any, box: Box | None, start: tuple[Vector, Options]) -> Result:
        x0, options = start
        begin = partial(opening, memory_size=memory_size)
        form = loop.form(begin, x0, box, options) if fast else loop.plain(begin(x0, box, options), box, options)
        end, found = jax.lax.while_loop(
            lambda carry: form.running(carry[0]),
            lambda carry: advance(partial(objective, theta), carry, form),
            (form.start, zeros(aux)),
        )
        state = form.unfold(end)
        x, f, g = state.iterate
        degenerate = implicit.degenerate(x, g, state.residual, box)
        return Result(x, f, g, state.residual, state.status, state.iterations, state.evaluations, degenerate, found)

    @solve.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Result, Result]:
        found = solve(*primals)
        return found, implicit.tangent(objective, solver, primals[:2], tangents[:2], found)

    result = solve(theta, box, (x0, options))
    return result._replace(x=unravel(result.x), grad=unravel(result.grad))


def opening(x: Vector, box: Box | None, options: Options, memory_size: int) -> State:
    """The state that a run begins with: one that has ended where x, box or options, as far as traced, are unsound."""
    status = traced_status(x, box, options)
    start = init(x, box, memory_size)
    begin = jnp.where(status == Status.RUNNING, start.iterate.x, x)  # with bounds that cross there is no projection
    return start._replace(x=begin, status=status, iterate=start.iterate._replace(x=begin))


def advance(objective: Callable, carry: tuple[Any, PyTree], form: loop.Form) -> tuple[Any, PyTree]:
    """The state in this form, and the aux of its iterate, after one evaluation of (f, aux), g = objective(x)."""
    folded, aux = carry
    state = form.unfold(folded)
    (f, here), g = objective(state.x)
    folded = form.update(folded, f, g)
    new = form.unfold(folded)
    taken = (new.iterations > state.iterations) | ((state.evaluations == 0) & (state.status == Status.RUNNING))
    return folded, jax.tree.map(lambda now, before: jnp.where(taken, now, before), here, aux)


# XLA's newer fusion emitters on the CPU take twice the time to compile this and eight times the memory, and it runs no
# faster for it; from jaxlib 0.11 on there are no others. Its 32 parts to compile side by side are for larger programs
# (docs/performance.md). Such options are for the outermost jit alone: under a user's, the user's hold.
OLDER = {"xla_cpu_use_fusion_emitters": False} if jaxlib.version.__version_info__ < (0, 11) else {}
LEAN = {"xla_cpu_parallel_codegen_split_count": 8, **OLDER}


def lean_jit(function: Callable, **keywords: Any) -> Callable:
    """jax.jit, with these options where it is the outermost."""
    nested = jax.jit(function, **keywords)
    outermost = jax.jit(function, compiler_options=LEAN, **keywords)

    def call(*arguments: Any) -> Any:
        if inside_jit():
            return nested(*arguments)
        try:
            return outermost(*arguments)
        except Exception as error:  # an XLA that does not know them; a transformation that makes of it an inner jit
            if not _names(error, LEAN):
                raise
            return nested(*arguments)

    return call


def compiled(function: Callable, options: dict[str, Any], *arguments: Any, **keywords: Any) -> Compiled:
    """The program for such arguments, with these options where XLA knows them."""
    try:
        return jax.jit(function, compiler_options=options, **keywords).lower(*arguments).compile()
    except Exception as error:
        if not _names(error, options):
            raise
        return jax.jit(function, **keywords).lower(*arguments).compile()


def _names(error: Exception, options: dict[str, Any]) -> bool:
    """Whether an error is about one of these options."""
    return any(option in str(error) for option in options)


STATIC = "fun", "has_aux", "value_and_grad", "memory_size", "linear_solver", "fast"
_compiled = lean_jit(_solve, static_argnames=STATIC)


def trace(
    fun: Callable, x0: PyTree, args: tuple[Any, ...], has_aux: bool, value_and_grad: bool
) -> tuple[Callable, tuple[tuple, list], PyTree]:
    """The objective as (θ, x) -> ((f, aux), g) on vectors, fun having been called once; θ; and the shape of aux.

    θ are the args and what fun closes over.
    """
    x, unravel = ravel(x0)

    def flat(args: tuple, x: Vector) -> Any:
        return fun(unravel(x), *args)

    try:
        jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(args, x)
    except UNTRACEABLE as error:
        first = str(error).split("\n")[0]
        raise TypeError(
            "fun must be written with jax.numpy, without float() or a Python `if` on values, for JAX to trace it "
            f"({first}); for any Python function use jaxlbfgsb.fmin_l_bfgs_b"
        ) from error
    except TypeError as error:
        if len(args) == 1 and isinstance(args[0], list) and "positional argument" in str(error):
            raise TypeError(f"{error}: args is a list and so one argument; write a tuple") from error
        raise
    structure = jax.tree.structure(shape)
    traced = [var for var, value in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True) if isinstance(value, Tracer)]
    custom = [call for call in jaxpr.jaxpr.eqns if call.primitive.name in ("custom_jvp_call", "custom_vjp_call")]
    if any(var is value for call in custom for var in call.invars[: call.params["num_consts"]] for value in traced):
        raise TypeError(
            "fun calls a custom_jvp or custom_vjp function that closes over a traced value, of which JAX would not see "
            "the derivative; make that value an argument of it"
        )
    value, grad = _pair(shape, "(value, gradient)", "value_and_grad") if value_and_grad else (shape, None)
    f, aux = _pair(value, "(value, aux)", "has_aux") if has_aux else (value, None)
    if not isinstance(f, jax.ShapeDtypeStruct) or f.shape != () or not jnp.issubdtype(f.dtype, jnp.floating):
        raise TypeError(f"fun must return a real floating-point scalar, got {described(f)}{_meant(f, has_aux)}")
    if value_and_grad:
        check_gradient(grad, x0)

    def evaluate(theta: tuple[tuple, list], x: Vector) -> PyTree:
        args, closed_over = theta
        run = jaxpr_as_fun(jaxpr.replace(consts=closed_over))
        return jax.tree.unflatten(structure, run(*jax.tree.leaves(args), x))

    def value_and_aux(theta: tuple[tuple, list], x: Vector) -> tuple[Scalar, PyTree]:
        value = evaluate(theta, x)
        f, aux = value if has_aux else (value, None)
        return jnp.asarray(f).astype(x.dtype), aux

    def given(theta: tuple[tuple, list], x: Vector) -> tuple[tuple[Scalar, PyTree], Vector]:
        value, g = evaluate(theta, x)
        f, aux = value if has_aux else (value, None)
        return (jnp.asarray(f).astype(x.dtype), aux), ravel(jax.tree.map(jnp.asarray, g))[0].astype(x.dtype)

    objective = given if value_and_grad else jax.value_and_grad(value_and_aux, argnums=1, has_aux=True)
    return objective, (args, list(jaxpr.consts)), aux


def zeros(shapes: PyTree) -> PyTree:
    """Arrays of zeros of these shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _pair(value: Any, expected: str, option: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"fun must return a pair {expected} with {option}=True, got {described(value)}")
    return tuple(value)


def _meant(f: Any, has_aux: bool) -> str:
    """What to write instead of a value that is no scalar."""
    if isinstance(f, (tuple, list)) and not has_aux:
        return "; for (value, aux) pass has_aux=True, for (value, gradient) value_and_grad=True"
    if isinstance(f, jax.ShapeDtypeStruct) and f.shape != () and jnp.issubdtype(f.dtype, jnp.floating):
        return "; for residuals r return 0.5 * jnp.sum(r**2)"
    return ""
