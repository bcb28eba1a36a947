"""minimize: the solver as a function of pytrees.

Parameters are ravelled once into the vector the solver sees, in the widest of their dtypes, and the bounds with them.
The objective is traced once, to a jaxpr that serves validation, the loop and the gradient, and stands once in the
program.
"""

import sys
from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Bool, Float, Int, PyTree

from .box import Box, Scalar, Vector, project
from .solver import Options, State, init, step
from .status import Status

BOTH_SPELLINGS = (
    "write (lower, upper), each a pytree or an array, or a list of (low, high) pairs, one for each entry of a 1-D x0"
)


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
      aux: what the objective returned beside its value at x, with `has_aux`; else None.
    """

    x: PyTree
    fun: Scalar
    grad: PyTree
    residual: Scalar
    status: Int[Array, ""]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
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
        if isinstance(self.status, jax.core.Tracer):
            return f"Result(x={self.x}, fun={self.fun}, status={self.status})"
        if np.ndim(self.status) > 0:
            return f"Result of {np.size(self.status)} problems\n{self.message}"
        lines = [
            self.message,
            f"fun         {float(self.fun):.10g}",
            f"residual    {float(self.residual):.3g}",
            f"iterations  {int(self.iterations)}",
            f"evaluations {int(self.evaluations)}",
            f"x           {np.array2string(np.asarray(self.x), prefix=' ' * 12) if _is_array(self.x) else self.x}",
        ]
        return "\n".join(lines)


def minimize(
    fun: Callable,
    x0: PyTree,
    args: tuple | Any = (),
    *,
    bounds: Any = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    memory_size: int = 10,
    options: Options = Options(),
) -> Result:
    """A local minimizer of fun(x, *args) over l ≤ x ≤ u, by L-BFGS-B.

    Takes SciPy's steps: the same iterates, iterations and evaluations as `scipy.optimize.fmin_l_bfgs_b`, to rounding.
    Works inside jit, vmap (over x0, args, bounds and options), lax.map and scan, and with x0 sharded over devices.

    Args:
      fun: a function of x (like x0) and args, traceable by JAX, that returns a real scalar; with `has_aux`, a pair
        (scalar, aux). A value of NaN or inf counts as +inf: the step into it is shortened. Called once a compilation;
        as with jit, what it closes over is constant unless traced, so pass what changes through `args`.
      x0: where to begin, any pytree of float32 or float64 arrays; projected on the bounds first. The computation runs
        in the widest dtype among them.
      args: a tuple of pytrees of arrays, passed on to fun; anything else is taken as the one argument.
      bounds: None; (lower, upper), a tuple of two, each a prefix of x0's tree with arrays that broadcast to its leaves,
        None or ±inf where there is none; for a 1-D x0 also a list of (low, high) pairs, an (n, 2) array or a
        `scipy.optimize.Bounds`. Cast to the leaf's dtype; that box is never left, not by one ulp.
      has_aux: whether fun returns (scalar, aux).
      value_and_grad: whether fun returns (value, gradient) itself, value being (scalar, aux) with `has_aux`, and the
        gradient like x. Otherwise the gradient is jax.grad's.
      memory_size: how many pairs (Δx, Δg) the model of the Hessian remembers; 3 to 20 is usual.
      options: when to stop; see `Options`.

    Returns:
      A `Result`. Where values are traced and so cannot be checked beforehand, a NaN in x0, bounds that cross or bad
      options give a status that says so, with x = x0 and no evaluation.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what was expected.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import minimize
      >>> result = minimize(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(3), bounds=(0.0, jnp.array([1.0, 3.0, 3.0])))
      >>> print(result.x, result.converged)
      [1. 2. 2.] True

    References:
      Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16 (1995); Zhu, Byrd, Lu, Nocedal, ACM TOMS 23 (1997), Algorithm 778;
      Morales, Nocedal, ACM TOMS 38 (2011); Moré, Thuente, ACM TOMS 20 (1994).
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function of x, got {type(fun).__name__}")
    if isinstance(memory_size, bool) or not isinstance(memory_size, (int, np.integer)):
        raise TypeError(f"memory_size must be an integer, got {type(memory_size).__name__}")
    if memory_size < 1:
        raise ValueError(f"memory_size must be at least 1, got {memory_size}")
    x0 = _check_x0(x0)
    lower, upper = _check_bounds(bounds, x0)
    options = _check_options(options)
    args = _check_args(args if isinstance(args, tuple) else (args,))
    try:
        hash(fun)
    except TypeError:  # an instance with arrays in it, say
        fun = fun.__call__
    return _minimize(fun, x0, args, lower, upper, options, has_aux, value_and_grad, int(memory_size))


@partial(jax.jit, static_argnames=("fun", "has_aux", "value_and_grad", "memory_size"))
def _minimize(
    fun: Callable,
    x0: PyTree,
    args: tuple,
    lower: PyTree,
    upper: PyTree,
    options: Options,
    has_aux: bool,
    value_and_grad: bool,
    memory_size: int,
) -> Result:
    x, unravel = ravel(x0)
    box = None if lower is None else Box(ravel(lower)[0], ravel(upper)[0])
    options = options.resolve(x.dtype)
    objective, aux = _trace(fun, x, x0, unravel, args, has_aux, value_and_grad)

    def advance(carry: tuple[State, PyTree]) -> tuple[State, PyTree]:
        state, aux = carry
        (f, here), g = objective(state.x)
        new = step(lambda _: (f, g), state, box, options)
        taken = (new.iterations > state.iterations) | (state.evaluations == 0)
        return new, jax.tree.map(lambda now, before: jnp.where(taken, now, before), here, aux)

    start = init(x, box, memory_size)._replace(status=_traced_check(x, box, options))
    state, aux = jax.lax.while_loop(lambda carry: carry[0].status == Status.RUNNING, advance, (start, aux))
    return Result(
        x=unravel(state.iterate.x),
        fun=state.iterate.f,
        grad=unravel(state.iterate.g),
        residual=state.residual,
        status=state.status,
        iterations=state.iterations,
        evaluations=state.evaluations,
        aux=aux,
    )


def ravel(tree: PyTree) -> tuple[Vector, Callable[[Vector], PyTree]]:
    """The leaves as one vector in the widest of their dtypes, and the way back, each leaf in its own."""
    leaves, structure = jax.tree.flatten(tree)
    shapes, dtypes = [leaf.shape for leaf in leaves], [leaf.dtype for leaf in leaves]
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def unravel(x: Vector) -> PyTree:
        parts = jnp.split(x, ends[:-1]) if len(ends) > 1 else [x]
        leaves = [part.reshape(s).astype(d) for part, s, d in zip(parts, shapes, dtypes, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    vectors = [leaf.astype(dtype).reshape(-1) for leaf in leaves]
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors), unravel


def _trace(
    fun: Callable, x: Vector, x0: PyTree, unravel: Callable, args: tuple, has_aux: bool, value_and_grad: bool
) -> tuple[Callable, PyTree]:
    """The objective as x -> ((f, aux), g) on vectors, fun having been called once, and an aux of zeros."""

    def flat(x: Vector) -> Any:
        return fun(unravel(x), *args)

    jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(x)
    structure = jax.tree.structure(shape)
    evaluate = jaxpr_as_fun(jaxpr)
    value, grad = _pair(shape, "(value, gradient)", "value_and_grad") if value_and_grad else (shape, None)
    f, aux = _pair(value, "(value, aux)", "has_aux") if has_aux else (value, None)
    if not isinstance(f, jax.ShapeDtypeStruct) or f.shape != () or not jnp.issubdtype(f.dtype, jnp.floating):
        found = f"{f.dtype}{list(f.shape)}" if isinstance(f, jax.ShapeDtypeStruct) else f"the pytree {f}"
        hint = "" if has_aux or not isinstance(f, tuple) else "; for (value, aux) pass has_aux=True"
        raise TypeError(f"fun must return a real floating-point scalar, got {found}{hint}")
    if value_and_grad:
        _check_gradient(grad, x0)

    def value_and_aux(x: Vector) -> tuple[Scalar, PyTree]:
        value = jax.tree.unflatten(structure, evaluate(x))
        f, aux = value if has_aux else (value, None)
        return f.astype(x.dtype), aux

    def given(x: Vector) -> tuple[tuple[Scalar, PyTree], Vector]:
        value, g = jax.tree.unflatten(structure, evaluate(x))
        f, aux = value if has_aux else (value, None)
        return (f.astype(x.dtype), aux), ravel(g)[0].astype(x.dtype)

    objective = given if value_and_grad else jax.value_and_grad(value_and_aux, has_aux=True)
    return objective, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), aux)


def _pair(value: Any, expected: str, option: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"fun must return a pair {expected} with {option}=True, got {value}")
    return tuple(value)


def _check_gradient(grad: PyTree, x0: PyTree) -> None:
    if jax.tree.structure(grad) != jax.tree.structure(x0):
        raise ValueError(f"fun must return a gradient like x, {jax.tree.structure(x0)}, got {jax.tree.structure(grad)}")
    for (path, leaf), x in zip(jax.tree.leaves_with_path(grad), jax.tree.leaves(x0), strict=True):
        if leaf.shape != x.shape or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"fun must return a gradient like x: expected {x.dtype}{list(x.shape)}"
                f"{_at(path)}, got {leaf.dtype}{list(leaf.shape)}"
            )


def _check_x0(x0: PyTree) -> PyTree:
    """x0 with arrays for leaves."""
    for path, leaf in jax.tree.leaves_with_path(x0):
        dtype = getattr(leaf, "dtype", None) or np.result_type(type(leaf)) if isinstance(leaf, Number) else leaf
        dtype = leaf.dtype if hasattr(leaf, "dtype") else dtype
        if not isinstance(dtype, np.dtype) or dtype not in (np.float32, np.float64):
            found = dtype if isinstance(dtype, np.dtype) else type(leaf).__name__
            raise TypeError(f"x0{_at(path)} must be a float32 or float64 array, got {found}")
        if _known(leaf) and np.isnan(np.asarray(leaf)).any():
            raise ValueError(f"x0{_at(path)} must be free of NaN")
    x0 = jax.tree.map(jnp.asarray, x0)
    if sum(leaf.size for leaf in jax.tree.leaves(x0)) == 0:
        raise ValueError("x0 must hold at least one number, got an empty pytree")
    return x0


def _check_bounds(bounds: Any, x0: PyTree) -> tuple[PyTree, PyTree]:
    """(lower, upper), each like x0; (None, None) if nothing is bounded."""
    if bounds is None:
        return None, None
    optimize = sys.modules.get("scipy.optimize")  # if it is not loaded, bounds is none of its objects
    if optimize is not None and isinstance(bounds, optimize.Bounds):
        bounds = bounds.lb, bounds.ub
    elif isinstance(bounds, list) or _is_array(bounds):
        bounds = _pairs(bounds, x0)
    elif not isinstance(bounds, tuple) or len(bounds) != 2:
        found = f"a tuple of {len(bounds)}" if isinstance(bounds, tuple) else type(bounds).__name__
        raise ValueError(f"bounds: {BOTH_SPELLINGS}; got {found}")
    lower = _like(bounds[0], -np.inf, x0, "lower")
    upper = _like(bounds[1], np.inf, x0, "upper")
    unbounded = True
    for (path, low), high in zip(jax.tree.leaves_with_path(lower), jax.tree.leaves(upper), strict=True):
        if not (_known(low) and _known(high)):
            unbounded = False
            continue
        low, high = np.asarray(low), np.asarray(high)
        if np.isnan(low).any() or np.isnan(high).any():
            raise ValueError(f"bounds{_at(path)} must be free of NaN; write None or ±inf where there is none")
        if (low > high).any() or (low == np.inf).any() or (high == -np.inf).any():
            where = np.argwhere((low > high) | (low == np.inf) | (high == -np.inf))[0]
            raise ValueError(
                f"bounds{_at(path)}: lower must not be above upper, got "
                f"{low[tuple(where)]} and {high[tuple(where)]} at {tuple(map(int, where))}"
            )
        unbounded = unbounded and bool((low == -np.inf).all() and (high == np.inf).all())
    return (None, None) if unbounded else (lower, upper)


def _pairs(bounds: Any, x0: PyTree) -> tuple[Any, Any]:
    """SciPy's list of (low, high) pairs, or an (n, 2) array, as (lower, upper)."""
    if not _is_array(x0) or x0.ndim != 1:
        raise ValueError(f"bounds as a list of pairs or an (n, 2) array need x0 to be one 1-D array; {BOTH_SPELLINGS}")
    if _is_array(bounds):
        shape = bounds.shape
    else:
        for i, pair in enumerate(bounds):
            if not isinstance(pair, (tuple, list)) and np.shape(pair) != (2,) or len(pair) != 2:
                raise ValueError(f"bounds[{i}] must be a pair (low, high), got {pair!r}")
        shape = (len(bounds), 2)
    if shape != (len(x0), 2):
        raise ValueError(f"bounds must have one (low, high) for each of the {len(x0)} entries of x0, got {list(shape)}")
    if _is_array(bounds):
        return bounds[:, 0], bounds[:, 1]
    lower = [-np.inf if low is None else low for low, _ in bounds]
    upper = [np.inf if high is None else high for _, high in bounds]
    return jnp.asarray(lower, x0.dtype), jnp.asarray(upper, x0.dtype)


def _like(bound: PyTree, absent: float, x0: PyTree, name: str) -> PyTree:
    """One side of the bounds with the tree, shapes and dtypes of x0."""
    try:
        bound = jax.tree.broadcast(bound, x0, is_leaf=lambda leaf: leaf is None)
    except ValueError as error:
        raise ValueError(f"bounds: {name} must be a prefix of x0's tree {jax.tree.structure(x0)}: {error}") from None
    leaves, structure = jax.tree.flatten(bound, is_leaf=lambda leaf: leaf is None)

    def fit(path: Any, x: Array, leaf: Any) -> Array:
        leaf = jnp.asarray(absent if leaf is None else leaf)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating) or leaf.dtype == bool:
            raise TypeError(f"bounds: {name}{_at(path)} must be real numbers, got {leaf.dtype}")
        try:
            return jnp.broadcast_to(leaf.astype(x.dtype), x.shape)
        except ValueError:
            raise ValueError(
                f"bounds: {name}{_at(path)} must broadcast to the shape {list(x.shape)} of x0, got {list(leaf.shape)}"
            ) from None

    paths = [path for path, _ in jax.tree.leaves_with_path(x0)]
    fitted = [fit(*triple) for triple in zip(paths, jax.tree.leaves(x0), leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(x0), fitted)


def _check_options(options: Options) -> Options:
    if not isinstance(options, Options):
        raise TypeError(f"options must be an Options, got {type(options).__name__}; write Options(gtol=1e-8), say")
    for name in ("ftol", "gtol"):
        value = getattr(options, name)
        if value is not None and _known(value) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"options.{name} must not be negative or NaN, got {value}")
    for name, least in (("max_iterations", 0), ("max_evaluations", 0), ("max_linesearch", 1)):
        value = getattr(options, name)
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(f"options.{name} must be an integer, got {value!r}")
        if _known(value) and not np.all(np.asarray(value) >= least):
            raise ValueError(f"options.{name} must be at least {least}, got {value}")
    return options


def _check_args(args: tuple) -> tuple:
    for path, leaf in jax.tree.leaves_with_path(args):
        if not _is_array(leaf) and not isinstance(leaf, Number):
            raise TypeError(f"args{_at(path)} must be an array or a number, got {type(leaf).__name__}")
    return args


def _traced_check(x: Vector, box: Box | None, options: Options) -> Int[Array, ""]:
    """BAD_X0, BAD_BOUNDS or BAD_OPTIONS for what could not be seen when tracing, else RUNNING."""
    status = jnp.asarray(Status.RUNNING)
    bad = ~((options.ftol >= 0) & (options.gtol >= 0) & (options.max_linesearch >= 1))
    status = jnp.where(bad, jnp.asarray(Status.BAD_OPTIONS), status)
    status = jnp.where(jnp.all(jnp.isfinite(x if box is None else project(x, box))), status, jnp.asarray(Status.BAD_X0))
    if box is not None:
        sound = (box.lower <= box.upper) & (box.lower < jnp.inf) & (box.upper > -jnp.inf)
        status = jnp.where(jnp.all(sound), status, jnp.asarray(Status.BAD_BOUNDS))
    return status


def _known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def _at(path: Any) -> str:
    return jax.tree_util.keystr(path)
