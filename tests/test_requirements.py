"""What the package asks for beside a torch that has CUDA can be met: pip finds versions for a machine with a GPU."""

import json
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# A GPU machine's Linux: every name under which wheels for it are filed.
PLATFORMS = [*(f"manylinux_2_{n}_x86_64" for n in range(5, 29)), "manylinux2014_x86_64", "manylinux1_x86_64"]


def resolve(folder, *requirements):
    """name -> version that pip would install on Linux with Python 3.12. Skips where no registry answers."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", report]
    command += ["--target", folder / "target", "--only-binary=:all:", "--python-version", "3.12"]
    command += [part for name in PLATFORMS for part in ("--platform", name)]
    done = subprocess.run([*map(str, command), *requirements], capture_output=True, text=True, timeout=900)
    if done.returncode and "ResolutionImpossible" not in done.stderr:
        pytest.skip(f"the registry does not have them: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())["install"]
    return {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in found}


@pytest.mark.long
@pytest.mark.parametrize(
    ("torch", "extra", "compiler", "major"),
    [
        (["--constraint", str(ROOT / "constraints.txt"), "torch"], "cuda", "nvidia-cuda-nvrtc", "13"),
        (["torch==2.10.0"], "cuda12", "nvidia-cuda-nvrtc-cu12", "12"),
    ],
    ids=["the pinned torch", "torch 2.10"],
)
def test_the_extra_goes_with_a_torch_that_has_cuda(torch, extra, compiler, major, tmp_path):
    found = resolve(tmp_path, *torch, *EXTRAS[extra])
    if not any(name.startswith("nvidia-cudnn") for name in found):
        pytest.skip("this registry's torch has no CUDA")
    assert found[compiler].split(".")[0] == major
    assert found["cuda-bindings"].split(".")[0] == major
    assert int(found["cuda-core"].split(".")[0]) >= 1
