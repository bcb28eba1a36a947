"""What users install: a wheel without tests, which runs in an empty environment and with the oldest versions declared.

The slow tests fetch packages: `pytest -m slow tests/test_wheel.py`.
"""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import jaxlbfgsb

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = [dependency.replace(">=", "==") for dependency in PROJECT["dependencies"]]
FIT = """
import jax.numpy as jnp
from jaxlbfgsb import minimize
print(minimize(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(2), bounds=(0.0, jnp.array([1.0, 3.0]))).x.tolist())
"""


def run(*command):
    return subprocess.run(command, cwd=ROOT.parent, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def environment(folder, *packages):
    """The folder of commands of a new virtual environment with these packages."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "--quiet", *packages)
    return folder / "bin"


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel):
    package = {f"jaxlbfgsb/{path.name}" for path in (ROOT / "jaxlbfgsb").iterdir() if path.is_file()}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "jaxlbfgsb/py.typed" in names
    assert {name for name in names if ".dist-info/" not in name} == package


@pytest.mark.slow
def test_wheel_has_the_version_of_the_package(wheel):
    assert wheel.name.split("-")[1] == jaxlbfgsb.__version__


def test_version_is_in_one_place():
    files = [ROOT / "pyproject.toml", *(ROOT / "jaxlbfgsb").glob("*.py")]
    assert [path.name for path in files if re.search(rf'"{re.escape(jaxlbfgsb.__version__)}"', path.read_text())] == [
        "__init__.py"
    ]


@pytest.mark.slow
def test_wheel_fits_in_an_empty_environment(wheel, tmp_path):
    commands = environment(tmp_path / "venv", wheel)
    assert run(commands / "python", "-c", FIT) == "[1.0, 2.0]\n"


@pytest.mark.slow
def test_oldest_declared_versions_pass_tests(wheel, tmp_path):
    commands = environment(tmp_path / "venv", wheel, *OLDEST, "pytest", "hypothesis")
    files = [ROOT / "tests" / name for name in ("test_solver.py", "test_uncertainty.py", "test_host.py")]
    run(commands / "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT, *files, "--pyargs", "jaxlbfgsb")


@pytest.mark.slow
def test_types_are_complete():
    commands = Path(sys.executable).parent
    found = subprocess.run(
        [commands / "pyright", "--verifytypes", "jaxlbfgsb", "--ignoreexternal"],
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},  # whose python it asks for packages
        stdout=subprocess.PIPE,
        text=True,
    )
    assert float(re.search(r"score: ([\d.]+)%", found.stdout)[1]) >= 95
