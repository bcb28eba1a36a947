"""The pages in docs/ build without a warning, and the reference has every public name with its arguments."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlbfgsb

ROOT = Path(__file__).parent.parent
FUNCTIONS = [name for name in jaxlbfgsb.__all__ if inspect.isfunction(getattr(jaxlbfgsb, name))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return folder


@pytest.mark.parametrize("name", jaxlbfgsb.__all__)
def test_public_name_is_in_the_reference(site, name):
    assert f'id="jaxlbfgsb.{name}"' in (site / "reference" / "index.html").read_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_is_documented(name):
    function = getattr(jaxlbfgsb, name)
    section = re.search(r"\nArgs:\n(.*?)(\n\n|$)", inspect.getdoc(function), re.DOTALL)[1]
    documented = [each for row in re.findall(r"^  (\w[\w, ]*):", section, re.MULTILINE) for each in row.split(", ")]
    assert sorted(documented) == sorted(inspect.signature(function).parameters)
