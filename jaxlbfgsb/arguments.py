"""What callers give, checked before any work is done: each error names the argument, the leaf and what was expected.

Values that are traced cannot be looked at; `traced_status` judges them inside the program instead.
"""

import sys
import warnings
from collections.abc import Callable, Iterable
from numbers import Number
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from .box import Box, Vector, project
from .solver import Options
from .status import Status

PyTree: TypeAlias = Any  # jaxtyping's is no type at all to a type checker

BOTH_SPELLINGS = (
    "write (lower, upper), each a pytree or an array, or a list of (low, high) pairs, one for each entry of a 1-D x0"
)

PAD = "pad data of different lengths, see docs/recipes.md"


def check_x0(x0: PyTree) -> PyTree:
    """x0 with JAX arrays for leaves."""
    for path, leaf in jax.tree.leaves_with_path(x0):
        dtype = np.dtype(type(leaf)) if isinstance(leaf, Number) else getattr(leaf, "dtype", type(leaf).__name__)
        if dtype not in (np.float32, np.float64):
            whole = is_array(leaf) and jnp.issubdtype(dtype, jnp.integer)
            hint = if_listed(x0) or (f"; write x0{_at(path)}.astype(float)" if whole else "")
            raise TypeError(f"x0{_at(path)} must be a float32 or float64 array, got {dtype}{hint}")
        if _known(leaf) and np.isnan(np.asarray(leaf)).any():
            raise ValueError(f"x0{_at(path)} must be free of NaN")
    x0 = jax.tree.map(jnp.asarray, x0)
    if sum(leaf.size for leaf in jax.tree.leaves(x0)) == 0:
        raise ValueError("x0 must hold at least one number, got an empty pytree")
    return x0


def if_listed(x0: PyTree) -> str:
    """What to say in an error if x0 is a list of numbers, which may have been meant for a vector."""
    if isinstance(x0, list) and all(isinstance(part, Number) or getattr(part, "shape", None) == () for part in x0):
        return "; x0 is a list, that is, a pytree of scalars; for a vector write jnp.array(x0, float)"
    return ""


def check_bounds(bounds: Any, x0: PyTree) -> tuple[PyTree, PyTree]:
    """(lower, upper), each like x0; (None, None) if nothing is bounded."""
    if bounds is None:
        return None, None
    optimize = sys.modules.get("scipy.optimize")  # if it is not loaded, bounds is none of its objects
    if optimize is not None and isinstance(bounds, optimize.Bounds):
        bounds = bounds.lb, bounds.ub
    elif isinstance(bounds, list) or is_array(bounds) or (isinstance(bounds, tuple) and len(bounds) != 2):
        bounds = _pairs(bounds, x0)
    elif not isinstance(bounds, tuple):
        raise ValueError(f"bounds: {BOTH_SPELLINGS}; got {type(bounds).__name__}")
    elif type(bounds) is tuple and all(map(_may_be_pair, bounds)) and is_array(x0) and x0.shape == (2,):
        raise ValueError(
            f"bounds={bounds} may be two pairs or (lower, upper): for pairs write a list of them, "
            f"{[*map(tuple, bounds)]}; for lower and upper two arrays, (np.array(lower), np.array(upper)), with ±inf "
            "for None"
        )
    return check_sides(bounds[0], bounds[1], x0, "x0", f"; {BOTH_SPELLINGS}{if_listed(x0)}")


def _may_be_pair(side: Any) -> bool:
    """Whether one of (lower, upper) reads like SciPy's pair (low, high)."""
    plain = isinstance(side, (list, tuple)) and all(entry is None or isinstance(entry, Number) for entry in side)
    return plain and len(side) == 2


def check_sides(lower: PyTree, upper: PyTree, x0: PyTree, of: str, hint: str = "") -> tuple[PyTree, PyTree]:
    """(lower, upper), each like x0, which the caller knows as `of`; (None, None) if nothing is bounded."""
    lower = _like(lower, -np.inf, x0, "lower", of, hint)
    upper = _like(upper, np.inf, x0, "upper", of, hint)
    unbounded = True
    for (path, low), high in zip(jax.tree.leaves_with_path(lower), jax.tree.leaves(upper), strict=True):
        if not (_known(low) and _known(high)):
            unbounded = False
            continue
        low, high = np.asarray(low), np.asarray(high)
        if np.isnan(low).any() or np.isnan(high).any():
            raise ValueError(f"bounds{_at(path)} must be free of NaN; write None or ±inf where there is none")
        if (low > high).any() or (low == np.inf).any() or (high == -np.inf).any():
            where = tuple(map(int, np.argwhere((low > high) | (low == np.inf) | (high == -np.inf))[0]))
            most = f", the greatest {low.dtype} being {jnp.finfo(low.dtype).max:.1e}"
            raise ValueError(
                f"bounds{_at(path)}: lower must not be above upper, got {low[where]} and {high[where]} at {where}"
                f"{most if np.isinf(low[where]) or np.isinf(high[where]) else ''}"
            )
        unbounded = unbounded and bool((low == -np.inf).all() and (high == np.inf).all())
    return (None, None) if unbounded else (lower, upper)


def _pairs(bounds: Any, x0: PyTree) -> tuple[Any, Any]:
    """SciPy's list or tuple of (low, high) pairs, or an (n, 2) array, as (lower, upper)."""
    if not is_array(x0) or x0.ndim != 1:
        hint = f"{BOTH_SPELLINGS}{if_listed(x0)}"
        raise ValueError(f"bounds as a list of pairs or an (n, 2) array need x0 to be one 1-D array; {hint}")
    if isinstance(bounds, np.ndarray) and bounds.dtype == object:  # None among numbers
        bounds = bounds.tolist()
    if is_array(bounds):
        shape = bounds.shape
    else:
        for i, pair in enumerate(bounds):
            if (not isinstance(pair, (tuple, list)) and np.shape(pair) != (2,)) or len(pair) != 2:
                raise ValueError(f"bounds[{i}] must be a pair (low, high), got {pair!r}")
        shape = (len(bounds), 2)
    if shape != (len(x0), 2):
        got = f"shape {shape}" if is_array(bounds) else f"{len(bounds)} of them"
        raise ValueError(f"bounds must have one (low, high) for each of the {len(x0)} entries of x0, got {got}")
    if is_array(bounds):
        return bounds[:, 0], bounds[:, 1]
    lower = [-np.inf if low is None else low for low, _ in bounds]
    upper = [np.inf if high is None else high for _, high in bounds]
    return _numbers(lower, x0), _numbers(upper, x0)


def _like(bound: PyTree, absent: float, x0: PyTree, name: str, of: str, hint: str) -> PyTree:
    """One side of the bounds with the tree, shapes and dtypes of x0."""
    if is_array(x0) and isinstance(bound, list):
        bound = _numbers([absent if entry is None else entry for entry in bound], x0)
    try:
        bound = jax.tree.broadcast(bound, x0, is_leaf=lambda leaf: leaf is None)
    except ValueError as error:
        raise ValueError(
            f"bounds: {name} must be a prefix of {of}'s tree {jax.tree.structure(x0)}{hint}: {error}"
        ) from None

    def fit(path: Any, x: Array, leaf: Any) -> Any:
        leaf = np.asarray(absent if leaf is None else leaf) if not isinstance(leaf, jax.Array) else leaf
        if (leaf.dtype, leaf.shape) == (x.dtype, x.shape):
            return leaf
        if not (jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.issubdtype(leaf.dtype, jnp.integer)):
            raise TypeError(f"bounds: {name}{_at(path)} must be real numbers, got {leaf.dtype}")
        try:
            # Known numbers stay NumPy's: each operation of JAX outside of jit costs some 20 µs.
            broadcast_to = jnp.broadcast_to if isinstance(leaf, jax.Array) else np.broadcast_to
            with np.errstate(over="ignore"):  # beyond the dtype's range there is no bound
                return broadcast_to(leaf.astype(x.dtype), x.shape)
        except ValueError:
            raise ValueError(
                f"bounds: {name}{_at(path)} must broadcast to the shape {list(x.shape)} of {of}, got {list(leaf.shape)}"
            ) from None

    return jax.tree_util.tree_map_with_path(fit, x0, bound)


def _numbers(entries: list, x0: Array) -> Any:
    """The list as an array in x0's dtype, NumPy's unless something in it is traced."""
    return (np if all(map(_known, entries)) else jnp).asarray(entries, x0.dtype)


def check_options(options: Options, batched: Iterable[str] = ()) -> Options:
    """The options, if all that can be seen of them is sound; limits beyond 2³¹ are no limits.

    Those named in `batched` have one entry a problem. Their tolerances are judged where each problem begins.
    """
    if not isinstance(options, Options):
        raise TypeError(f"options must be an Options, got {type(options).__name__}; write Options(gtol=1e-8), say")
    for name in options._fields:
        value: Any = getattr(options, name)
        if name == "ftol" and options.ftol is None:
            continue
        limit = name.startswith("max_")
        dtype = _dtype(value)
        if not (jnp.issubdtype(dtype, jnp.integer) or (jnp.issubdtype(dtype, jnp.floating) and not limit)):
            raise TypeError(f"options.{name} must be {'an integer' if limit else 'a real number'}, got {value!r}")
        many = name in batched
        if np.ndim(value) != many:
            raise ValueError(f"options.{name} must be a scalar, got shape {list(np.shape(value))}; vmap over options")
        least = 1 if name == "max_linesearch" else 0
        if _known(value) and (limit or not many) and not np.all(value >= least):
            expected = f"be at least {least}" if limit else "not be negative or NaN"
            raise ValueError(f"options.{name} must {expected}, got {np.min(value)}")
        most = np.iinfo(np.int32).max
        if limit and (isinstance(value, int) or (many and _known(value) and np.any(value > most))):
            options = options._replace(**{name: np.minimum(value, most) if many else min(value, most)})
    return options


def check_callable(fun: Any) -> None:
    """Raises if fun cannot be called."""
    if not callable(fun):
        raise TypeError(f"fun must be a function of x, got {type(fun).__name__}")


def check_memory_size(memory_size: Any) -> int:
    """memory_size, if it is a number of pairs."""
    if isinstance(memory_size, bool) or not isinstance(memory_size, (int, np.integer)):
        raise TypeError(f"memory_size must be an integer, got {type(memory_size).__name__}")
    if memory_size < 1:
        raise ValueError(f"memory_size must be at least 1, got {memory_size}")
    return int(memory_size)


def check_linear_solver(linear_solver: Any) -> None:
    """Raises if linear_solver is none that there is."""
    if linear_solver not in (None, "dense", "cg"):
        raise ValueError(f"linear_solver must be 'dense', 'cg' or None, got {linear_solver!r}")


def check_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """args, if jit can take them."""
    for path, leaf in jax.tree.leaves_with_path(args):
        if not is_array(leaf) and not isinstance(leaf, Number):
            raise TypeError(f"args{_at(path)} must be an array or a number, got {type(leaf).__name__}")
    return args


def check_dtypes(args: PyTree) -> None:
    """Raises if a leaf of args is nothing that JAX computes with; what has a dtype need not be an array yet."""
    for path, leaf in jax.tree.leaves_with_path(args):
        dtype = getattr(leaf, "dtype", np.dtype(bool if isinstance(leaf, Number) else object))
        if not jnp.issubdtype(dtype, jax.dtypes.prng_key) and _dtype(dtype.newbyteorder("=")).hasobject:
            found = f"{dtype}; {PAD}" if hasattr(leaf, "dtype") else type(leaf).__name__
            raise TypeError(f"args{_at(path)} must be numbers, got {found}")


def in_tuple(args: Any, in_axes: Any, at: int) -> tuple[tuple, Any]:
    """args as a tuple, and in_axes, whose entry `at` is for them, to go with it."""
    if isinstance(args, tuple):
        return args, in_axes
    if isinstance(in_axes, tuple) and len(in_axes) > at and not isinstance(in_axes[at], int | None):
        in_axes = (*in_axes[:at], (in_axes[at],), *in_axes[at + 1 :])
    return (args,), in_axes


def check_gradient(grad: PyTree, x0: PyTree) -> None:
    """Raises if what fun returned as its gradient has not the tree, shapes and kind of x0."""
    if jax.tree.structure(grad) != jax.tree.structure(x0):
        raise ValueError(f"fun must return a gradient like x, {jax.tree.structure(x0)}, got {jax.tree.structure(grad)}")
    for (path, leaf), x in zip(jax.tree.leaves_with_path(grad), jax.tree.leaves(x0), strict=True):
        if leaf.shape != x.shape or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"fun must return a gradient like x: expected {x.dtype}{list(x.shape)}"
                f"{_at(path)}, got {leaf.dtype}{list(leaf.shape)}"
            )


def traced_status(x: Vector, box: Box | None, options: Options) -> Int[Array, ""]:
    """BAD_X0, BAD_BOUNDS or BAD_OPTIONS for what could not be seen when tracing, else RUNNING."""
    status = jnp.asarray(Status.RUNNING)
    ftol, gtol = options.tolerances(x.dtype)
    bad = ~((ftol >= 0) & (gtol >= 0) & (options.max_linesearch >= 1))
    status = jnp.where(bad, jnp.asarray(Status.BAD_OPTIONS), status)
    status = jnp.where(jnp.all(jnp.isfinite(x if box is None else project(x, box))), status, jnp.asarray(Status.BAD_X0))
    if box is not None:
        sound = (box.lower <= box.upper) & (box.lower < jnp.inf) & (box.upper > -jnp.inf)
        status = jnp.where(jnp.all(sound), status, jnp.asarray(Status.BAD_BOUNDS))
    return status


def _dtype(value: Any) -> np.dtype:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that with 64 bits turned off it will be cast
            return jnp.result_type(bool if value is None else value)
    except (TypeError, ValueError):
        return np.dtype(object)


def _known(value: Any) -> bool:
    return not isinstance(value, Tracer)


def on_cpu() -> bool:
    """Whether JAX computes on a CPU here, if no array lies elsewhere."""
    config: Any = jax.config
    device = config.jax_default_device
    return (jax.default_backend() if device is None else getattr(device, "platform", device)) == "cpu"


def inside_jit() -> bool:
    """True while another jit is being traced."""
    return isinstance(jax.lax.iota(np.int32, 1), Tracer)  # made on the device: no transfer, which may be forbidden


def native(leaf: Any) -> Any:
    """The leaf, an array of NumPy's in this machine's byte order."""
    foreign = isinstance(leaf, np.ndarray) and not leaf.dtype.isnative
    return leaf.astype(leaf.dtype.newbyteorder("=")) if foreign else leaf


def is_key(leaf: Any) -> bool:
    """True for an array of keys, of jax.random.key, which NumPy cannot hold."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def gathered(leaf: Any) -> Any:
    """The leaf; what lies on several devices of this process, on the host instead."""
    if not isinstance(leaf, jax.Array) or not _known(leaf) or len(leaf.devices()) == 1 or not leaf.is_fully_addressable:
        return leaf
    if is_key(leaf):
        return jax.random.wrap_key_data(
            jnp.asarray(gathered(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf)
        )
    return np.asarray(leaf)


def described(shape: Any) -> str:
    """What jax.eval_shape gives, in an error."""
    if isinstance(shape, jax.ShapeDtypeStruct):
        return f"{shape.dtype}{list(shape.shape)}"
    return f"the pytree {jax.tree.map(described, shape)}".replace("'", "")


def is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def closed_over(function: Any) -> list:
    """What a function has in its closure, as far as it is assigned."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # an empty one
            continue
    return found


def _at(path: Any) -> str:
    return jax.tree_util.keystr(path)


def ravel(tree: PyTree) -> tuple[Vector, Callable[[Vector], PyTree]]:
    """The leaves as one vector in the widest of their dtypes, at least float32, and the way back, each in its own."""
    leaves, structure = jax.tree.flatten(tree)
    shapes, dtypes = [leaf.shape for leaf in leaves], [leaf.dtype for leaf in leaves]
    dtype = max([np.dtype(np.float32), *dtypes], key=lambda dtype: dtype.itemsize)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def unravel(x: Vector) -> PyTree:
        parts = jnp.split(x, ends[:-1]) if len(ends) > 1 else [x]
        leaves = [part.reshape(s).astype(d) for part, s, d in zip(parts, shapes, dtypes, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    vectors = [leaf.astype(dtype).reshape(-1) for leaf in leaves]
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors), unravel
