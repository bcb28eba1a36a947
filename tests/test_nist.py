"""The certified numbers check data, models and parameters at once; the recipe of `python -m jaxlbfgsb` finds them."""

import re
import sys
from contextlib import redirect_stdout
from io import StringIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxlbfgsb import __main__ as job
from jaxlbfgsb import nist

DATA = [nist.load(name) for name in nist.NAMES]
every_set = pytest.mark.parametrize("data", DATA, ids=nist.NAMES)


@every_set
def test_certified_parameters_leave_the_certified_sum_of_squares(data):
    residual = data.y - np.asarray(data.model(jnp.asarray(data.certified), jnp.asarray(data.x)))
    assert_allclose(residual @ residual, data.rss, rtol=1e-9)


@every_set
def test_certified_deviations_are_those_of_the_jacobian(data):
    J = np.asarray(jax.jacfwd(data.model)(jnp.asarray(data.certified), jnp.asarray(data.x)))
    size = np.linalg.norm(J, axis=0)
    R = np.linalg.qr(J / size, mode="r")
    std = data.residual_std * np.linalg.norm(np.linalg.solve(R, np.eye(len(R))), axis=1) / size
    assert_allclose(std, data.std, rtol=1e-6)


@every_set
def test_certified_parameters_lie_inside_the_box(data):
    u = data.certified / data.starts[1]
    assert np.all((u > job.LOWER) & (u < job.UPPER))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of Misra1a, .*, got 'Misra'"):
        nist.load("Misra")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What main prints where SciPy has no optimizers, in a folder of its own."""
    folder, out = tmp_path_factory.mktemp("job"), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setitem(sys.modules, "scipy.optimize", None)
        patch.chdir(folder)
        job.main(refits=200, batch=100)
    return folder, out.getvalue()


@pytest.mark.parametrize("name", nist.NAMES)
def test_recipe_finds_five_digits_from_both_starts(printed, name):
    rows = [line.split() for line in printed[1].splitlines() if line.startswith(name)]
    assert [row[4] for row in rows] == ["1", "2"]
    assert min(float(row[5]) for row in rows) >= 5


def test_refits_spread_as_certified(printed):
    ratios = [float(line.split()[4]) for line in printed[1].splitlines() if re.match(r"b\d ", line)]
    assert_allclose(ratios, np.ones(8), atol=4 * np.sqrt(0.5 / 200))  # four times what chance moves them by


def test_every_refit_converges(printed):
    assert "Converged: 100.00%" in printed[1]


def test_job_draws_a_figure(printed):
    assert (printed[0] / job.FIGURE).read_bytes().startswith(b"\x89PNG")


def test_job_fits_its_lines(printed):
    assert max(map(len, printed[1].splitlines())) <= 100


def test_scipy_beside_it_takes_as_many_steps(monkeypatch, capsys):
    monkeypatch.setattr(nist, "NAMES", ("Misra1a",))
    job.show_fits()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("Misra1a")]
    assert [row[6:8] for row in rows] == [row[9:11] for row in rows]
