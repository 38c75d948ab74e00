"""torch.compile: its cache, what it leaves the same, and going on where it does not work."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from infdiff.config.files import load_config
from infdiff.errors import UserError
from infdiff.methods.method import method_of
from infdiff.points import KINDS, draw_points, place_points
from infdiff.training import compiled
from infdiff.training.settings import OptimiserSettings
from tests.conftest import ONE_THREAD, TINY
from tests.training.test_trainer import SETTINGS, make

CPU = torch.device("cpu")
# What torch.compile itself does when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(8, 8), (24, 32)])
def test_points_are_placed_in_one_graph(kind, size):
    place = torch.compile(place_points, fullgraph=True, backend="aot_eager", dynamic=False)
    drawn = [draw_points(2, 20, size, torch.Generator().manual_seed(0), kind, route) for route in (None, place)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("target", ["mollified_noise", "v", "noise", "image"])
def test_states_and_targets_are_one_graph(target, generator):
    config = load_config("demo", [*TINY, "model.sharp=false", f"diffusion.target={target}"])
    objective = method_of(config).objective()
    arguments = (torch.tensor([3, 700]), *(torch.randn(2, 64, 3, generator=generator) for _ in range(4)))
    expected = objective.asked(*arguments)
    asked = torch.compile(objective.asked, fullgraph=True, backend="aot_eager", dynamic=False)
    for own, other in zip(asked(*arguments), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


PROGRAM = """
import torch
from infdiff.training.compiled import why_not_compiled
from torch._dynamo.utils import counters
assert why_not_compiled(torch.device("cpu")) is None
print(counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"])
"""


@pytest.mark.long
def test_a_restart_finds_compiled_code_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        found.append(int(done.stdout))
    assert found[0] == 0
    assert found[1] > 0
    assert any((tmp_path / "inductor").iterdir())


def test_a_cache_that_cannot_be_written_to_is_left_to_pytorch(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled.keep_compiled_code()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_by_itself_it_is_on_where_the_device_is_cuda():
    cuda = torch.device("cuda")
    assert [OptimiserSettings(compile=c).compiles(cuda) for c in ("auto", True, False)] == [True, True, False]
    assert [OptimiserSettings(compile=c).compiles(CPU) for c in ("auto", True, False)] == [False, True, False]
    assert [OptimiserSettings(graph=g).records(cuda) for g in ("auto", True, False)] == [True, True, False]
    assert [OptimiserSettings(graph=g).records(CPU) for g in ("auto", True, False)] == [False, True, False]


def steps_of(trainer, count=4):
    batches = trainer.batches(0)
    return torch.stack([trainer.train_step(batches).scalars for _ in range(count)])


@pytest.fixture
def compiler_that_fails(monkeypatch):
    """It takes a network and fails when this is first called."""

    def fail(*arguments, **named):
        raise BackendCompilerFailed(lambda: None, OSError("no C compiler\nof any kind"), None)

    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: setattr(module, "_compiled_call_impl", fail))
    monkeypatch.setattr("infdiff.training.settings.why_not_compiled", lambda device: None)
    monkeypatch.setattr("infdiff.training.step.why_not_compiled", lambda device: None)


def test_a_network_that_cannot_be_compiled_is_trained_without(tmp_path, compiler_that_fails, monkeypatch):
    expected = steps_of(make(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(OptimiserSettings, "compiles", lambda *_: True)
        trainer = make(tmp_path)
    assert torch.equal(steps_of(trainer), expected)
    assert trainer.change.notes == ["train.compile: steps go on without torch.compile, which failed: no C compiler"]
    with pytest.raises(UserError, match=r"train\.compile: a network cannot be compiled: no C compiler$"):
        steps_of(make(tmp_path, SETTINGS.changed(compile=True)))


def test_where_nothing_can_be_compiled_a_line_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("infdiff.training.settings.why_not_compiled", lambda device: "no C++ compiler")
    monkeypatch.setattr("infdiff.training.step.why_not_compiled", lambda device: "no C++ compiler")
    with pytest.raises(UserError, match=r"train\.compile: torch\.compile does not work on cpu: no C\+\+ compiler$"):
        make(tmp_path, SETTINGS.changed(compile=True))
    monkeypatch.setattr(OptimiserSettings, "compiles", lambda *_: True)
    (note,) = make(tmp_path).change.notes
    assert note == "train.compile: steps run without torch.compile, which does not work here: no C++ compiler"
