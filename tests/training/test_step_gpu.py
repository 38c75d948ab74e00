"""What only a GPU can show of a training step and of sampling: graphs, compilation, no wait for the host."""

import pytest
import torch

from infdiff.config.files import changed, load_config
from infdiff.cuda_graphs import force_eager
from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.data import build_data
from infdiff.runs.trained import TrainedModel
from infdiff.runs.training import build_trainer
from tests.conftest import TINY, TINY_GRID

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]
CUDA = torch.device("cuda")
RUNS = {
    "points": [*TINY, "train.subsample={1: 1, 4: 1}", "train.accumulate=2", "train.warmup=3", "data.cache=device"],
    "grids": [*TINY_GRID, "data.resolutions={8: 1, 16: 1}", "data.augment=0.2", "data.cache=device"],
}


def trainer_of(name, folder, **settings):
    config = changed(load_config("demo", RUNS[name]), {f"train.{key}": value for key, value in settings.items()})
    return build_trainer(config, build_data(config, CUDA), folder, CUDA)


def train(trainer, steps=12):
    batches = trainer.batches(0)
    return torch.stack([trainer.train_step(batches).scalars for _ in range(steps)])


@pytest.mark.parametrize("name", RUNS)
def test_replayed_steps_are_the_eager_ones(name, tmp_path):
    """To rounding: cuDNN may choose other algorithms for its convolutions, and its gradients may add in any order."""
    eager = train(trainer_of(name, tmp_path, graph=False, compile=False, bfloat16=False))
    trainer = trainer_of(name, tmp_path, graph=True, compile=False, bfloat16=False)
    torch.testing.assert_close(train(trainer), eager, rtol=2e-3, atol=2e-3)
    assert trainer.change.graphs.recorder is not None
    assert trainer.change.notes == []


@pytest.mark.parametrize("name", RUNS)
def test_compiled_steps_learn_what_eager_ones_do(name, tmp_path):
    """Without dropout, whose numbers are drawn in another order."""
    trainers = [trainer_of(name, tmp_path, graph=on, compile=on, bfloat16=False) for on in (False, True)]
    for trainer in trainers:
        for module in trainer.modules.values():
            for layer in module.modules():
                if hasattr(layer, "dropout"):
                    layer.dropout = 0.0
    eager, compiled = map(train, trainers)
    torch.testing.assert_close(compiled, eager, rtol=1e-2, atol=1e-2)
    assert trainers[1].change.compiled
    assert trainers[1].change.notes == []


@pytest.mark.parametrize("graph", [False, "auto"])
@pytest.mark.parametrize("name", RUNS)
def test_no_step_waits_for_the_host(name, graph, tmp_path):
    trainer = trainer_of(name, tmp_path, graph=graph, compile=False)
    batches = trainer.batches(0)
    for _ in range(24):  # every kind of step has been recorded
        trainer.train_step(batches)
    given = [[next(batches) for _ in range(trainer.settings.accumulate)] for _ in range(4)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, some in enumerate(given, start=24):
            trainer.change(step, some, ())
            trainer.ema.update(trainer.modules, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_bad_step_is_skipped_when_replayed(tmp_path):
    trainer = trainer_of("points", tmp_path, graph=True, compile=False)
    train(trainer)
    with torch.no_grad():
        trainer.parameters[0].fill_(torch.nan)
    before = [p.clone() for p in trainer.parameters[1:]]
    assert train(trainer, 2)[:, 2:].tolist() == [[1, 1], [1, 2]]
    assert all(torch.equal(p, old) for p, old in zip(trainer.parameters[1:], before, strict=True))


@pytest.mark.parametrize("name", ["points_run", "edm_run"])
def test_recorded_sampling_in_bfloat16_is_the_eager_one(name, request):
    run = TrainedModel.load(request.getfixturevalue(name), CUDA)
    options = SamplingOptions.of(run.method, (24, 16), steps=5)
    assert {p.dtype for p in run.sampled_denoiser.parameters()} == {torch.bfloat16, torch.float32}

    def draw(model):
        return model.sample(range(2), (24, 16), seed=3, options=options, rounded=False)

    first, again = draw(run), draw(run)
    assert run.calls.recorder is not None
    with force_eager():
        eager = draw(run)
    for images in (first, again):
        torch.testing.assert_close(images, eager, rtol=0, atol=2e-2)
    assert first.isfinite().all()
