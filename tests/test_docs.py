"""README.md and docs/: every Python line runs, one namespace a page; links lead somewhere; named tests exist."""

import re
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ALGORITHM = (ROOT / "docs" / "algorithm.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PIN = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def code_of(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def anchors_of(page):
    """The anchors of its headings, made as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(link, page):
    path, _, anchor = link.partition("#")
    to = page.parent / path if path else page
    return to.exists() and (not anchor or anchor in anchors_of(to))


@cache
def names_after(page):
    """What the code of a page leaves behind."""
    names = {}
    exec("\n".join(code_of(page.read_text())), names)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page, capsys):
    names_after(page)


def test_the_gradient_through_the_folds_tunes_the_penalty_and_the_bound(capsys):
    names = names_after(ROOT / "docs" / "derivatives.md")
    unseen, start, tuned = names["unseen"], names["start"], names["tuned"]
    assert tuned.fun < unseen(start) - 1e-4
    for name, found in jax.grad(unseen)(start).items():
        above, below = ({**start, name: start[name] + h} for h in (1e-3, -1e-3))
        assert_allclose(found, (unseen(above) - unseen(below)) / 2e-3, rtol=2e-5)
        assert abs(found) > 1e-4


def test_leaving_a_point_out_is_foretold_as_well_as_the_docs_say(capsys):
    names = names_after(ROOT / "docs" / "derivatives.md")
    foretold, found = names["foretold"], names["found"]
    error = np.abs(foretold - found).max(1) / np.abs(found).max(1)
    assert found.shape == (8, 250)
    assert error.min().round(2) == 0.03
    assert error.max().round(2) == 0.06


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not leads_somewhere(link, page)] == []


def test_readme_has_five_examples_of_at_most_six_lines():
    examples = code_of(README.split("## Examples\n")[1].split("\n## ")[0])
    lines = [len([line for line in example.splitlines() if line.strip()]) for example in examples]
    assert len(lines) == 5
    assert max(lines) <= 6


def test_each_row_of_the_algorithm_names_its_test():
    notation, departures = ALGORITHM.split("## Notation and files")[1], ALGORITHM.split("## Departures")[1]
    rows = notation.split("\n\n")[1].splitlines()[2:] + re.split(r"^(?=\d+\. )", departures, flags=re.MULTILINE)[1:]
    assert [row for row in rows if not PIN.search(row)] == []


def test_tests_that_the_algorithm_names_exist():
    pins = PIN.findall(ALGORITHM)
    assert [pin for pin in pins if f"\ndef {pin[1]}(" not in (ROOT / "tests" / pin[0]).read_text()] == []
