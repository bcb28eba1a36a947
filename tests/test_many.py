"""minimize_many: every problem as alone, whatever its neighbours; lanes refilled at once; devices, processes, files."""

import heapq
import os
import re
import subprocess
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import peaks
import pytest
from devices import environment, printed
from numpy.testing import assert_allclose, assert_array_equal

from jaxlbfgsb import Options, Status, minimize, minimize_many
from jaxlbfgsb.lanes import Problem, Settings, fit_all

BOUNDS = peaks.LOWER, peaks.UPPER


@cache
def fitted(count=300, **keywords):
    x0, data = peaks.draw(count)
    return minimize_many(peaks.misfit, x0, data, bounds=BOUNDS, **keywords)


@cache
def alone(count=300):
    x0, data = peaks.draw(count)
    return jax.jit(jax.lax.map, static_argnums=0)(
        lambda xy: minimize(peaks.misfit, xy[0], xy[1], bounds=BOUNDS), (x0, data)
    )


def assert_same(a, b):
    jax.tree.map(assert_array_equal, a, b)


def test_each_problem_ends_where_it_ends_alone():
    assert_allclose(fitted().x, alone().x, rtol=1e-6, atol=1e-9)
    assert_allclose(fitted().fun, alone().fun, rtol=1e-12)


def test_each_problem_takes_the_evaluations_that_it_takes_alone():
    same = (fitted().evaluations == alone().evaluations) & (fitted().iterations == alone().iterations)
    assert np.mean(same) >= 0.99


def test_values_and_gradients_are_those_of_the_points():
    _, data = peaks.draw(300)
    f, g = jax.vmap(jax.value_and_grad(peaks.misfit))(fitted().x, data)
    assert_allclose(fitted().fun, f, rtol=1e-13)
    assert_allclose(fitted().grad, g, rtol=1e-9, atol=1e-9)


LAPACK = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from jaxlbfgsb import minimize_many

def evidence(x, A):
    factor = jnp.linalg.cholesky(A + jnp.exp(x[0]) * jnp.eye(30))
    return jnp.sum(jnp.log(jnp.diagonal(factor))) + x[0] ** 2

def fit(**keywords):
    x0 = np.linspace(-1, 1, 64)[:, None]
    return minimize_many(evidence, x0, (np.eye(30),), in_axes=(0, (None,), None), **keywords)
"""


def run_alone(script, devices):
    """The lines that the script prints in a process of its own, which is killed if it waits for ever."""
    return printed(LAPACK + script, devices, **os.environ)


def test_fits_whose_objective_calls_lapack_end():
    assert run_alone("print(fit().converged.all())", devices=1) == "True\n"


def test_a_mesh_in_which_lapack_would_wait_for_ever_is_refused():
    script = """
try:
    fit(mesh=jax.make_mesh((2,), ("fits",)))
except ValueError as error:
    print(error)
"""
    assert run_alone(script, devices=2).startswith("mesh: fun calls LAPACK")


def test_results_do_not_depend_on_the_order():
    x0, data = peaks.draw(300)
    order = np.random.default_rng(0).permutation(300)
    moved = minimize_many(peaks.misfit, x0[order], data[order], bounds=BOUNDS)
    assert_same(moved, jax.tree.map(lambda leaf: leaf[order], fitted()))


@pytest.mark.parametrize("lanes", [8, 16, 64])
def test_order_changes_rounding_alone_where_lanes_do_not_round_alike(lanes):
    def valley(x, centre):  # by entries: XLA's code for the last lanes may be another
        return jnp.sum((x - centre) ** 2) + 100 * (x[1] - x[0] ** 2) ** 2

    rng = np.random.default_rng(0)
    x0, centre, order = rng.normal(size=(300, 3)), rng.normal(size=(300, 3)), rng.permutation(300)
    fit = partial(minimize_many, valley, bounds=(-2.0, 2.0), lanes=lanes)
    found, moved = jax.tree.map(lambda leaf: leaf[order], fit(x0, centre)), fit(x0[order], centre[order])
    assert_allclose(moved.fun, found.fun, rtol=1e-12, atol=1e-12)
    assert_array_equal(moved.evaluations, found.evaluations)


@pytest.mark.parametrize("count", [3, 20, 100])
def test_an_objective_meets_no_x_of_another_problem(count):
    seen = []

    def noted(x, low):
        jax.debug.callback(lambda x, low: seen.append((float(x), float(low))), x[0], low)
        return (x[0] - low - 1) ** 2 * (1 + low) + (x[0] - low) ** 4

    low = 10.0 * np.arange(count)
    x0, bounds = low[:, None] + 4, (low[:, None] + 0.25, low[:, None] + 5)
    assert jax.jit(lambda: minimize_many(noted, x0, low, bounds=bounds, in_axes=(0, 0, 0), lanes=16))().converged.all()
    jax.effects_barrier()
    assert [(x, low) for x, low in seen if not low + 0.25 <= x <= low + 5] == []
    assert {low for _, low in seen} == set(low.tolist())


@pytest.mark.parametrize("part", [0, 1, 2])
def test_masked_arrays_are_refused(part):
    problem = [np.zeros((3, 2)), np.ones((3, 2)), (-np.ones((3, 2)), np.ones((3, 2)))]
    masked = np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2))
    problem[part] = (masked, None) if part == 2 else masked
    with pytest.raises(TypeError, match=r"(x0|args|bounds).* must be no masked array"):
        minimize_many(lambda x, c: jnp.sum((x - c) ** 2), *problem[:2], bounds=problem[2], in_axes=(0, 0, 0))


@pytest.mark.parametrize("lanes", [8, 24, 64, 300])
def test_results_do_not_depend_on_the_lanes(lanes):
    found = fitted(lanes=lanes)  # another program: its sums over the data may round differently
    assert_allclose(found.fun, fitted().fun, rtol=1e-12)
    assert_allclose(found.x, fitted().x, rtol=1e-10, atol=1e-10)
    assert_array_equal(found.evaluations, fitted().evaluations)


def test_results_inside_jit_are_those_outside():
    x0, data = peaks.draw(300)
    inside = jax.jit(lambda x0, data: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS))(x0, data)
    assert_allclose(inside.x, fitted().x, rtol=1e-12, atol=1e-12)


def test_a_neighbour_without_a_value_changes_nothing():
    x0, data = peaks.draw(300)
    data[::7] = np.nan
    found = minimize_many(peaks.misfit, x0, data, bounds=BOUNDS)
    bad = np.arange(300) % 7 == 0
    assert_array_equal(found.status[bad], Status.NON_FINITE)
    assert_same(jax.tree.map(lambda leaf: leaf[~bad], found), jax.tree.map(lambda leaf: leaf[~bad], fitted()))


def test_a_bad_start_and_bounds_that_cross_are_told_by_the_status():
    x0, lower = np.zeros((4, 2)), np.zeros((4, 2))
    x0[1, 0], lower[2, 1] = np.nan, 2.0
    bounds = lower, np.ones((4, 2))
    found = minimize_many(lambda x: jnp.sum((x - 0.5) ** 2), x0, bounds=bounds, in_axes=(0, 0, 0))
    assert found.status.tolist() == [Status.GRADIENT, Status.BAD_X0, Status.BAD_BOUNDS, Status.GRADIENT]
    assert found.evaluations.tolist()[1:3] == [0, 0]


@pytest.mark.parametrize("n", [1, 4, 30])  # 30: the kernels for many variables
def test_every_dtype_and_size(n):
    for dtype in (np.float32, np.float64):
        centres = np.linspace(-1, 2, 20 * n, dtype=dtype).reshape(20, n)
        found = minimize_many(lambda x, c: jnp.sum((x - c) ** 4), np.zeros_like(centres), centres, bounds=(0.0, 1.0))
        assert found.x.dtype == dtype
        assert_allclose(found.x, np.clip(centres, 0, 1), atol=0.2 if dtype == np.float32 else 0.05)
        assert ((found.x >= 0) & (found.x <= 1)).all()


def test_pytrees_shared_leaves_and_aux():
    def misfit(p, x, y):
        r = p["height"] * jnp.exp(-0.5 * (x / p["width"]) ** 2) - y
        return jnp.sum(r**2), {"rms": jnp.sqrt(jnp.mean(r**2))}

    x = np.linspace(-3, 3, 30)
    heights = np.linspace(1, 3, 5)
    start = {"height": np.ones(5), "width": 0.7}
    found = minimize_many(
        misfit,
        start,
        (x, heights[:, None] * np.exp(-0.5 * x**2)),
        bounds=({"height": 0.0, "width": 0.1}, {"height": np.full(5, 2.0), "width": np.inf}),
        in_axes=({"height": 0, "width": None}, (None, 0), (None, {"height": 0, "width": None})),
        has_aux=True,
    )
    assert_allclose(found.x["height"][:3], heights[:3], rtol=1e-5)
    assert_array_equal(found.x["height"][3:], 2.0)
    assert_allclose(found.aux["rms"][:3], 0, atol=1e-5)
    r = found.x["height"][4] * np.exp(-0.5 * (x / found.x["width"][4]) ** 2) - 3 * np.exp(-0.5 * x**2)
    assert_allclose(found.aux["rms"][4], np.sqrt(np.mean(r**2)), rtol=1e-12)


def test_each_problem_may_have_its_own_options():
    x0, data = peaks.draw(20)
    found = minimize_many(peaks.misfit, x0, data, bounds=BOUNDS, options=Options(max_iterations=np.arange(1, 21)))
    stopped = found.status == Status.ITERATIONS
    assert_array_equal(found.iterations[stopped], np.arange(1, 21)[stopped])
    assert stopped[0]
    assert not stopped[-1]


def test_pairs_in_a_tuple_bound_each_variable():
    found = minimize_many(lambda x: jnp.sum((x - 2) ** 2), np.zeros((4, 3)), bounds=((0, 1), (None, None), (3, 4)))
    assert_allclose(found.x, np.tile([1.0, 2.0, 3.0], (4, 1)))


def test_a_gradient_of_the_users_own():
    def both(x, c):
        return jnp.sum((x - c) ** 2), 2 * (x - c)

    found = minimize_many(both, np.zeros((9, 2)), np.ones((9, 2)), value_and_grad=True)
    assert_allclose(found.x, 1)


def test_objective_is_traced_and_compiled_once_a_program(caplog):
    calls = []

    def bowl(x, c):
        calls.append(1)
        return jnp.sum((x - c) ** 2)

    with jax.log_compiles():
        for count in (1000, 1020):  # the same power of two
            minimize_many(bowl, np.zeros((count, 2)), np.ones((count, 2)))
    assert len(calls) == 1
    assert caplog.text.count("Finished XLA compilation of jit(<lambda>)") == 1


def test_a_scoped_x64_flag_holds_in_all_threads():
    with jax.enable_x64(True):
        assert minimize_many(lambda x: jnp.sum(x**2), np.ones((100, 2))).x.dtype == np.float64
    with jax.enable_x64(False):
        assert minimize_many(lambda x: jnp.sum(x**2), np.ones((100, 2), np.float32)).x.dtype == np.float32


def test_float64_data_without_the_x64_flag_warn_of_nothing_as_in_minimize():
    with jax.enable_x64(False):
        found = minimize_many(lambda x, y: jnp.sum((x - y) ** 2), np.zeros((3, 2)), np.ones((3, 2)))
    assert found.x.dtype == np.float32


def around_a_draw(x, *args):
    return jnp.sum((x - jax.random.uniform(jax.random.key(3), (2,))) ** 2)


@pytest.mark.parametrize("setting", [jax.default_prng_impl("rbg"), jax.threefry_partitionable(False)], ids=["rbg", ""])
def test_scoped_settings_hold_in_the_objective_and_in_an_iterator(setting):
    def parts():
        yield jax.random.uniform(jax.random.key(0), (20, 2)), ()

    with setting:
        place, starts = jax.random.uniform(jax.random.key(3), (2,)), jax.random.uniform(jax.random.key(0), (20, 2))
        assert_allclose(minimize_many(around_a_draw, ZEROS).x, np.tile(place, (20, 1)), atol=1e-7)
        begun = minimize_many(around_a_draw, parts(), options=Options(max_iterations=0))
    assert_array_equal(begun.x, starts)


def test_scoped_checks_hold_in_the_objective():
    with jax.numpy_rank_promotion("allow"):
        assert minimize_many(lambda x: jnp.sum((x - jnp.ones((1, 2))) ** 2), ZEROS).converged.all()
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        minimize_many(lambda x: jnp.sum(x) * np.nan, ZEROS)


def test_under_vmap():
    x0, data = peaks.draw(64)
    solve = jax.vmap(lambda x0, data: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS).x)
    found = solve(x0.reshape(4, 16, 4), data.reshape(4, 16, -1))
    assert_allclose(found.reshape(64, 4), fitted(64).x, rtol=1e-9, atol=1e-9)


# Trips


def ideal(evaluations, lanes):
    """The trips of lanes that take the next problem in the trip after they have finished one."""
    busy = [0] * lanes
    for needed in evaluations:
        heapq.heapreplace(busy, busy[0] + int(needed))
    return max(busy)


def trips(fun, lanes, x0, args):
    problems = Problem(x0, args, None, Options())
    flags = tuple([True] * len(jax.tree.leaves((x0, args))) + [False] * len(jax.tree.leaves(Options())))
    result, count = jax.jit(partial(fit_all, fun, Settings(flags, lanes, False, False, 10)))(problems, len(x0))
    return jax.tree.map(np.asarray, result), int(count)


def test_trips_without_stragglers():
    x0, data = peaks.draw(20 * 16)
    result, count = trips(peaks.misfit, 16, x0, (data,))
    assert count <= 1.02 * ideal(result.evaluations, 16)
    assert count <= 1.10 * np.sum(result.evaluations) / 16


def test_trips_with_stragglers():
    def mixed(x, hard):
        chained = jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
        return jnp.where(hard, chained, jnp.sum((x - 0.5) ** 2))

    K, lanes = 200 * 8, 8
    hard = np.random.default_rng(0).permutation(np.arange(K) < K // 100)
    x0 = np.random.default_rng(1).normal(size=(K, 6))
    result, count = trips(mixed, lanes, x0, (hard,))
    assert np.median(result.evaluations[hard]) >= 10 * np.median(result.evaluations)
    assert count <= 1.02 * ideal(result.evaluations, lanes)
    assert count <= 1.10 * np.sum(result.evaluations) / lanes


def test_an_unbounded_problem_costs_its_own_lane_only():
    x0, slope = np.zeros((400, 2)), np.zeros(400)
    slope[7] = 1.0

    def fall(x, slope):
        return jnp.where(slope > 0, -slope * x[0], jnp.sum((x - 1) ** 2))

    result, count = trips(fall, 8, x0, (slope,))
    assert count <= ideal(result.evaluations, 8)
    assert result.converged[slope == 0].all()


# Files


def resumable(folder, count=300, **keywords):
    x0, data = peaks.draw(count)
    return minimize_many(peaks.misfit, x0, data, bounds=BOUNDS, resume=folder, **keywords)


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlbfgsb.many.PART", 32)
    whole = resumable(tmp_path / "whole")
    files = sorted((tmp_path / "whole").glob("part-*.npz"))
    assert len(files) >= 8
    again = resumable(tmp_path / "part")
    kept = sorted((tmp_path / "part").glob("part-*.npz"))[::3]
    for path in (tmp_path / "part").glob("part-*.npz"):
        if path not in kept:
            path.unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = resumable(tmp_path / "part")
    assert_same(again, whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == before  # fitted once


def test_elsewhere_than_on_a_cpu_a_part_holds_more(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlbfgsb.many.PART", 32)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    resumable(tmp_path / "gpu")
    with jax.default_device(jax.devices("cpu")[0]):
        resumable(tmp_path / "cpu")
    assert [len([*(tmp_path / where).glob("part-*.npz")]) for where in ("gpu", "cpu")] == [1, 10]


def test_an_exception_keeps_what_was_fitted(tmp_path, monkeypatch):
    from jaxlbfgsb import results

    monkeypatch.setattr("jaxlbfgsb.many.PART", 32)
    save, saved = results.save, []

    def failing(*arguments):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(arguments[1])
        save(*arguments)

    monkeypatch.setattr(results, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path)
    monkeypatch.setattr(results, "save", save)
    assert_allclose(resumable(tmp_path).x, fitted().x, rtol=1e-12)


OTHERS = {
    "objective": lambda x0, data: minimize_many(lambda p, y: 2 * peaks.misfit(p, y), x0, data, bounds=BOUNDS),
    "bounds": lambda x0, data: minimize_many(peaks.misfit, x0, data, bounds=(-10.0, 10.0)),
    "options": lambda x0, data: minimize_many(peaks.misfit, x0, data, bounds=BOUNDS, options=Options(gtol=1e-3)),
    "number": lambda x0, data: minimize_many(peaks.misfit, x0[:-1], data[:-1], bounds=BOUNDS),
    "data": lambda x0, data: minimize_many(peaks.misfit, x0, data + 1e-9, bounds=BOUNDS),
    "starts": lambda x0, data: minimize_many(peaks.misfit, x0 + 1e-9, data, bounds=BOUNDS),
}


def test_another_rule_for_the_gradient_is_another_objective(tmp_path):
    def run(factor):
        value = jax.custom_vjp(lambda x: jnp.sum((x - 1) ** 2))
        value.defvjp(lambda x: (jnp.sum((x - 1) ** 2), x), lambda x, cotangent: (factor * cotangent * (x - 1),))
        return minimize_many(lambda x: value(x), ZEROS, resume=tmp_path)

    assert_same(run(2), run(2))
    with pytest.raises(ValueError, match="another objective"):
        run(3)


@pytest.mark.parametrize("transform", [lambda run: jax.grad(run)(1.0), lambda run: jax.vmap(run)(jnp.ones(2))])
@pytest.mark.parametrize("keywords", [{"resume": True}, {"progress": True}], ids=str)
def test_neither_files_nor_a_bar_go_with_an_objective_that_closes_over_traced_values(transform, keywords, tmp_path):
    if "resume" in keywords:
        keywords = {"resume": tmp_path / "run"}
    with pytest.raises(ValueError, match="progress and resume need a call outside of jit"):
        transform(lambda a: jnp.sum(minimize_many(lambda x: jnp.sum((x - a) ** 2), ZEROS, **keywords).x))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", OTHERS)
def test_other_arguments_are_refused(other, tmp_path, monkeypatch):
    x0, data = peaks.draw(20)
    resumable(tmp_path, 20)
    changed = partial(minimize_many, resume=tmp_path)
    monkeypatch.setitem(OTHERS[other].__globals__, "minimize_many", changed)
    with pytest.raises(ValueError, match=r"resume: .*(another objective|are not those)"):
        OTHERS[other](x0, data)


def test_a_damaged_file_is_named(tmp_path):
    resumable(tmp_path, 20)
    path = sorted(tmp_path.glob("part-*.npz"))[-1]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
        resumable(tmp_path, 20)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="holds other files"):
        resumable(tmp_path, 20)


def test_a_folder_that_cannot_be_made_is_an_error_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        resumable(tmp_path / "file" / "folder", 20)


KILLED = """
import sys
import numpy as np
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import jaxlbfgsb.many
jaxlbfgsb.many.PART = 1024
sys.path.insert(0, sys.argv[1])
import peaks
x0, data = peaks.draw(40_000)
found = jaxlbfgsb.minimize_many(peaks.misfit, x0, data, bounds=(peaks.LOWER, peaks.UPPER), resume=sys.argv[2])
np.save(sys.argv[2] + "/../found.npy", np.concatenate([found.x, found.evaluations[:, None]], 1))
"""


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_the_same(tmp_path):
    def run(folder, seconds):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(peaks.__file__).rsplit("/", 1)[0], str(folder)]
        try:
            subprocess.run(command, timeout=seconds, check=True)  # kills with SIGKILL
        except subprocess.TimeoutExpired:
            return None
        return np.load(folder.parent / "found.npy")

    whole = run(tmp_path / "whole" / "run", None)
    rng = np.random.default_rng(0)
    for _ in range(10):
        run(tmp_path / "cut" / "run", rng.uniform(1.5, 4))
    assert_array_equal(run(tmp_path / "cut" / "run", None), whole)


# More data than memory


def test_memory_mapped_data(tmp_path):
    x0, data = peaks.draw(300)
    np.save(tmp_path / "data.npy", data)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    assert_same(minimize_many(peaks.misfit, x0, mapped, bounds=BOUNDS), fitted())


def test_an_iterator_over_parts(tmp_path):
    x0, data = peaks.draw(300)

    def parts():
        return ((x0[i : i + 70], (data[i : i + 70],)) for i in range(0, 300, 70))

    found = minimize_many(peaks.misfit, parts(), bounds=BOUNDS, resume=tmp_path)
    assert_allclose(found.x, fitted().x, rtol=1e-12)
    assert_same(minimize_many(peaks.misfit, parts(), bounds=BOUNDS, resume=tmp_path), found)


def test_progress_is_shown_only_when_wanted(capsys):
    fitted.__wrapped__(300)
    assert capsys.readouterr() == ("", "")
    fitted.__wrapped__(300, progress=True)
    shown = capsys.readouterr().err
    assert "300/300" in shown
    assert "fit/s" in shown
    assert "converged=100.0%" in shown


def test_one_bar_counts_on_over_the_parts_of_an_iterator(capsys):
    x0, data = peaks.draw(300)
    parts = ((x0[i : i + 100], (data[i : i + 100],)) for i in range(0, 300, 100))
    minimize_many(peaks.misfit, parts, bounds=BOUNDS, progress=True)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "300fit" in shown
    assert "converged=100.0%" in shown


def around_keys(x, key):
    return jnp.sum((x - jax.random.normal(key, (2,))) ** 2)


def test_keys_are_data(tmp_path):
    keys = jax.random.split(jax.random.key(0), 20)
    places = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    run = partial(minimize_many, around_keys, ZEROS)
    for found in (run(keys), run(keys, resume=tmp_path), run(keys, resume=tmp_path), jax.jit(run)(keys)):
        assert_allclose(found.x, places, atol=1e-7)
    assert_allclose(run(keys[3], in_axes=(0, None, None)).x, np.tile(places[3], (20, 1)), atol=1e-7)
    with pytest.raises(ValueError, match="are not those"):
        run(jax.random.split(jax.random.key(1), 20), resume=tmp_path)


def test_keys_may_be_aux(tmp_path):
    keys = jax.random.split(jax.random.key(0), 20)
    run = partial(minimize_many, lambda x, key: (jnp.sum(x**2), key), has_aux=True)
    whole, written, read = run(ZEROS, keys), run(ZEROS, keys, resume=tmp_path), run(ZEROS, keys, resume=tmp_path)
    parts = run(iter([(ZEROS[:8], keys[:8]), (ZEROS[8:], keys[8:])]))
    for found in whole.aux, written.aux, read.aux, parts.aux:
        assert found.dtype == keys.dtype
        assert_array_equal(jax.random.key_data(found), jax.random.key_data(keys))


def test_a_key_that_is_shared_belongs_to_the_run(tmp_path):
    run = partial(minimize_many, around_keys, ZEROS, in_axes=(0, None, None), resume=tmp_path)
    assert_same(run(jax.random.key(0)), run(jax.random.key(0)))
    with pytest.raises(ValueError, match="another objective"):
        run(jax.random.key(1))


def with_data(x, c):
    return jnp.sum((x - c.astype(x.dtype)) ** 2), c


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn, jnp.int4, np.float16, bool], ids=str)
def test_data_of_few_bits_can_be_resumed(dtype, tmp_path):
    data = np.arange(40).reshape(20, 2) % 7

    def run(data):
        return minimize_many(with_data, ZEROS, data.astype(dtype), has_aux=True, resume=tmp_path)

    first, again = run(data), run(data)
    assert_same(first, again)
    assert first.aux.dtype == again.aux.dtype == dtype
    assert_allclose(first.x, data.astype(dtype).astype(float), atol=1e-7)
    with pytest.raises(ValueError, match="are not those"):
        run(data + (data == 0))


@pytest.mark.parametrize("keywords", [{}, {"mesh": True}, {"resume": True}, {"lanes": 8}], ids=str)
def test_big_endian_data(keywords, tmp_path):
    x0, data = peaks.draw(40)
    if "mesh" in keywords:
        keywords = {"mesh": jax.make_mesh((1,), ("fits",))}
    if "resume" in keywords:
        keywords = {"resume": tmp_path}
    bounds = tuple(np.tile(side, (40, 1)) for side in BOUNDS)
    options = Options(gtol=np.full(40, 1e-5), max_iterations=np.full(40, 30))
    run = partial(minimize_many, peaks.misfit, in_axes=(0, 0, 0), **keywords)
    swapped = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype.newbyteorder()), (x0, data, bounds))
    foreign = Options(gtol=np.full(40, 1e-5, ">f8"), max_iterations=np.full(40, 30, ">i8"))
    found = run(swapped[0], swapped[1], bounds=swapped[2], options=foreign)
    assert_same(found, run(x0, data, bounds=bounds, options=options))


def test_big_endian_data_may_be_memory_mapped(tmp_path):
    x0, data = peaks.draw(300)
    np.save(tmp_path / "data.npy", data.astype(">f8"))
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    assert_same(minimize_many(peaks.misfit, x0, mapped, bounds=BOUNDS), fitted())


# Devices and processes

ON_DEVICES = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import sys; sys.path.insert(0, sys.argv[1])
if len(sys.argv) > 2:
    jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[3]))
import peaks
from jax.sharding import NamedSharding, PartitionSpec
from jaxlbfgsb import minimize_many
x0, data = peaks.draw(201)
mesh = jax.make_mesh((jax.device_count(),), ("fits",))
assert jax.device_count() == 4
found = minimize_many(peaks.misfit, x0, data, bounds=(peaks.LOWER, peaks.UPPER), mesh=mesh)
if len(sys.argv) > 2:
    try:
        minimize_many(peaks.misfit, x0, data, mesh=mesh, progress=True)
        raise SystemExit("no error")
    except ValueError as error:
        assert "all of this process" in str(error)
replicated = jax.jit(lambda r: r, out_shardings=NamedSharding(mesh, PartitionSpec()))(found)
program = jax.jit(lambda x, y: minimize_many(peaks.misfit, x, y, bounds=(peaks.LOWER, peaks.UPPER), mesh=mesh).x)
x, y = (jax.device_put(a[:200], NamedSharding(mesh, PartitionSpec("fits"))) for a in (x0, data))
text = program.lower(x, y).compile().as_text()
assert not any(word in text for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all")), "collectives"
assert program(x, y).sharding.spec[0] in ("fits", ("fits",)), program(x, y).sharding
print(np.asarray(replicated.x).tobytes().hex())
"""


def on_devices(*arguments, devices, script=ON_DEVICES):
    command = [sys.executable, "-c", script, str(peaks.__file__).rsplit("/", 1)[0], *arguments]
    env = environment(devices, PATH="")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


ON_A_MESH = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import sys; sys.path.insert(0, sys.argv[1])
import peaks
import jaxlbfgsb.many
from jaxlbfgsb import minimize_many
jaxlbfgsb.many.PART = 16
x0, data = peaks.draw(201)
bounds = peaks.LOWER, peaks.UPPER
mesh = jax.make_mesh((4,), ("fits",))
fit = lambda: minimize_many(peaks.misfit, x0, data, bounds=bounds, mesh=mesh, resume=sys.argv[2], progress=True)
first = fit()
import pathlib
files = sorted(pathlib.Path(sys.argv[2]).glob("part-*"))
assert len(files) > 2, files
files[1].unlink()
again = fit()
jax.tree.map(np.testing.assert_array_equal, first, again)

# Axes that are explicit, and those that are not; 200 problems, for such axes divide evenly
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlbfgsb import covariance
x0, data = x0[:200], data[:200]
scale = jnp.sqrt(jnp.arange(1.0, 5.0))
bowl = lambda x, c: jnp.sum((x - scale * c) ** 2)
def residuals(p, y):
    return (p[0] * jnp.exp(-((peaks.T - p[1]) ** 2) / (2 * p[2] ** 2)) + p[3] - y) / peaks.NOISE
near = np.asarray(covariance(residuals, minimize_many(peaks.misfit, x0, data, bounds=bounds), data, bounds=bounds))
for mesh in mesh, Mesh(np.array(jax.devices()), ("fits",)):
    found = minimize_many(peaks.misfit, x0, data, bounds=bounds, mesh=mesh)
    np.testing.assert_allclose(covariance(residuals, found, data, bounds=bounds), near, rtol=1e-5, atol=1e-10)
    split = jax.device_put((x0, data), NamedSharding(mesh, PartitionSpec("fits")))
    for keywords in {}, {"mesh": mesh}, {"progress": True}:
        found = minimize_many(peaks.misfit, *split, bounds=bounds, **keywords)
        np.testing.assert_allclose(found.fun, first.fun[:200], rtol=1e-10)
    keys = jax.device_put(jax.random.split(jax.random.key(0), 200), NamedSharding(mesh, PartitionSpec("fits")))
    found = minimize_many(lambda x, key: (jnp.sum(x**2), key), split[0], keys, has_aux=True).aux
    np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(keys))
    for few in 200, 10:  # the mesh does not divide 10
        low = lambda c: (None, 0.5 * scale * c[0])
        total = lambda c: jnp.sum(minimize_many(bowl, x0[:few], c, mesh=mesh, bounds=low(c)).x)
        with jax.set_mesh(mesh):
            slopes = [way(jax.grad(total))(jnp.ones((few, 4))) for way in (lambda f: f, jax.jit)]
        held = np.zeros((few, 4))
        held[0] = 0.5 * few * scale
        np.testing.assert_allclose(slopes, [held, held], atol=1e-9)
print(np.asarray(again.x).tobytes().hex())
"""


def x_of(process):
    with process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return np.frombuffer(bytes.fromhex(out.split()[-1])).reshape(-1, 4)


def test_four_devices_give_what_one_gives():
    assert_allclose(x_of(on_devices(devices=4)), fitted(201).x, rtol=1e-10, atol=1e-10)


def test_a_mesh_shows_progress_and_goes_on(tmp_path):
    assert_allclose(x_of(on_devices(tmp_path, devices=4, script=ON_A_MESH)), fitted(201).x, rtol=1e-10, atol=1e-10)


def test_two_processes_give_what_one_gives():
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    both = [on_devices(port, rank, devices=2) for rank in ("0", "1")]
    for x in [x_of(process) for process in both]:
        assert_allclose(x, fitted(201).x, rtol=1e-10, atol=1e-10)


# Bad input


def bowl(x, *args):
    return jnp.sum(x**2)


def test_no_problems_are_an_empty_result():
    found = minimize_many(lambda x, y: (bowl(x), y), np.zeros((0, 3)), np.zeros((0, 2)), has_aux=True)
    assert found.x.shape == (0, 3)
    assert found.aux.shape == (0, 2)
    assert found.fun.shape == found.status.shape == (0,)


BAD = {
    "ragged": (lambda: minimize_many(bowl, np.zeros((3, 2)), np.zeros((4, 2))), "leading axes .* 3 for .*x0.* 4 for"),
    "ragged bounds": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), bounds=(np.zeros((2, 2)), None), in_axes=(0, 0, 0)),
        "leading axes",
    ),
    "no lanes": (lambda: minimize_many(bowl, np.zeros((3, 2)), lanes=0), "lanes must be .* at least 1"),
    "lanes": (lambda: minimize_many(bowl, np.zeros((3, 2)), lanes=2.5), "lanes must be an integer"),
    "axes": (lambda: minimize_many(bowl, np.zeros((3, 2)), in_axes=(1, 0, 0)), "in_axes must be 0 or None"),
    "two axes": (lambda: minimize_many(bowl, np.zeros((3, 2)), in_axes=(0, 0)), "in_axes must be a tuple of three"),
    "axes' tree": (lambda: minimize_many(bowl, np.zeros((3, 2)), 1.0, in_axes=(0, (0, 0), None)), "prefix of args"),
    "nothing batched": (lambda: minimize_many(bowl, np.zeros(2), in_axes=(None, None, None)), "nothing has a leading"),
    "scalar": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), 2.0),
        r"args.* must have a leading axis.* share it by None .*\(0, \(None, 0\), None\)",
    ),
    "one start": (
        lambda: minimize_many(bowl, np.zeros(2), np.zeros((4, 2))),
        r"got 2 for x0, 4 for args\[0\]; if x0 has no leading axis, share it by in_axes=\(None, ...\)$",
    ),
    "one start in a list": (
        lambda: minimize_many(bowl, [0.5, 0.5], np.zeros((4, 2))),
        r"x0\[0\] must have a leading axis.* by in_axes=\(None, ...\); x0 is a list.* jnp.array\(x0, float",
    ),
    "one argument": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), (np.zeros(9), np.zeros((3, 9)))),
        r"got 3 for x0, 9 for args\[0\]; .* shared by None in its place in in_axes, .*=\(0, \(None, 0\), None\)",
    ),
    "data in a list": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), ([np.zeros(k) for k in (5, 7, 5)],)),
        r"got 3 for x0, .*7 for args\[0\]\[1\].*; args hold a list, pad .* docs/recipes\.md",
    ),
    "ragged objects": (
        lambda: minimize_many(bowl, np.zeros((2, 2)), np.array([np.zeros(5), np.zeros(7)], dtype=object)),
        r"args\[0\] must be numbers, got object; pad .* docs/recipes\.md",
    ),
    "pairs in a tuple": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), bounds=((0, 1), (2, 3))),
        r"may be two pairs or \(lower, upper\)",
    ),
    "bounds": (lambda: minimize_many(bowl, np.zeros((3, 2)), bounds=(1.0, 0.0)), "lower must not be above upper"),
    "bounds' shape": (lambda: minimize_many(bowl, np.zeros((3, 2)), bounds=(np.zeros((3, 2)), None)), "must broadcast"),
    "x0": (lambda: minimize_many(bowl, np.zeros((3, 2), int)), "x0 must be a float32 or float64"),
    "options": (lambda: minimize_many(bowl, np.zeros((3, 2)), options=Options(gtol=-1.0)), "options.gtol"),
    "text among options": (
        lambda: minimize_many(bowl, np.zeros((3, 2)), options=Options(gtol="1")),
        "options.gtol must",
    ),
    "resume in jit": (
        lambda: jax.jit(lambda x: minimize_many(bowl, x, resume="a"))(np.zeros((3, 2))),
        "outside of jit",
    ),
    "resume": (lambda: minimize_many(bowl, np.zeros((3, 2)), resume=3), "resume must be a path"),
    "number as progress": (lambda: minimize_many(bowl, np.zeros((3, 2)), progress=1), "progress must be True or False"),
    "NumPy's bool": (lambda: minimize_many(bowl, ZEROS, progress=np.True_), "progress must be True or False"),
    "keys": (lambda: minimize_many(bowl, jax.random.split(jax.random.key(0), 3)), "x0 must be a float32 or float64"),
    "text": (lambda: minimize_many(bowl, ZEROS, (ZEROS, np.full(20, "a"))), r"args\[1\] must be numbers, got <U1"),
    "objects": (lambda: minimize_many(bowl, ZEROS, np.full(20, None)), r"args\[0\] must be numbers, got object"),
    "shared text": (lambda: minimize_many(bowl, ZEROS, "a", in_axes=(0, None, None)), r"args\[0\] must be numbers"),
    "part": (lambda: minimize_many(bowl, iter([np.zeros((3, 2))])), "must give .x0, args"),
    "no part": (lambda: minimize_many(bowl, iter([])), "iterator without a part"),
    "fun": (lambda: minimize_many(None, np.zeros((3, 2))), "fun must be a function"),
    "value": (lambda: minimize_many(lambda x: x, np.zeros((3, 2))), "scalar"),
    "mesh": (lambda: minimize_many(bowl, np.zeros((3, 2)), mesh=2), "mesh must be"),
}


LIMITS = "max_iterations", "max_evaluations", "max_linesearch"


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [
    2.0, np.float64(2), np.full(20, 2.0), jnp.full(20, 2.0), True, np.full(20, True), [3] * 20, "3", None,
    -1, np.full(20, -1), jnp.full(20, -1), np.array([5] * 19 + [-1])
], ids=str)  # fmt: skip
def test_limits_are_whole_numbers_and_not_negative(limit, value):
    with pytest.raises((TypeError, ValueError), match=rf"options\.{limit} must (be an integer|be at least ., got -1)"):
        minimize_many(bowl, ZEROS, options=Options(**{limit: value}))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [10**20, 2**40, np.full(20, 2**40), np.full(20, 2**63, np.uint64)], ids=str)
def test_limits_may_be_of_any_size(limit, value):
    assert minimize_many(bowl, ZEROS + 1, options=Options(**{limit: value})).converged.all()


def chained(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_may_differ(limit):
    wide = np.arange(20) % 2 == 1
    x0 = np.random.default_rng(0).normal(size=(20, 3))
    found = minimize_many(chained, x0, options=Options(**{limit: np.where(wide, 500, 1)}))
    assert found.converged[wide].all()
    assert np.sum(found.converged[~wide]) <= 1


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_what_a_jitted_objective_closes_over_belongs_to_the_run(tmp_path):
    def run(place):
        return minimize_many(jax.jit(lambda x: jnp.sum((x - place) ** 2)), ZEROS, resume=tmp_path)

    run(np.ones(2))
    with pytest.raises(ValueError, match="another objective"):
        run(np.full(2, 2.0))


ZEROS = np.zeros((20, 2))


def test_a_kill_in_the_first_write_leaves_a_folder_to_go_on_in(tmp_path):
    (tmp_path / "run.partial").write_bytes(b"{")
    assert_allclose(minimize_many(bowl, ZEROS, resume=tmp_path).x, minimize_many(bowl, ZEROS).x)


def test_other_data_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    def call(data):
        return minimize_many(lambda x, c: jnp.sum((x - c) ** 2), np.zeros((600, 2)), data, resume=tmp_path)

    monkeypatch.setattr("jaxlbfgsb.many.PART", 64)
    data = np.random.default_rng(0).normal(size=(600, 2))
    call(data)
    for path in sorted(tmp_path.glob("part-*"))[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="are not those"):
        call(data + 1)
    assert_allclose(call(data).x, data, atol=1e-7)


def test_an_iterator_brings_its_own_args_and_ends_by_itself():
    with pytest.raises(ValueError, match="args must be left out"):
        minimize_many(bowl, iter([(ZEROS, ())]), (ZEROS,))
    with pytest.raises(ValueError, match="must give"):
        minimize_many(bowl, iter([(ZEROS, ()), None, (ZEROS, ())]))


def test_parts_of_another_size_are_refused_when_they_come():
    def parts():
        yield ZEROS, ()
        yield np.zeros((20, 3)), ()
        yield None

    with pytest.raises(ValueError, match=r"x0, and what fun returns, .* part 1 .from 0. is unlike the first"):
        minimize_many(bowl, parts())


def test_a_part_without_bounds_has_those_of_the_call():
    found = minimize_many(bowl, iter([(ZEROS, (), None), (ZEROS, (), (2.0, 3.0))]), bounds=(1.0, None))
    assert_array_equal(found.x, np.repeat([[1.0, 1.0], [2.0, 2.0]], 20, axis=0))


def test_an_iterator_refuses_a_folder_of_something_else(tmp_path):
    minimize_many(bowl, ZEROS, resume=tmp_path)
    with pytest.raises(ValueError, match="more than an iterator's parts"):
        minimize_many(bowl, iter([(ZEROS, ())]), resume=tmp_path)


def test_an_objective_that_closes_over_what_vmap_maps():
    found = jax.vmap(lambda a: minimize_many(lambda x: jnp.sum((x - a) ** 2), ZEROS).x[0])(jnp.arange(3.0))
    assert_allclose(found, [[0, 0], [1, 1], [2, 2]], atol=1e-7)


def test_in_axes_for_args_that_are_no_tuple():
    args, axes = {"c": ZEROS + 1, "t": np.float64(2)}, {"c": 0, "t": None}
    found = minimize_many(lambda x, a: jnp.sum((x - a["c"] * a["t"]) ** 2), ZEROS, args, in_axes=(0, axes, None))
    assert_allclose(found.x, 2, atol=1e-7)


def test_a_mesh_compiles_once():
    traces = []

    def traced(x):
        traces.append(1)
        return jnp.sum(x**2)

    for _ in range(3):
        minimize_many(traced, ZEROS, mesh=jax.make_mesh((1,), ("fits",)))
    assert len(traces) == 1
