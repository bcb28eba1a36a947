"""Results on disk: a folder with one NumPy .npz file for each part of a run that has been fitted.

    run.json                       what the run is: its fingerprint, and the size of its parts
    part-000000000000.npz          the results from problem 0 on, and the digest of that part's data

A file appears under its name when it is complete, so whatever ends the process leaves complete files behind.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.sharding import AbstractMesh, Mesh

from .argmin import Result, trace
from .arguments import is_key, native, ravel
from .lanes import Problem, Settings

OUTSIDE = "progress and resume need a call outside of jit, and of grad and vmap"


class Folder(NamedTuple):
    """Where the results of a run are kept, and how many problems a part has."""

    path: Path
    part: int


def fingerprint(fun: Callable, settings: Settings, problems: Problem, K: int) -> str:
    """A digest of the objective's program, of what all problems share, and of how many there are of which shape."""
    leaves, structure = jax.tree.flatten(problems)
    one = [leaf[0] if many else leaf for leaf, many in zip(leaves, settings.batched, strict=True)]
    first = jax.tree.unflatten(structure, one)
    x0, args = jax.tree.map(native, (first.x0, first.args))
    objective, theta, _ = trace(fun, x0, args, settings.has_aux, settings.value_and_grad)
    if any(isinstance(constant, Tracer) for constant in theta[1]):
        raise ValueError(OUTSIDE)
    jaxpr = jax.make_jaxpr(objective)(theta, ravel(x0)[0])
    about = program_digest(jaxpr.jaxpr, [*theta[1], *jaxpr.consts]), settings, str(structure), K
    digest = hashlib.blake2b(repr(about).encode(), digest_size=16)
    _absorb(digest, [leaf for leaf, many in zip(leaves, settings.batched, strict=True) if not many])
    digest.update(repr([(np.shape(leaf), str(jnp.result_type(native(leaf)))) for leaf in one]).encode())
    return digest.hexdigest()


def program_digest(jaxpr: Jaxpr, constants: list) -> str:
    """A digest of a program, of these constants of it, and of those of the functions that it calls."""
    digest = hashlib.blake2b(str(jaxpr).encode(), digest_size=16)
    _absorb(digest, [*constants, *_constants(jaxpr)])
    return digest.hexdigest()


def open_folder(path: Path, fingerprint: str, part: int) -> Folder:
    """The folder of the run with this fingerprint, made if it is not there; `part` is for a new one."""
    path.mkdir(parents=True, exist_ok=True)
    about = path / "run.json"
    if not about.exists():
        if any(file.suffix != ".partial" for file in path.iterdir()):
            raise ValueError(f"resume: {path} holds other files and no run.json; name an empty or a new folder")
        _write(about, json.dumps({"fingerprint": fingerprint, "part": part}).encode())
        return Folder(path, part)
    try:
        known = json.loads(about.read_text())
        known, part = str(known["fingerprint"]), int(known["part"])
        if part < 1:
            raise ValueError(f"parts of {part} problems")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"resume: {about} is damaged; delete the folder to begin again") from error
    if known != fingerprint:
        raise ValueError(
            f"resume: {path} belongs to a run with another objective, other shapes, bounds, options or lanes; name "
            "another folder, or call as that run was called"
        )
    if not os.access(path, os.W_OK):
        raise PermissionError(f"resume: {path} cannot be written to")
    return Folder(path, part)


def save(folder: Folder, start: int, problems: Problem, result: Result) -> None:
    """The results of the problems from `start` on, put into their file."""
    leaves = {f"leaf{i}": leaf for i, leaf in enumerate(jax.tree.leaves(result))}
    path = _file(folder, start)
    with open(path.with_suffix(".partial"), "wb") as file:
        np.savez(file, digest=np.array(_digest(problems)), **leaves)
    os.replace(path.with_suffix(".partial"), path)


def load(folder: Folder, start: int, read: Callable[[], Problem], like: Result) -> Result | None:
    """What was saved for the problems from `start` on, which `read` reads, as `like`; None if nothing was."""
    path = _file(folder, start)
    if not path.exists():
        return None
    known, structure = jax.tree.flatten(like)
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            digest = str(file["digest"])
            leaves = [file[f"leaf{i}"] for i in range(len(known))]
        leaves = [
            leaf.view(of.dtype) if leaf.dtype.kind == "V" else leaf for leaf, of in zip(leaves, known, strict=True)
        ]
        rows = len(leaves[0])
        for leaf, of in zip(leaves, known, strict=True):
            if leaf.dtype != of.dtype or leaf.shape != (rows, *of.shape[1:]):
                raise ValueError(f"{leaf.dtype}{list(leaf.shape)} where {of.dtype}{[rows, *of.shape[1:]]} should be")
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"resume: {path} is damaged; delete it, and its problems are fitted again") from error
    if digest != _digest(read()):
        raise ValueError(
            f"resume: the data of problem {start} and after are not those that {path} was made from; pass those data, "
            "or delete the file, and its problems are fitted again"
        )
    return jax.tree.unflatten(structure, leaves)


def open_root(path: Path) -> None:
    """The folder for the runs of an iterator's parts, made if it is not there; it holds nothing else."""
    path.mkdir(parents=True, exist_ok=True)
    if any(not (entry.is_dir() and entry.name.isdigit()) for entry in path.iterdir()):
        raise ValueError(f"resume: {path} holds more than an iterator's parts; name an empty or a new folder")


def python_functions(jaxpr: Jaxpr) -> list:
    """The Python functions in a program, which its digest can't tell apart; those of custom rules are left out."""
    return [
        value
        for equation, value in _parameters(jaxpr)
        if callable(value)
        and not isinstance(value, (ClosedJaxpr, Jaxpr, Mesh, AbstractMesh, type))
        and not equation.primitive.name.startswith("custom_")
    ]


def _constants(jaxpr: Jaxpr) -> Iterator[Any]:
    """All arrays that stand in a program, and those that the functions it calls hold."""
    yield from _literals(jaxpr)
    for _, value in _parameters(jaxpr):
        if isinstance(value, ClosedJaxpr):
            yield from value.consts
        if _is_program(value):
            yield from _literals(_jaxpr(value))


def _literals(jaxpr: Jaxpr) -> Iterator[Any]:
    return (atom.val for equation in jaxpr.eqns for atom in equation.invars if isinstance(atom, Literal))


def _parameters(jaxpr: Jaxpr) -> Iterator[tuple[JaxprEqn, Any]]:
    """The parameters of all equations of a program, and of the programs among them, each with its equation."""
    for equation in jaxpr.eqns:
        values = list(equation.params.values())
        for value in jax.tree.leaves(values, is_leaf=lambda part: type(part) not in (list, tuple, dict)):
            yield equation, value
            if _is_program(value):
                yield from _parameters(_jaxpr(value))


def _jaxpr(program: Any) -> Jaxpr:
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def _is_program(value: Any) -> bool:
    return isinstance(value, (ClosedJaxpr, Jaxpr))


def _file(folder: Folder, start: int) -> Path:
    return folder.path / f"part-{start:012d}.npz"


def _write(path: Path, content: bytes) -> None:
    path.with_suffix(".partial").write_bytes(content)
    os.replace(path.with_suffix(".partial"), path)


def _digest(problems: Problem) -> str:
    digest = hashlib.blake2b(digest_size=16)
    _absorb(digest, jax.tree.leaves(problems))
    return digest.hexdigest()


def _absorb(digest: Any, leaves: list) -> None:
    for leaf in leaves:
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # bfloat16 is no buffer
