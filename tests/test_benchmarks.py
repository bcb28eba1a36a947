"""The benchmarks' statistics and tables say what they should, and all candidates for a work do the same."""

import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import peaks
import pytest
from numpy.testing import assert_allclose
from problems import PROBLEMS

from benchmarks import batched, cases, derivative, harness, host, large, optax_loop, peers, reliability, report, single
from benchmarks.__main__ import NAMES
from benchmarks.harness import OURS, exponent, fill, losses, profile, ratio, ratios, table, take_turns

PAGES = [report.ROOT / "README.md", *sorted(report.DOCS.glob("*.md"))]
ROWS = [
    {"work": "a", "case": "n = 1", "candidate": OURS, "seconds": 0.5},
    {"work": "a", "case": "n = 1", "candidate": "SciPy", "seconds": 1.0},
    {"work": "a", "case": "n = 1", "candidate": "jaxopt", "seconds": 0.25},
    {"work": "a", "case": "n = 2", "candidate": OURS, "seconds": 2e-3},
    {"work": "a", "case": "n = 2", "candidate": "SciPy", "seconds": None},
]


@pytest.fixture(autouse=True, scope="module")
def settings():
    """The peers add arrays of unlike dtypes and ranks; and what compiles fast is good enough here."""
    names = "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_disable_most_optimizations"
    for name, value in zip(names, ("standard", "allow", True), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, ("strict", "raise", False), strict=True):
        jax.config.update(name, value)


def test_candidates_take_turns():
    calls = []
    take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b"] * 4


def test_first_call_is_kept_apart_from_the_median_of_the_others(monkeypatch):
    took = iter([9.0, 1.0, 5.0, 3.0])
    monkeypatch.setattr(harness, "seconds", lambda call: (next(took), call()))
    assert take_turns({"a": lambda: "x"}, 3) == {"a": (9.0, 3.0, "x")}


def test_ratio_is_the_candidates_time_over_ours():
    assert ratio(ROWS, "SciPy", case="n = 1") == 2
    assert ratio(ROWS, "SciPy", case="n = 2") is None


def test_table_of_ratios_shows_faster_peers_in_bold_and_gaps_as_dashes():
    assert ratios(ROWS).splitlines()[2:] == ["| n = 1 | 500 ms | 2 | **0.5** |", "| n = 2 | 2 ms | – | – |"]


def test_losses_are_the_peers_that_are_faster():
    assert losses(ROWS) == [("a", "n = 1", "jaxopt", 0.5)]


def test_table_is_markdown():
    assert table(["", "k"], [["x", 1234], ["y", 0.12345]]) == "|  | k |\n| --- | --- |\n| x | 1,234 |\n| y | 0.123 |"


def test_table_is_put_between_its_markers():
    page = "a\n<!-- t -->\nold\n<!-- end of t -->\nb"
    assert fill(page, {"t": "new", "u": "other"}) == "a\n<!-- t -->\nnew\n<!-- end of t -->\nb"


def test_exponent_of_a_power():
    assert_allclose(exponent([10, 100, 1000], [3e-4, 3e-3 * 10**0.5, 3e-1]), 1.5)


def test_profile_counts_problems_within_a_factor_of_the_best():
    factors, share = profile({"a": [1, 4, np.inf, 2], "b": [2, 1, np.inf, 2]})["a"]
    assert_allclose(factors, [1, 1, 4])
    assert_allclose(share, [0.25, 0.5, 0.75])


def test_results_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    harness.write(tmp_path / "x.jsonl", [{"seconds": 1 / 3, "least": np.inf, "n": 3}])
    assert harness.read("x") == [{"seconds": 0.3333, "least": None, "n": 3}]


def test_every_benchmark_is_run_by_the_one_command():
    files = {path.stem for path in Path(harness.__file__).parent.glob("*.py") if "def measure(" in path.read_text()}
    assert files == set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_the_docs_are_those_of_the_results(page):
    assert fill(page.read_text(), report.all_tables()) == page.read_text()


def test_every_table_has_its_place_in_the_docs():
    places = {name for page in PAGES for name in re.findall(r"<!-- end of (.*?) -->", page.read_text())}
    assert set(report.all_tables()) - places == set()


def test_pictures_of_the_docs_are_there():
    drawn = [name for name in report.names() if hasattr(import_module(f"benchmarks.{name}"), "picture")]
    assert [name for name in drawn if not (report.DOCS / f"{name}.png").exists()] == []


@pytest.mark.parametrize(
    ("make", "n"), [(cases.rosenbrock, 5), (cases.quadratic, 6), (cases.peaks, 7), (cases.elastic_torsion, 25)]
)
def test_case_is_the_same_in_jax_and_by_hand(make, n):
    case = make(n)
    x = case.x0 + 0.01 * np.random.default_rng(0).normal(size=len(case.x0))
    for found, wanted in zip(case.by_hand(x), jax.value_and_grad(case.fun)(jnp.asarray(x)), strict=True):
        assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


def values(calls):
    """What each call returns; they compile side by side."""
    with ThreadPoolExecutor() as threads:
        return dict(zip(calls, threads.map(lambda call: float(np.max(call())), calls.values()), strict=True))


def test_candidates_of_single_end_at_scipys_f():
    case = cases.rosenbrock(3)
    for problem, candidates in ((case, single.bounded(case, False)), (case.free, single.free(case.free))):
        candidates.pop("jaxopt.LBFGSB", None)  # below, as it takes long to compile
        assert max(values(candidates).values()) <= peers.target(problem)


def test_runs_of_large_are_as_far_as_scipys():
    case = cases.elastic_torsion(400)
    assert large.ours(case)() == large.by_scipy(case, 1)()


def test_cauchy_search_crosses_the_share_it_is_said_to():
    state, _, g, box = large.crossing(200, 0.1)
    point = jax.jit(large.search)(state.x, g, box, state.memory)
    assert_allclose(np.mean(~point.free), 0.1, atol=0.005)


def test_candidates_of_batched_end_at_scipys_f():
    (x,), (y,) = peaks.draw(1)
    calls = {
        OURS: lambda: batched.minimize_many(peaks.misfit, x[None], y[None], bounds=batched.BOUNDS).fun,
        "optax": lambda: jax.jit(batched.by_optax)(x, y),
    }
    assert_allclose(list(values(calls).values()), batched.by_scipy((x, y)), rtol=1e-6)


def test_candidates_of_host_end_at_the_same_f():
    case = cases.rosenbrock(3)
    calls = host.on_numpy(case, 1) | host.on_jax(case)
    del calls["objective"]
    assert_allclose(list(values(calls).values()), peers.scipy_by_hand(case)(), rtol=1e-8)


def test_candidates_of_reliability_and_optax_loop_solve_rosenbrock():
    (problem,) = (problem for problem in PROBLEMS if problem.name == "hs1")
    candidates = reliability.CANDIDATES | {"lbfgsb": optax_loop.by_lbfgsb}
    assert all(row["evaluations"] for row in reliability.compare(problem, candidates, 1))


def test_candidates_of_derivative_agree_where_the_problem_is_well_conditioned():
    assert max(derivative.errors(10.0, n=4).values()) <= 1e-3
