"""Sampling with recorded evaluations of the network: the same images, and few recordings."""

import pytest
import torch

from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.trained import TrainedModel
from tests.recording import CPURecorder

CPU = torch.device("cpu")


def drawn(run, sizes, seed=0, **options):
    return [
        run.sample(range(2), size, seed=seed, options=SamplingOptions.of(run.method, size, **options), rounded=False)
        for size in sizes
    ]


@pytest.mark.parametrize("name", ["points_run", "edm_run"])
def test_recorded_evaluations_give_the_same_images(name, request, monkeypatch):
    folder, recorder = request.getfixturevalue(name), CPURecorder(CPU)
    sizes = [(16, 16), (24, 16), (16, 16), (16, 16)]
    plain = TrainedModel.load(folder, CPU)
    expected = [drawn(plain, sizes, seed, steps=5) for seed in (0, 1)]
    assert plain.calls is None
    monkeypatch.setattr("infdiff.runs.trained.recorder_for", lambda device: recorder)
    recorded = TrainedModel.load(folder, CPU)
    for seed in (0, 1):
        for image, other in zip(drawn(recorded, sizes, seed, steps=5), expected[seed], strict=True):
            # To rounding: recorded evaluations work on other memory than eager ones.
            torch.testing.assert_close(image, other, rtol=0, atol=1e-5)
    assert recorder.recordings == 2, "one for each size"
    evaluations = 4 * 2 * SamplingOptions.of(plain.method, steps=5).evaluations(plain.method)
    assert recorder.replays == evaluations - 2 * 2


def test_the_sizes_drawn_last_are_kept(points_run, monkeypatch):
    recorder = CPURecorder(CPU)
    monkeypatch.setattr("infdiff.runs.trained.recorder_for", lambda device: recorder)
    run = TrainedModel.load(points_run, CPU)
    drawn(run, [(16, 16), (16, 20), (16, 24), (16, 16), (16, 28)])
    assert recorder.recordings == 4
    drawn(run, [(16, 16), (16, 24), (16, 28)])
    assert recorder.recordings == 4
    drawn(run, [(16, 20)])
    assert recorder.recordings == 5


def test_sampling_goes_on_where_recording_fails(points_run, monkeypatch):
    class Failing(CPURecorder):
        def record(self, call):
            raise RuntimeError("no memory for it")

    expected = drawn(TrainedModel.load(points_run, CPU), [(16, 16)], steps=5)
    monkeypatch.setattr("infdiff.runs.trained.recorder_for", Failing)
    run = TrainedModel.load(points_run, CPU)
    assert torch.equal(drawn(run, [(16, 16)], steps=5)[0], expected[0])
    assert run.calls.recorder is None


def test_in_bfloat16_a_copy_samples_and_the_network_stays(points_run, monkeypatch):
    """On a CPU, as on CUDA."""
    monkeypatch.setattr("infdiff.training.settings.OptimiserSettings.samples_in_bfloat16", lambda *_: True)
    run = TrainedModel.load(points_run, CPU)
    images = drawn(run, [(16, 16)], steps=3)[0]
    tiled = drawn(run, [(16, 16)], steps=3, tile=8)[0]
    monkeypatch.undo()
    exact = drawn(TrainedModel.load(points_run, CPU), [(16, 16)], steps=3)[0]
    assert all(value.dtype == torch.float32 for value in run.denoiser.state_dict().values())
    assert 0 < (images - exact).abs().max() < 0.1
    assert (images - tiled).abs().max() < 0.1
