"""The package as a whole: its layers, what importing it costs, and that every public name is documented."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlbfgsb

PACKAGE = Path(jaxlbfgsb.__file__).parent
ROOT = Path(__file__).parent.parent
FILES = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")}

# A file imports from its own layer and from those above it in this list.
LAYERS = [
    {"status", "box", "kernel", "linesearch", "elimination", "partition", "memory", "model"},
    {"cauchy", "subspace", "dense", "inverse"},
    {"solver"},
    {"arguments", "implicit", "differences"},
    {"loop"},
    {"argmin", "transform"},
    {"lanes", "uncertainty", "sensitivity"},
    {"results"},
    {"many"},
    {"host"},
    {"objectives"},
    {"contract"},
    {"fmin"},
    {"__init__"},
    {"nist", "__main__"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}


def imports(tree):
    """The modules that a file imports: those of the package by their own names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module.split(".")[0]] if node.module else [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down_only(name):
    assert [module for module in imports(FILES[name]) if LEVEL.get(module, 0) > LEVEL[name]] == []


@pytest.mark.parametrize("name", sorted(set(FILES) - {"__main__"}))
def test_optimizers_of_scipy_are_not_imported(name):
    nodes = [node for node in ast.walk(FILES[name]) if isinstance(node, (ast.Import, ast.ImportFrom))]
    taken = {part.name for node in nodes for part in node.names if getattr(node, "module", None) == "scipy.optimize"}
    assert taken <= {"LbfgsInvHessProduct", "OptimizeResult", "OptimizeWarning"}  # types, not optimizers
    assert not any(part.name.startswith("scipy.optimize") for node in nodes for part in node.names)


def test_optimizers_of_scipy_are_imported_by_the_demonstration_in_a_function_only():
    at_import = [node for node in FILES["__main__"].body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not any(module.startswith("scipy.optimize") for module in imports(ast.Module(at_import, [])))


@pytest.mark.parametrize("module", ["optax", "scipy", "tqdm", "matplotlib"])
def test_import_does_not_load(module):
    program = "import sys, jax; before = set(sys.modules); import jaxlbfgsb; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.split(".")[0] == module] == []


@pytest.mark.parametrize("name", jaxlbfgsb.__all__)
def test_public_name_has_an_example(name):
    assert "Examples:\n" in getattr(jaxlbfgsb, name).__doc__
    assert ">>> " in getattr(jaxlbfgsb, name).__doc__


@pytest.mark.parametrize("name", jaxlbfgsb.__all__)
def test_public_name_is_documented(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(re.search(rf"\b{name}\b", page.read_text()) for page in pages)


def test_public_names_are_sorted():
    assert jaxlbfgsb.__all__ == sorted(jaxlbfgsb.__all__)


@pytest.mark.slow
def test_import_takes_at_most_a_tenth_of_a_second():
    program = "import jax, time; t = time.perf_counter(); import jaxlbfgsb; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(5)]
    assert min(float(run.stdout) for run in runs) <= 0.1
