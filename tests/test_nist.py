"""The certified numbers check data, models and parameters at once; the recipe of `python -m jaxlbfgsb` finds them."""

import sys
from functools import partial

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


@every_set
def test_recipe_finds_six_digits_from_both_starts(data):
    guess, fun = data.starts[1], partial(job.half_squares, data.model)
    tasks = [job.problem(data, b0, guess, data.y @ data.y) for b0 in data.starts]
    found = [guess * job.solve(fun, task, job.EXACT)[0] for task in tasks]
    assert min(job.digits(b, data.certified) for b in found) >= 6


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of Misra1a, .*, got 'Misra'"):
        nist.load("Misra")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What main prints for few refits and two sets, without SciPy's optimizers, and whether it leaves a figure."""
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as out:
        pass
