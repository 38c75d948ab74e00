"""Imports run one way, and importing the package is silent and light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "infdiff"

# What each part may import, besides itself. Leaves import nothing of the package.
ALLOWED = {
    "errors": set(),
    "command_names": set(),
    "shipped": set(),
    "precision": set(),
    "processes": {"errors"},
    "cuda_graphs": set(),
    "coordinates": set(),
    "seeding": set(),
    "images": {"coordinates", "errors", "files", "processes"},
    "memory": set(),
    "server": {"errors"},
    "files": {"errors"},
    "tensors": {"errors", "files"},
    "tables": set(),
    "trackers": {"errors", "files"},
    "cli": {"command_names", "errors", "memory", "coordinates", "processes"},
    "points": {"coordinates", "ops"},
    "labelled": {"points"},
    "ops": {"errors", "files", "coordinates"},
    "nn": {"coordinates", "ops", "points", "precision", "processes"},
    "models": {"coordinates", "memory", "nn", "ops", "points", "precision", "processes"},
    "diffusion": {"coordinates", "precision"},
    "data": {
        "errors",
        "coordinates",
        "diffusion",
        "seeding",
        "images",
        "files",
        "labelled",
        "points",
        "processes",
        "tensors",
    },
    "training": {
        "precision",
        "processes",
        "cuda_graphs",
        "schema",
        "trackers",
        "errors",
        "files",
        "tensors",
        "coordinates",
        "seeding",
        "images",
        "labelled",
        "points",
        "diffusion",
    },
    "pipelines": {"coordinates", "cuda_graphs", "seeding", "images", "points", "diffusion"},
    "metrics": {"errors", "coordinates"},
    "doctor": {"cli", "errors", "files", "coordinates", "ops", "points"},
    "schema": {"coordinates"},
    "config": {"schema", "errors", "shipped", "data", "diffusion", "nn", "ops", "points", "training"},
    "runs": {
        "cli",
        "config",
        "coordinates",
        "cuda_graphs",
        "data",
        "diffusion",
        "errors",
        "files",
        "images",
        "methods",
        "metrics",
        "models",
        "pipelines",
        "precision",
        "processes",
        "seeding",
        "tensors",
        "training",
    },
    "methods": {
        "config",
        "coordinates",
        "cuda_graphs",
        "diffusion",
        "errors",
        "memory",
        "metrics",
        "models",
        "ops",
        "pipelines",
        "precision",
        "seeding",
        "training",
    },
    "benchmark": {
        "config",
        "coordinates",
        "cuda_graphs",
        "data",
        "errors",
        "files",
        "memory",
        "methods",
        "ops",
        "points",
        "precision",
        "runs",
        "tables",
        "training",
    },
    "evaluation": {
        "__version__",
        "config",
        "coordinates",
        "data",
        "diffusion",
        "errors",
        "files",
        "images",
        "memory",
        "methods",
        "metrics",
        "processes",
        "runs",
        "seeding",
        "tables",
        "tensors",
        "training",
    },
    "viewer": {
        "__version__",
        "cli",
        "coordinates",
        "diffusion",
        "errors",
        "files",
        "images",
        "methods",
        "metrics",
        "pipelines",
        "processes",
        "runs",
        "seeding",
        "server",
    },
    "watch": {"config", "runs", "server", "training"},
    "gpu_check": {"config", "errors", "files", "ops", "points", "runs", "tables"},
    "ablation": {"benchmark", "config", "errors", "files", "methods", "runs"},
    "commands": {
        "__version__",
        "ablation",
        "benchmark",
        "cli",
        "command_names",
        "config",
        "coordinates",
        "data",
        "doctor",
        "errors",
        "evaluation",
        "files",
        "gpu_check",
        "images",
        "methods",
        "metrics",
        "ops",
        "pipelines",
        "processes",
        "runs",
        "server",
        "trackers",
        "training",
        "viewer",
        "watch",
    },
    "__main__": {"commands"},
    "__init__": {"runs"},  # inside `load` alone: importing stays light
}


def part_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(source):
    """Parts of the package that a module's source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"infdiff.{a.name}" for a in node.names] if node.module == "infdiff" else [node.module]
        found |= {part_of(name) for name in names if name.split(".")[0] == "infdiff"}
    return found


def violations(modules):
    """(module, part) for every import that the table does not allow."""
    wrong = []
    for name, source in modules.items():
        part = part_of(name)
        wrong += [(name, other) for other in imported(source) - ALLOWED[part] - {part}]
    return wrong


def test_the_table_has_no_circle():
    floors, left = [], dict(ALLOWED)
    while left:
        floor = {part for part, allowed in left.items() if allowed.isdisjoint(left)}
        assert floor, f"a circle among {', '.join(sorted(left))}"
        floors.append(floor)
        left = {part: allowed for part, allowed in left.items() if part not in floor}
    assert "commands" in floors[-1] | floors[-2]


def test_imports_run_one_way():
    modules = {
        ".".join(("infdiff", *p.relative_to(PACKAGE).with_suffix("").parts)): p.read_text()
        for p in PACKAGE.rglob("*.py")
    }
    assert len(modules) > 30
    assert violations(modules) == []


@pytest.mark.parametrize(
    "source", ["import infdiff.models", "from infdiff.models import SparseUNet", "from infdiff import models"]
)
def test_the_walk_finds_a_wrong_import(source):
    assert violations({"infdiff.diffusion.bad": source}) == [("infdiff.diffusion.bad", "models")]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_is_silent_and_loads_nothing_optional():
    result = run("import infdiff, sys; print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'matplotlib'}))")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


OPTIONAL = [
    "torchsparse",
    "cuda",
    "torch_fidelity",
    "wandb",
    "tensorboard",
    "trackio",
    "huggingface_hub",
    "scipy",
    "torchvision",
]


def test_everything_works_without_optional_packages():
    modules = ["commands.evaluate", "commands.train", "runs.library", "data.prepare", "images.sample_folder"]
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in OPTIONAL)
    everything = "; ".join(f"import infdiff.{name}" for name in modules)
    result = run(f"import sys; {blocked}; {everything}")
    assert result.returncode == 0, result.stderr


def test_blocking_a_package_would_be_noticed():
    assert run("import sys; sys.modules['lmdb'] = None; import infdiff.runs.trained").returncode != 0
