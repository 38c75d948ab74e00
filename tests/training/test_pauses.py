"""Validation, evaluation and previews: what they show, the time that they take, and that no weight depends on it."""

import io
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn
from tqdm import tqdm

from infdiff.training import checkpoint
from infdiff.training.log import read_log
from infdiff.training.pauses import Pauses
from infdiff.training.settings import OptimiserSettings
from infdiff.training.trainer import Trainer

SETTINGS = OptimiserSettings(steps=40, batch_size=4, learning_rate=1e-2, log_every=1000, checkpoint_every=20)
DATA = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


class Preview:
    """Says that it is worth `guess` steps for each image, and takes `seconds` for each."""

    most = 8

    def __init__(self, clock, seconds=1.0, guess=1.0):
        self.clock, self.seconds, self.guess = clock, seconds, guess
        self.made = []  # (step, images, time when done)

    def worth(self, count):
        return count * self.guess

    def pictures(self, step):
        return [Path("there.png")]

    def __call__(self, step, modules, count, on_progress):
        torch.rand(5)  # no step of training may notice
        for done in range(5):
            on_progress(done, 5)
            self.clock.spend(count * self.seconds / 5)
        self.made.append((step, count, self.clock.now))


class Timed:
    """A list of validation batches, each of which takes seconds."""

    def __init__(self, batches, clock, seconds):
        self.batches, self.clock, self.seconds = batches, clock, seconds

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.clock.spend(self.seconds)
            yield batch


def make(folder, clock, settings=SETTINGS, preview=None, step=1.0, validating=0.0, **options):
    """A trainer whose steps take a second each."""

    def objective(modules, batch, generator):
        if modules["net"].training:
            clock.spend(step)
        noise = torch.randn(batch.shape, generator=generator)
        return (modules["net"](batch + noise) - batch).square().mean()

    def batches(step):
        for start in itertools.count(4 * step, 4):
            yield DATA[torch.arange(start, start + 4) % 64]

    torch.manual_seed(0)
    return Trainer(
        modules={"net": nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.Linear(16, 6))},
        objective=objective,
        batches=batches,
        validation=lambda: Timed([DATA[:8], DATA[8:12]], clock, validating),
        settings=settings,
        folder=folder,
        device=torch.device("cpu"),
        seed=0,
        preview=preview,
        clock=clock,
        **options,
    )


def left(folder, step):
    groups = ("net", "ema_net", "optimizer")
    return {g: checkpoint.load_tensors(folder / "checkpoints", step, g) for g in groups}


def assert_same(a, b):
    for group, tensors in a.items():
        for key, value in tensors.items():
            assert torch.equal(value, b[group][key]), (group, key)


def test_without_a_terminal_each_pause_is_a_line(tmp_path, capsys):
    clock = Clock()

    def evaluate(modules, on_progress):
        for done in range(4):
            on_progress(done, 4)
            clock.spend(6)
        return {"broken": 0}

    make(tmp_path, clock, SETTINGS.changed(steps=200), Preview(clock), evaluate=evaluate, eval_every=150).run()
    lines = capsys.readouterr().out.splitlines()
    validating = [f"step {step}/200  validating 0/2" for step in (20, 40, 60, 80, 100, 120, 140)]
    # Every ten seconds, at most, a pause says how far it is: here after two parts of six seconds.
    evaluating = [f"step 150/200  evaluating samples: {done}/4 network evaluations" for done in (0, 2)]
    assert lines[:7] == validating
    assert lines[7:10] == ["step 150/200  validating 0/2", *evaluating]
    # The evaluation took 24 seconds, more than a tenth of 150: nothing is left for the preview, but a small one.
    assert lines[-1] == "step 200/200  preview: 0/5 network evaluations"


def test_the_progress_bar_says_what_is_done(tmp_path, monkeypatch):
    clock, shown = Clock(), []
    monkeypatch.setattr("tqdm.std.tqdm.set_description_str", lambda self, text, refresh=True: shown.append(text))
    make(tmp_path, clock, SETTINGS.changed(steps=10, checkpoint_every=10), Preview(clock, 0.1), step=10.0).run()
    assert shown == [
        *("validating", "validating 0/2", "validating 1/2", ""),
        *("plotting losses", ""),
        *("preview:", *(f"preview: {done}/5 network evaluations" for done in range(5)), ""),
    ]


def test_with_a_progress_bar_no_line_is_printed(capsys):
    screen = io.StringIO()
    bar = tqdm(total=10, file=screen, mininterval=0)
    with bar, Pauses(bar, 0, 10, Clock()).show(3, "validating") as on_progress:
        on_progress(3, 8)
    assert "validating 3/8:" in screen.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("every", [1, 5, 30])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 9.0])
def test_previews_take_at_most_a_tenth_of_the_time(tmp_path, every, seconds):
    """However often they are due, and however long they take; but the first one, whose length was a guess."""
    clock = Clock()
    preview = Preview(clock, seconds)
    settings = SETTINGS.changed(steps=1000, checkpoint_every=500)
    make(tmp_path, clock, settings, preview, validating=0.5, sample_every=every).run()
    # Validation takes a second in every five hundred.
    spent = [
        (sum(count for _, count, _ in preview.made[: n + 1]) * seconds + step // 500, now)
        for n, (step, _, now) in enumerate(preview.made)
    ]
    assert all(seconds_of_pauses <= now / 10 + 1e-6 for seconds_of_pauses, now in spent[1:])
    assert len(preview.made) >= 2
    total = clock.now - 1000
    assert total <= clock.now / 10 + 1e-6
    if every < 30 and seconds <= 1:
        assert total >= clock.now / 10 - 8 * seconds - 1, "and nearly all of that is used"


def test_a_preview_that_is_put_off_is_drawn_when_it_fits(tmp_path, capsys):
    """Eight seconds of preview fit after 72 seconds of training."""
    clock = Clock()
    preview = Preview(clock)
    make(tmp_path, clock, SETTINGS.changed(steps=100, checkpoint_every=100), preview, sample_every=50).run()
    assert preview.made[0][:2] == (72, 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 50/100  preview put off: 8 s are more than a tenth of the time so far"
    assert lines[1] == "step 72/100  preview: 0/5 network evaluations"


@pytest.mark.parametrize(
    ("steps", "a_step", "count"),
    [
        (72, 1.0, 8),  # 8 s of 80
        (71, 1.0, 4),
        (9, 1.0, 1),
        (4, 9.0, 1),  # 9 s for an image: more than a tenth of 36 s, but not long
        (4, 11.0, 0),
    ],
)
def test_the_last_preview_has_as_many_images_as_there_is_time_for(tmp_path, capsys, steps, a_step, count):
    clock = Clock()
    preview = Preview(clock, a_step)
    make(tmp_path, clock, SETTINGS.changed(steps=steps), preview, step=a_step).run()
    assert [images for _, images, _ in preview.made] == ([count] if count else [])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(
        "preview: 0/5 network evaluations" if count else "no preview: 11 s are more than a tenth of the time so far"
    )
    state = checkpoint.load_state(tmp_path / "checkpoints", steps)
    assert state["validation_loss"] is not None
    assert state["validation_images"] == 12


def validation_losses(folder):
    return {r["step"]: r["validation_loss"] for r in read_log(folder / "log.jsonl") if "validation_loss" in r}


@pytest.mark.parametrize("slow", ["steps", "previews", "validation"])
def test_weights_and_losses_do_not_depend_on_time(tmp_path, slow):
    drawn = []
    for name, busy in (("quick", False), ("slow", True)):
        clock = Clock()
        preview = Preview(clock, 100.0 if busy and slow == "previews" else 0.1, guess=0.1)
        times = {"step": 50.0 if busy and slow == "steps" else 1.0}
        times["validating"] = 70.0 if busy and slow == "validation" else 0.1
        make(tmp_path / name, clock, preview=preview, sample_every=2, **times).run()
        drawn.append([step for step, _, _ in preview.made])
    assert drawn[0] != drawn[1]
    assert_same(left(tmp_path / "quick", 40), left(tmp_path / "slow", 40))
    assert validation_losses(tmp_path / "quick") == validation_losses(tmp_path / "slow")


def test_resuming_is_exact_whatever_was_drawn(tmp_path):
    clock = Clock()
    preview = Preview(clock, 0.01, guess=0.01)
    make(tmp_path / "uninterrupted", clock, preview=preview, sample_every=3).run()
    assert len(preview.made) > 5
    for settings in (SETTINGS.changed(steps=20), SETTINGS):
        clock = Clock()
        make(tmp_path / "pieces", clock, settings, Preview(clock, 3.0), sample_every=3).run()
    assert_same(left(tmp_path / "uninterrupted", 40), left(tmp_path / "pieces", 40))
    assert validation_losses(tmp_path / "uninterrupted") == validation_losses(tmp_path / "pieces")
