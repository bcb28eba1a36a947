"""SciPy's own tests of L-BFGS-B, with our functions in SciPy's place and SciPy's solver gone."""

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import jaxlbfgsb

SUITE = [f"scipy.optimize.tests.{name}" for name in ("test_optimize", "test_lbfgsb_hessinv")]
PLUGIN = '''
import inspect

import scipy.optimize
from scipy.optimize import _lbfgsb_py, _minimize

import jaxlbfgsb


def in_its_place(fun, x0, args=(), jac=None, bounds=None, callback=None, **options):
    """Takes what SciPy's minimize passes: a callback made to take a result."""
    taken = None if callback is None else lambda intermediate_result: callback(intermediate_result)
    return jaxlbfgsb.scipy_method(fun, x0, args, jac, bounds=bounds, callback=taken, **options)


def gone(*args):
    raise AssertionError("SciPy's own solver was called")


scipy.optimize.fmin_l_bfgs_b = jaxlbfgsb.fmin_l_bfgs_b
_minimize._minimize_lbfgsb = in_its_place
_lbfgsb_py._lbfgsb.setulb = gone


def mentions(text):
    return any(name in text.lower() for name in ("l_bfgs_b", "l-bfgs-b", "lbfgsb"))


def concerns(item):
    """True of a test of L-BFGS-B, of its case of a test over methods, and of a test that loops over methods."""
    over_methods = {"method", "solver"} & getattr(item, "callspec", item).__dict__.get("params", {}).keys()
    return mentions(item.nodeid) or not over_methods and mentions(inspect.getsource(item.function))


def pytest_collection_modifyitems(items):
    items[:] = filter(concerns, items)
'''
DESELECTED = []


@cache
def outcome(folder):
    """The exit code of a run of SciPy's tests, and what it printed."""
    Path(folder, "in_scipys_place.py").write_text(PLUGIN)
    path = os.pathsep.join([folder, str(Path(jaxlbfgsb.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "in_scipys_place", "-p", "no:cacheprovider", "--tb=short",
               *(f"--deselect={name}" for name in DESELECTED), "--pyargs", *SUITE]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    if any(importlib.util.find_spec(module) is None for module in SUITE):
        pytest.skip("this SciPy comes without its tests")
    return outcome(str(tmp_path_factory.getbasetemp()))


def test_scipys_own_tests_pass(run):
    code, text = run
    assert code == 0, text


def test_many_of_scipys_tests_were_selected(run):
    assert int(re.search(r"(\d+) passed", run[1]).group(1)) > 60
