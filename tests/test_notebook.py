"""The notebook runs from its first cell to its last, is written as the rest of the project is, and stays small."""

import json
import shlex

import pytest

from tests.conftest import ONE_THREAD, ROOT, TINY
from tests.test_english import AVOIDED, comments

TOUR = ROOT / "examples" / "tour.ipynb"


def run(folder, monkeypatch, **environment):
    """Run a copy of the notebook in a folder, in a kernel of its own; the cells with their outputs."""
    nbclient = pytest.importorskip("nbclient", reason="no nbclient: pip install -e '.[test]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="no ipykernel: pip install -e '.[test]'")
    for name, value in (ONE_THREAD | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    tour = nbformat.read(TOUR, as_version=4)
    client = nbclient.NotebookClient(
        tour, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    return client.execute().cells


def pictures(cells):
    """The number of pictures that cells show."""
    kinds = [kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    return sum(kind in ("image/png", "image/webp") for kind in kinds)


@pytest.mark.filterwarnings("ignore")  # those of the packages that run notebooks
def test_every_cell_runs_with_a_tiny_network(tmp_path, monkeypatch):
    cells = run(tmp_path, monkeypatch, STEPS="2", SETTINGS=shlex.join(TINY))
    assert pictures(cells) == pictures(json.loads(TOUR.read_text())["cells"])
    assert (tmp_path / "runs" / "tour" / "zoom.webp").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_tour_runs_as_it_is(tmp_path, monkeypatch):
    assert pictures(run(tmp_path, monkeypatch)) == 4


def test_its_words_and_its_size():
    cells = json.loads(TOUR.read_text())["cells"]
    assert pictures(cells) == 4
    assert TOUR.stat().st_size < 400_000
    for cell in cells:
        text = "".join(cell["source"])
        prose = text if cell["cell_type"] == "markdown" else "\n".join(line for _, line in comments(text))
        assert AVOIDED.findall(prose) == []
