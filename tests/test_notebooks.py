"""Every notebook in notebooks/ runs from top to bottom, in a kernel and a copy of the folder of its own."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
SLOW = {"04_differentiating_the_fit.ipynb", "07_large_scale.ipynb", "08_gaussian_process.ipynb"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_notebook_runs(name, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    folder = shutil.copytree(FOLDER, tmp_path / "notebooks")
    notebook = nbformat.read(folder / name, as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_kept_as_it_ran(name):
    code = [cell for cell in nbformat.read(FOLDER / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or "Warning" in output.get("text", "")]


@pytest.mark.parametrize("name", NAMES)
def test_links_of_notebook_resolve(name):
    text = "\n".join(cell.source for cell in nbformat.read(FOLDER / name, as_version=4).cells)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (FOLDER / link).exists()] == []
