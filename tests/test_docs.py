"""Pages name files that exist, the example runs, and every row of the papers is a configuration that works."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from torch.distributed.run import get_args_parser

from infdiff.config.files import changed, load_config
from infdiff.methods.checks import check_config
from infdiff.methods.method import build_modules

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Files are named from the root or from the package, in backquotes; links from the page's own folder. A run's own files
# are not the package's.
OF_A_RUN = {"config.yaml"}
NAMED = re.compile(r"`([\w./]+\.(?:py|cu|cuh|yaml))`")
LINKED = re.compile(r"\]\(([^)#:]+)\)")


def missing(page):
    """Names and links of a page that lead nowhere. A bare file name may be anywhere in the package."""
    text = page.read_text()
    lost = [name for name in NAMED.findall(text) if name not in OF_A_RUN and not exists(name)]
    return lost + [link for link in LINKED.findall(text) if not (page.parent / link).exists()]


def exists(name):
    if "/" in name:
        return any((folder / name).exists() for folder in (ROOT, ROOT / "infdiff"))
    return any(ROOT.glob(f"infdiff/**/{name}")) or any(
        (ROOT / folder / name).exists() for folder in ("cuda", "configs")
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    assert missing(page) == []


def test_a_name_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`infdiff/nowhere.py` and [a page](other.md), `points.py`")
    assert missing(page) == ["infdiff/nowhere.py", "other.md"]


# A line of a page or of a command's help, up to two spaces and a comment; the options of commands may be cut short.
CALLED = re.compile(r"^ *torchrun (.*?)(?:  +#.*| #.*)?$", re.MULTILINE)


def test_torchrun_understands_every_line_that_calls_it():
    """With Python 3.11 it takes the options --run and --n of a command for its own, unless -- is before the command."""
    files = [*PAGES, *sorted((ROOT / "infdiff" / "commands").glob("*.py"))]
    calls = [line for file in files for line in CALLED.findall(file.read_text())]
    assert len(calls) >= 7
    for call in calls:
        given = get_args_parser().parse_args(shlex.split(call))
        assert (given.module, given.training_script) == (True, "infdiff")
        assert given.training_script_args == shlex.split(call.partition("infdiff ")[2])


def test_the_example_trains(monkeypatch, capsys):
    monkeypatch.setenv("STEPS", "2")
    runpy.run_path(str(ROOT / "examples" / "train_in_python.py"), run_name="__main__")
    assert capsys.readouterr().out.count("loss") == 1


# A configuration's name in a cell of a table, and settings after it.
IN_A_CELL = re.compile(r"`((?:celebahq|ffhq|church|dfu|unet|fno)_\w+)((?: [^`]*)?)`")


def rows_of_reproduction():
    text = (ROOT / "docs" / "reproduce.md").read_text()
    cells = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| ") and line.count(" | ") >= 3]
    return sorted({(name, settings.strip()) for cell in cells for name, settings in IN_A_CELL.findall(cell)})


@pytest.mark.parametrize(("name", "settings"), rows_of_reproduction(), ids=str)
def test_every_row_of_the_papers_can_be_trained(name, settings):
    config = load_config(name, shlex.split(settings))
    if name.startswith("dfu_finetune"):
        config = changed(config, {"finetune.run": ""})
    check_config(config)
    with torch.device("meta"):
        assert build_modules(config)


def test_rows_of_the_papers_are_found():
    rows = rows_of_reproduction()
    assert len(rows) >= 25
    assert ("ffhq_128", "train.subsample=8") in rows
