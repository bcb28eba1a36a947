"""minimize_many: many problems of one kind, on the lanes of lanes.py, over cores, devices and processes.

    a call outside of jit    the problems are cut into parts; threads, one a core, read a part, fit it and hand it back
    inside jit               one loop
    with a mesh              one loop a device, each on its own share, without a word between them

Parts are all of one size, which is rounded up to a power of two, so that one program serves them all.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from . import results
from .argmin import LEAN, Result, check_statics, compiled, lean_jit
from .arguments import (
    PAD,
    PyTree,
    check_bounds,
    check_dtypes,
    check_linear_solver,
    check_options,
    check_x0,
    gathered,
    if_listed,
    in_tuple,
    inside_jit,
    is_key,
    native,
    on_cpu,
)
from .lanes import Problem, Settings, each, fit_all
from .solver import Options

# At most, on a CPU:
CACHE = 2**19  # bytes that the lanes of one loop share: about what a core has near
LANES = 64  # of one loop: more do not fuse better and wait longer for the last
PART = 2**14  # problems, and
PART_BYTES = 2**26  # bytes of data, and of the solutions and gradients that come back, in a part
# The same elsewhere:
DEVICE = 2**31
DEVICE_LANES = 2**16
DEVICE_PART = 2**20
DEVICE_PART_BYTES = 2**30
SETTINGS = (  # of JAX, each thread's own, that are carried into others; what is compiled was traced in the caller's
    "enable_x64",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "threefry_partitionable",
    "numpy_rank_promotion",
    "numpy_dtype_promotion",
    "debug_nans",
    "debug_infs",
)


def minimize_many(
    fun: Callable,
    x0: PyTree,
    args: Any = (),
    *,
    bounds: Any = None,
    in_axes: tuple[Any, Any, Any] = (0, 0, None),
    lanes: int | None = None,
    has_aux: bool = False,
    value_and_grad: bool = False,
    memory_size: int = 10,
    linear_solver: str | None = None,
    options: Options = Options(),
    mesh: Mesh | None = None,
    progress: bool = False,
    resume: str | os.PathLike[str] | None = None,
) -> Result:
    """Local minimizers of many problems fun(x, *args), l ≤ x ≤ u: `minimize` for each, on lanes that are refilled.

    A problem's result is that of `minimize` to rounding, and its neighbours change it by rounding at most: where XLA's
    code for fun rounds alike in all lanes, not by one bit (docs/scaling.md). A problem that goes wrong (NaN, bounds
    that cross, a limit reached) says so in its `status` and disturbs no other.

    Args:
      fun: as for `minimize`: a function of one problem.
      x0: where to begin, like `minimize`'s with a leading axis: one entry a problem. Or an iterator over parts of the
        problems, each a tuple (x0, args) or (x0, args, bounds), which are read while others are being fitted; bounds
        of None are those of the call.
      args: data, as for `minimize`, with the leading axis. Arrays that are memory-mapped are read part by part.
      bounds: as for `minimize`, the same for all problems unless in_axes says otherwise; then a tuple (lower, upper).
      in_axes: for (x0, args, bounds), as in `jax.vmap`: each 0, None, or a tree of these that is a prefix; a leaf at 0
        has the leading axis, one at None is shared by all problems.
      lanes: how many problems are worked on at a time by each core or device, rounded up to a multiple of 8; None
        leaves the choice.
      has_aux, value_and_grad, memory_size, linear_solver: as for `minimize`.
      options: as for `minimize`; a field that is an array has one entry a problem.
      mesh: devices to share the problems among, those of other processes included; None for the default device. Not
        several CPU devices of one process if fun calls LAPACK (cholesky, solve, eigh), in which they wait for ever. For
        a derivative enter `jax.set_mesh(mesh)`, which jax.grad needs where axes are explicit.
      progress: whether to show a bar: fits done, fits a second, share converged.
      resume: a folder for results as they come, made if it is not there. The same call with the same folder, after
        whatever has ended it, fits only what is missing. Neither goes inside jit, grad or vmap, nor with devices of
        other processes.

    Returns:
      A `Result` whose fields have the leading axis, in the order of the problems.

    Raises:
      TypeError, ValueError: for an argument that cannot be right; the message names it and what was expected.
      ValueError: if the folder belongs to a run with other arguments, or a file in it is damaged.
      OSError: if the folder cannot be written to.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlbfgsb import minimize_many
      >>> centres = jnp.array([[0.5], [2.0], [3.0]])
      >>> result = minimize_many(lambda x, c: jnp.sum((x - c) ** 2), jnp.zeros((3, 1)), centres, bounds=(0.0, 2.5))
      >>> print(result.x.ravel(), result.converged)
      [0.5 2. 2.5] [ True True True]

    References:
      Those of `minimize`; docs/scaling.md.
    """
    fun, memory_size = check_statics(fun, memory_size)
    check_linear_solver(linear_solver)
    if lanes is not None and (isinstance(lanes, bool) or not isinstance(lanes, (int, np.integer)) or lanes < 1):
        raise ValueError(f"lanes must be an integer of at least 1, or None, got {lanes!r}")
    if mesh is not None and not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh or None, got {type(mesh).__name__}")
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, got {progress!r}")
    if resume is not None and not isinstance(resume, (str, os.PathLike)):
        raise TypeError(f"resume must be a path or None, got {resume!r}")
    keywords = {"in_axes": in_axes, "lanes": lanes, "has_aux": has_aux, "value_and_grad": value_and_grad}
    keywords |= {"memory_size": memory_size, "linear_solver": linear_solver, "options": options, "mesh": mesh}
    if isinstance(x0, Iterator):
        if not (isinstance(args, tuple) and args == ()):
            raise ValueError("args must be left out when x0 is an iterator: each part brings its own, (x0, args)")
        if inside_jit():
            raise ValueError("x0 must hold arrays inside jit, got an iterator")
        return _from_parts(partial(_fit, fun, **keywords), x0, bounds, progress, resume)
    return _fit(fun, x0, args, bounds, progress, resume, **keywords)


def _fit(
    fun: Callable,
    x0: PyTree,
    args: Any,
    bounds: Any,
    progress: Any,
    resume: Any,
    in_axes: Any,
    lanes: int | None,
    has_aux: bool,
    value_and_grad: bool,
    memory_size: int,
    linear_solver: str | None,
    options: Options,
    mesh: Mesh | None,
) -> Result:
    """`minimize_many` of arrays; `progress` is True, False or what shows the results of a part."""
    args, in_axes = in_tuple(args, in_axes, 1)
    problems, batched = _read(x0, args, bounds, options, in_axes)
    K = _size(problems, batched)
    flags = tuple(jax.tree.leaves(batched))
    chosen = _lanes(problems, flags, memory_size) if lanes is None else -(-int(lanes) // 8) * 8
    settings = Settings(flags, chosen, has_aux, value_and_grad, memory_size, linear_solver)
    if K == 0:
        problems = jax.tree.map(native, problems)
        first = each(problems, flags, lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype))
        empty = jax.eval_shape(partial(fit_all, fun, settings), first, 0)[0]
        return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape[1:]), leaf.dtype), empty)
    traced = inside_jit() or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(problems))
    if resume is None and not progress and (traced or mesh is not None or _debugging()):
        problems = jax.tree.map(native, problems)
        if traced:
            return jax.jit(_program(fun, settings, K, mesh))(problems)
        _, run, calls_lapack = _kept(fun, settings, K, mesh)
        _refuse_lapack(mesh, calls_lapack, problems)
        return run(problems)
    if traced:
        raise ValueError(results.OUTSIDE)
    if mesh is not None and any(device.process_index != jax.process_index() for device in mesh.devices.flat):
        raise ValueError("progress and resume need a mesh whose devices are all of this process")
    return _in_parts(fun, settings, problems, K, mesh, progress, resume)


def _read(x0: PyTree, args: tuple, bounds: Any, options: Options, in_axes: Any) -> tuple[Problem, Problem]:
    """The problems, and for each leaf whether it has the leading axis."""
    if not isinstance(in_axes, tuple) or len(in_axes) != 3:
        raise ValueError(f"in_axes must be a tuple of three, for x0, args and bounds, got {in_axes!r}")
    if not isinstance(options, Options):
        raise TypeError(f"options must be an Options, got {type(options).__name__}; write Options(gtol=1e-8), say")
    if hasattr(bounds, "lb"):
        bounds = bounds.lb, bounds.ub
    x0 = jax.tree.map(lambda leaf: leaf if hasattr(leaf, "shape") else np.asarray(leaf), x0)
    named = ("x0", x0), ("args", args), ("bounds", bounds)
    flags = [_flags(axes, tree, name) for axes, (name, tree) in zip(in_axes, named, strict=True)]
    check_dtypes(args)

    def one(leaf: Any, many: bool) -> Any:
        return leaf if is_key(leaf) else np.zeros(np.shape(leaf)[many:], leaf.dtype.newbyteorder("="))

    like = jax.tree.map(one, x0, flags[0])
    check_x0(like)
    if not any(jax.tree.leaves(flags[2])):  # the same for all: judged here and now
        bounds = check_bounds(bounds, like)
        bounds = None if bounds[0] is None else bounds
        flags[2] = jax.tree.map(lambda _: False, bounds)
    options = jax.tree.map(native, options)
    batched = {name: np.ndim(value) == 1 for name, value in options._asdict().items() if value is not None}
    options = check_options(options, [name for name, many in batched.items() if many])
    many: Any = options._replace(**batched)
    return Problem(x0, args, bounds, options), Problem(flags[0], flags[1], flags[2], many)


def _flags(axes: Any, tree: PyTree, name: str) -> PyTree:
    """True for each leaf of the tree that `axes`, a prefix of it, puts at 0."""
    try:
        axes = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)
    except ValueError as error:
        raise ValueError(f"in_axes must be a prefix of {name}'s tree {jax.tree.structure(tree)}: {error}") from None

    def flag(path: Any, leaf: Any, axis: Any) -> bool:
        if axis is not None and (isinstance(axis, bool) or axis != 0):
            raise ValueError(f"in_axes must be 0 or None for each leaf, got {axis!r} for {name}{_at(path)}")
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"{name}{_at(path)} must be no masked array, which JAX cannot hold: give the mask as weights"
            )
        if axis == 0 and np.ndim(leaf) == 0:
            hint = f"share it {_by(name)}{if_listed(tree) if name == 'x0' else ''}"
            raise ValueError(f"{name}{_at(path)} must have a leading axis, one entry a problem; {hint}")
        return axis == 0

    return jax.tree.map_with_path(flag, tree, axes)


def _size(problems: Problem, batched: Problem) -> int:
    """How many problems there are."""
    leaves = zip(jax.tree.leaves_with_path(problems), jax.tree.leaves(batched), strict=True)
    sizes = {_at(path): len(leaf) for (path, leaf), many in leaves if many}
    if not sizes:
        raise ValueError("in_axes must put at least one leaf of x0, args or bounds at 0: nothing has a leading axis")
    if len(set(sizes.values())) > 1:
        first: dict[int, str] = {}  # leaf with each size
        for name, size in sizes.items():
            first.setdefault(size, name.lstrip("."))
        found = ", ".join(f"{size} for {name}" for size, name in first.items())
        hint = f"what has no leading axis is shared {_by('args')}"
        if getattr(problems.x0, "ndim", 0) == 1 and batched.x0:
            hint = f"if x0 has no leading axis, share it {_by('x0')}"
        elif any(isinstance(part, list) for part in problems.args):
            hint = f"args hold a list, {PAD}"
        raise ValueError(f"the leading axes must have one size, the number of problems, got {found}; {hint}")
    return next(iter(sizes.values()))


def _by(name: str) -> str:
    """How all problems share a leaf."""
    if name == "x0":
        return "by in_axes=(None, ...)"
    return "by None in its place in in_axes, as in_axes=(0, (None, 0), None) shares the first of two args"


def _lanes(problems: Problem, batched: tuple[bool, ...], memory_size: int) -> int:
    """A power of two; on a CPU, one whose states and data stay in a core's cache."""
    leaves = jax.tree.leaves(problems)
    n = _variables(problems, batched)
    data = sum(int(np.prod(leaf.shape[1:])) for leaf, many in zip(leaves, batched, strict=True) if many)
    near, most = (CACHE, LANES) if on_cpu() else (DEVICE, DEVICE_LANES)
    return 2 ** int(np.log2(np.clip(near // (8 * (data + (2 * memory_size + 16) * n)), 8, most)))


def _variables(problems: Problem, batched: tuple[bool, ...]) -> int:
    """Of one problem."""
    leaves = zip(jax.tree.leaves(problems.x0), batched, strict=False)
    return sum(int(np.prod(leaf.shape[many:])) for leaf, many in leaves)


def _program(fun: Callable, settings: Settings, K: int, mesh: Mesh | None) -> Callable[..., Result]:
    """(problems, how many of the K are wanted) ↦ the result."""
    if mesh is None:
        return lambda problems, count=K: fit_all(fun, settings, problems, count)[0]
    names, share = tuple(mesh.axis_names), -(-K // mesh.size)
    split, everywhere = PartitionSpec(names), PartitionSpec()
    specs = [everywhere, *(split if many else everywhere for many in settings.batched)]

    # By default the padding is solved too: what has no solution has no derivative.
    def fit(problems: Problem, count: Any = share * mesh.size) -> Result:
        def own(count: Array, *leaves: Array) -> Result:
            count = jnp.clip(count - jax.lax.axis_index(names) * share, 0, share)
            return fit_all(fun, settings, jax.tree.unflatten(structure, leaves), count)[0]

        whole = each(problems, settings.batched, lambda leaf: _padded(leaf, share * mesh.size))
        leaves, structure = jax.tree.flatten(whole)
        leaves = [jnp.asarray(count), *leaves]
        placed = [jax.device_put(leaf, NamedSharding(mesh, spec)) for leaf, spec in zip(leaves, specs, strict=True)]
        result = jax.shard_map(own, mesh=mesh, in_specs=tuple(specs), out_specs=split, check_vma=False)(*placed)
        if share * mesh.size == K:
            return result
        return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, everywhere))[:K], result)

    return fit


def _refuse_lapack(mesh: Mesh | None, calls_lapack: Callable[..., bool], *arguments: Any) -> None:
    own = [] if mesh is None else [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    if len(own) > 1 and own[0].platform == "cpu" and calls_lapack(*arguments):
        raise ValueError(
            "mesh: fun calls LAPACK, in which XLA's CPU devices of one process wait for each other for ever; leave "
            "mesh out, or give each process one device"
        )


def _padded(leaf: Any, size: int) -> Any:
    """The array with its last row repeated up to this size."""
    missing, xp = size - len(leaf), np if isinstance(leaf, np.ndarray) else jnp
    return leaf if missing == 0 else xp.concatenate([leaf, xp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))])


@lru_cache(maxsize=64)
def _kept(fun: Callable, settings: Settings, K: int, mesh: Mesh | None) -> tuple[Callable, Callable, Callable]:
    """The same for calls outside of jit, each of which would trace and compile again; with jit; does it call LAPACK?"""
    program, known = _program(fun, settings, K, mesh), {}

    def calls_lapack(problems: Problem, *count: int) -> bool:
        shapes = tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(problems))
        if shapes not in known:
            known[shapes] = "lapack" in jax.jit(program).lower(problems, *count).as_text()
        return known[shapes]

    return program, lean_jit(program), calls_lapack


# Outside of jit: parts, threads, files.


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settings_here() -> Callable[[], ExitStack]:
    """A context for another thread, with the settings of JAX that hold in this one."""
    held = {name: getattr(jax.config, f"jax_{name}") for name in SETTINGS}

    def there() -> ExitStack:
        stack = ExitStack()
        for name, value in held.items():
            stack.enter_context(getattr(jax, name)(value))
        return stack

    return there


def _debugging() -> bool:
    """Whether JAX is to look at what comes out, or to compile nothing: in this thread alone."""
    config: Any = jax.config
    return config.jax_debug_nans or config.jax_debug_infs or config.jax_disable_jit


def _in_parts(
    fun: Callable, settings: Settings, problems: Problem, K: int, mesh: Mesh | None, progress: Any, resume: Any
) -> Result:
    devices = 1 if mesh is None else mesh.size
    threads = _cores() if mesh is None and on_cpu() else 1
    problems = jax.tree.map(gathered, each(problems, tuple(not many for many in settings.batched), native))
    size = _part_size(problems, settings, K, threads, devices)
    folder = None
    if resume is not None:
        folder = results.open_folder(Path(resume), results.fingerprint(fun, settings, problems, K), size)
        size = folder.part
    rows = 2 ** int(np.ceil(np.log2(max(size, 8))))  # one program for all parts, and for other numbers of problems
    rows = rows if mesh is None else -(-size // devices) * devices  # a device's share is one of rows
    settings_here, (program, _, calls_lapack) = _settings_here(), _kept(fun, settings, rows, mesh)

    def read(start: int, stop: int) -> Problem:
        return each(problems, settings.batched, lambda leaf: _rows(leaf, start, min(stop, K)))

    def fit(start: int) -> tuple[int, Result]:
        with settings_here():
            part, count = read(start, start + size), min(size, K - start)
            padded = each(part, settings.batched, lambda leaf: _padded(leaf, rows))
            result = jax.tree.map(lambda leaf: _bare(leaf)[:count], run(padded, count))
            if folder is not None:
                results.save(folder, start, part, result)
            return start, result

    first = each(read(0, 1), settings.batched, lambda leaf: _padded(leaf, rows))
    if any(isinstance(constant, Tracer) for constant in jax.make_jaxpr(program)(first, 0).consts):
        if progress:
            raise ValueError(results.OUTSIDE)
        return jax.jit(_program(fun, settings, K, mesh))(jax.tree.map(native, problems))
    _refuse_lapack(mesh, calls_lapack, first, 0)
    run = compiled(program, LEAN, first, 0)  # here: threads can run it whatever settings of JAX hold in them
    none = run(first, 0)
    like = jax.tree.map(_bare, none)
    if on_cpu() and calls_lapack(first, 0):
        # Two loops at once wait for each other for ever there: XLA runs batches of LAPACK on the threads they run on.
        threads = 1
    found = jax.tree.map(lambda leaf: np.empty((K, *leaf.shape[1:]), leaf.dtype), like)
    with ExitStack() as resources:
        shown = _bar(resources, K) if progress is True else progress
        pool = ThreadPoolExecutor(threads)
        resources.callback(pool.shutdown, cancel_futures=True)

        def keep(start: int, result: Result) -> None:
            for whole, part in zip(jax.tree.leaves(found), jax.tree.leaves(result), strict=True):
                whole[start : start + len(part)] = part
            if shown:
                shown(result)

        def load(start: int) -> tuple[int, Result | None]:
            assert folder is not None
            return start, results.load(folder, start, partial(read, start, start + size), like)

        missing = [*range(0, K, size)]
        if folder is not None:  # all that is kept is read before anything is written beside it
            for start, known in _as_completed(pool, load, missing.copy(), 2 * threads):
                if known is not None:
                    missing.remove(start)
                    keep(start, known)
        for start, result in _as_completed(pool, fit, missing, 2 * threads):
            keep(start, result)
    return jax.tree.map(_as_keys, jax.device_put(found), none)


def _rows(leaf: Any, start: int, stop: int) -> Any:
    """These rows, in memory, in this machine's byte order."""
    return leaf[start:stop] if is_key(leaf) else native(np.asarray(leaf[start:stop]))


def _bare(leaf: Array) -> np.ndarray:
    """The leaf as NumPy can hold it: of keys, the data."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _as_keys(bare: Array, like: Array) -> Array:
    return jax.random.wrap_key_data(bare, impl=jax.random.key_impl(like)) if is_key(like) else bare


def _part_size(problems: Problem, settings: Settings, K: int, threads: int, devices: int) -> int:
    leaves = zip(jax.tree.leaves(problems), settings.batched, strict=True)
    row = sum(int(np.prod(leaf.shape[1:])) * leaf.dtype.itemsize for leaf, many in leaves if many)
    row += 16 * _variables(problems, settings.batched)
    part, near = (PART, PART_BYTES) if on_cpu() else (DEVICE_PART, DEVICE_PART_BYTES)
    most = int(np.clip(near // max(row, 1), settings.lanes, part))
    if 8 * threads >= K:
        return K
    return -(-K // (threads * -(-K // (threads * most * devices))))


def _as_completed(pool: ThreadPoolExecutor, fit: Callable, starts: Any, ahead: int) -> Iterator[tuple[int, Result]]:
    """fit(start) for each start as they come, never more than `ahead` of them at work."""
    waiting: set[Future] = set()
    starts = iter(starts)
    while True:
        while len(waiting) < ahead and (start := next(starts, None)) is not None:
            waiting.add(pool.submit(fit, start))
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _bar(resources: ExitStack, K: int | None) -> Callable[[Result], None]:
    """Shows a bar, and in it each result that it is handed."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without widgets the bar is one of text
        from tqdm.auto import tqdm

    bar, converged = resources.enter_context(tqdm(total=K, unit="fit", smoothing=0)), 0

    def shown(result: Result) -> None:
        nonlocal converged
        converged += int(np.sum(result.converged))
        bar.set_postfix(converged=f"{converged / (bar.n + len(result.status)):.1%}", refresh=False)
        bar.update(len(result.status))

    return shown


def _from_parts(fit: Callable, parts: Iterator, bounds: Any, progress: bool, resume: Any) -> Result:
    """The results of all parts, the next being read while one is fitted."""
    found, settings_here, end = [], _settings_here(), object()
    if resume is not None:
        results.open_root(Path(resume))

    def read() -> Any:
        with settings_here():
            return next(parts, end)

    with ExitStack() as resources:
        reader = ThreadPoolExecutor(1)
        resources.callback(reader.shutdown, wait=False, cancel_futures=True)
        shown = _bar(resources, None) if progress else False
        coming = reader.submit(read)
        while (part := coming.result()) is not end:
            coming = reader.submit(read)
            if not isinstance(part, tuple) or len(part) not in (2, 3):
                raise ValueError(
                    f"an iterator of problems must give (x0, args) or (x0, args, bounds), got {type(part)}"
                )
            own = bounds if len(part) == 2 or part[2] is None else part[2]
            folder = None if resume is None else Path(resume) / f"{len(found):06d}"
            found.append(jax.tree.map(_at_home, fit(part[0], part[1], own, shown, folder)))
            if _kind(found[-1]) != _kind(found[0]):
                raise ValueError(
                    "x0, and what fun returns, must be of the same shapes and dtypes in all parts, but for the number "
                    f"of problems; part {len(found) - 1} (from 0) is unlike the first"
                )
    if resume is not None and (Path(resume) / f"{len(found):06d}").exists():
        raise ValueError(f"resume: {resume} holds more parts than the iterator gave, {len(found)}")
    if not found:
        raise ValueError("x0 is an iterator without a part: there is no problem to learn the result's shapes from")
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)


def _at_home(leaf: Any) -> Any:
    return gathered(leaf) if isinstance(leaf, Tracer) or is_key(leaf) else np.asarray(leaf)


def _kind(result: Result) -> Any:
    """What the results of parts have in common."""
    leaves, structure = jax.tree.flatten(result)
    return structure, [(leaf.shape[1:], leaf.dtype) for leaf in leaves]


def _at(path: Any) -> str:
    return jax.tree_util.keystr(path)
