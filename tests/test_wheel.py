"""The wheel is complete: installed away from the checkout, it trains and samples with its own files."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from infdiff.command_names import COMMANDS
from tests.conftest import ONE_THREAD, ROOT, TINY, pixels

SOURCES = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "infdiff", "configs", "cuda"]


def finished(command, **options):
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, checkout / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    finished([*pip, "wheel", *offline, "--wheel-dir", folder, checkout])
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    with_pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    finished([*with_pip, "--target", folder, wheel])
    return folder


def test_every_file_of_the_package_is_inside(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "infdiff").rglob("*.py")}
    for folder, pattern in (("configs", "*.yaml"), ("cuda", "*.cu"), ("cuda", "*.cuh")):
        found = {f"infdiff/{folder}/{path.name}" for path in (ROOT / folder).glob(pattern)}
        assert found
        wanted |= found
    wanted |= {"infdiff/py.typed", "infdiff/evaluation/report.html"}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "infdiff" / "viewer" / "static").iterdir()}
    assert "infdiff/viewer/static/openseadragon-LICENSE.txt" in pages
    wanted |= pages
    wanted |= {f"infdiff/data/demo_faces/{name}" for name in ("faces_128.lmdb", "LICENSE.txt")}
    assert wanted <= inside
    assert not [name for name in inside if name.startswith(("tests/", "scripts/", "configs/", "cuda/"))]


def test_it_trains_and_samples_away_from_the_checkout(installed, tmp_path):
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(installed)}

    def infdiff(*arguments):
        return finished([installed / "bin" / "infdiff", *arguments], cwd=tmp_path, env=environment)

    overview = infdiff("--help")
    assert all(f"  {name} " in overview for name in COMMANDS)
    config = ["--config", "configs/demo.yaml"]
    infdiff("train", *config, "--steps", 2, "--out", "runs/x", "--device", "cpu", *TINY)
    infdiff("sample", "--res", "12x20", "--out", "images", "--device", "cpu")
    assert pixels(tmp_path / "images" / "00000.png").shape == (12, 20, 3)
    code = "from infdiff import shipped; from infdiff.ops.gpu import nvrtc; print(shipped.__file__, nvrtc.SOURCES)"
    for path in finished([sys.executable, "-c", code], cwd=tmp_path, env=environment).split():
        assert path.startswith(str(installed))
