"""The training loop: exact resume, bad steps, what is logged and saved."""

import itertools

import pytest
import torch
from torch import nn

from infdiff.errors import UserError
from infdiff.training import checkpoint
from infdiff.training.log import read_log
from infdiff.training.settings import OptimiserSettings
from infdiff.training.trainer import Trainer

SETTINGS = OptimiserSettings(steps=12, batch_size=4, learning_rate=1e-2, log_every=2, checkpoint_every=4, warmup=3)
DATA = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


def batches(step):
    for start in itertools.count(4 * step, 4):
        yield DATA[torch.arange(start, start + 4) % 64]


def objective(modules, batch, generator):
    noise = torch.randn(batch.shape, generator=generator)
    return (modules["net"](batch + noise) - batch).square().mean()


def make(
    folder,
    settings=SETTINGS,
    objective=objective,
    seed=0,
    **options,
):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.Linear(16, 6))
    return Trainer(
        modules={"net": net},
        objective=objective,
        batches=batches,
        validation=lambda: [DATA[:8], DATA[8:12]],
        settings=settings,
        folder=folder,
        device=torch.device("cpu"),
        seed=seed,
        **options,
    )


def weights(folder, step=12):
    groups = ("net", "ema_net", "optimizer")
    return {g: checkpoint.load_tensors(folder / "checkpoints", step, g) for g in groups}


def assert_same(a, b):
    for group, tensors in a.items():
        assert tensors.keys() == b[group].keys()
        for key, value in tensors.items():
            assert torch.equal(value, b[group][key]), (group, key)


def test_resuming_gives_bit_for_bit_the_same_weights(tmp_path):
    make(tmp_path / "whole").run()
    for steps in (4, 8, 12):
        make(tmp_path / "parts", SETTINGS.changed(steps=steps)).run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_checkpoint_that_a_killed_call_did_not_prune_is_pruned_by_the_next(tmp_path, monkeypatch):
    settings = SETTINGS.changed(keep_checkpoints=1, checkpoint_every=6)

    def killed(folder, keep):
        if checkpoint.checkpoint_steps(folder)[-1] == 12:
            raise KeyboardInterrupt

    make(tmp_path / "whole", settings).run()
    kept = checkpoint.checkpoint_steps(tmp_path / "whole" / "checkpoints")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "prune_checkpoints", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "killed", settings).run()
    assert checkpoint.checkpoint_steps(tmp_path / "killed" / "checkpoints") == [6, 12] != kept
    make(tmp_path / "killed", settings).run()
    assert checkpoint.checkpoint_steps(tmp_path / "killed" / "checkpoints") == kept


def test_one_process_that_is_to_shard_says_that_it_holds_everything(tmp_path):
    (note,) = make(tmp_path, SETTINGS.changed(parallel="fsdp")).change.notes
    assert note == "train.parallel: fsdp: one process holds everything; start several with torchrun"


def test_losses_are_also_logged_by_label(tmp_path):
    """Batches alternate between two kinds, one of them with ten times the loss."""

    def alternating(step):
        for number in itertools.count(step):
            yield torch.full((4, 6), 1.0 if number % 2 else 2.0)

    def loss(modules, batch, generator):
        return modules["net"][0].bias.sum() * 0 + batch.mean() ** 2

    trainer = make(tmp_path, SETTINGS.changed(steps=6, log_every=3), loss)
    trainer.batches, trainer.label = alternating, lambda batch: "odd" if batch[0, 0] == 1 else "even"
    trainer.validation = lambda: [torch.full((2, 6), 2.0), torch.full((6, 6), 1.0), torch.full((2, 6), 2.0)]
    trainer.run()
    records = read_log(tmp_path / "log.jsonl")
    reports = [r for r in records if "loss" in r]
    assert [r["losses"] for r in reports] == [{"even": 4.0, "odd": 1.0}] * 2
    assert [r["loss"] for r in reports] == [3.0, 2.0], "even, odd, even and odd, even, odd"
    last = [r for r in records if "validation_loss" in r][-1]
    assert last["validation_losses"] == {"even": 4.0, "odd": 1.0}
    assert last["validation_loss"] == pytest.approx((4 * 4 + 6 * 1) / 10)


def test_without_labels_there_are_no_losses_by_label(tmp_path):
    make(tmp_path).run()
    assert all({"losses", "validation_losses"}.isdisjoint(r) for r in read_log(tmp_path / "log.jsonl"))


def test_resuming_knows_parameters_that_no_step_has_moved(tmp_path):
    """They have no moments yet."""

    def run(folder, steps):
        trainer = make(folder, SETTINGS.changed(steps=steps))
        trainer.frozen = lambda batch: trainer.parameters[:1] if batch[0, 0] < 0 else ()
        # Of the batches' first numbers, three are negative and then the fourth is not.
        signs = torch.tensor([-1.0, -1.0, -1.0, 1.0, -1.0, 1.0]).repeat(2)
        trainer.batches = lambda step: (DATA[:4].abs() * sign for sign in signs[step:])
        trainer.run()

    run(tmp_path / "whole", 12)
    start = make(tmp_path / "fresh").parameters[0].detach().clone()
    for steps in (2, 3, 5, 12):
        run(tmp_path / "parts", steps)
        if steps == 3:
            assert torch.equal(weights(tmp_path / "parts", 3)["net"]["0.weight"], start)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert not torch.equal(weights(tmp_path / "whole")["net"]["0.weight"], start)


def test_another_seed_gives_other_weights(tmp_path):
    make(tmp_path / "a").run()
    make(tmp_path / "b", seed=1).run()
    assert not torch.equal(weights(tmp_path / "a")["net"]["0.weight"], weights(tmp_path / "b")["net"]["0.weight"])


def test_a_step_is_adam_on_the_clipped_gradient(tmp_path):
    """One step against PyTorch's plain Adam, written out."""
    settings = SETTINGS.changed(steps=1, warmup=0, clip=0.1)

    def plain(modules, batch, generator):
        return modules["net"][0](batch).square().mean()

    trainer = make(tmp_path, settings, plain)
    start = [p.detach().clone() for p in trainer.parameters[:2]]
    trainer.run()
    loss = nn.functional.linear(DATA[:4], *(p.requires_grad_() for p in start)).square().mean()
    gradients = torch.autograd.grad(loss, start)
    norm = torch.stack([g.norm() for g in gradients]).norm()
    for parameter, old, gradient in zip(trainer.parameters, start, gradients, strict=False):
        g = gradient * (0.1 / norm)
        # The first step of Adam moves by lr * g / (|g| + eps).
        torch.testing.assert_close(parameter, old - 1e-2 * g / (g.abs() + 1e-8), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("clip", "part"), [(0, 1.0), (0.1, None)])
def test_without_clipping_the_gradient_is_taken_as_it_is(tmp_path, clip, part):
    """Adam's first moment after one step is a tenth of the gradient."""

    def steep(modules, batch, generator):
        return 1000 * modules["net"][0](batch).square().mean()

    trainer = make(tmp_path, SETTINGS.changed(steps=1, warmup=0, clip=clip, bfloat16=False), steep)
    start = [p.detach().clone().requires_grad_() for p in trainer.parameters[:2]]
    trainer.run()
    gradients = torch.autograd.grad(1000 * nn.functional.linear(DATA[:4], *start).square().mean(), start)
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert norm > 100
    moments = weights(tmp_path, 1)["optimizer"]
    for name, gradient in zip(("net.0.weight", "net.0.bias"), gradients, strict=True):
        expected = 0.1 * gradient * (part or clip / norm)
        torch.testing.assert_close(moments[f"{name}:exp_avg"], expected, rtol=1e-4, atol=1e-7)


def test_accumulated_batches_are_one_large_batch(tmp_path):
    def plain(modules, batch, generator):
        return modules["net"][0](batch).square().mean()

    make(tmp_path / "a", SETTINGS.changed(steps=1, accumulate=2), plain).run()
    large = SETTINGS.changed(steps=1, batch_size=8)
    trainer = make(tmp_path / "b", large, plain)
    trainer.batches = lambda position: iter([DATA[:8]])
    trainer.run()
    a, b = weights(tmp_path / "a", 1)["net"], weights(tmp_path / "b", 1)["net"]
    torch.testing.assert_close(a["0.weight"], b["0.weight"])


class Bad:
    """An objective that is not finite at chosen calls."""

    def __init__(self, calls, kind):
        self.calls, self.kind, self.count = calls, kind, 0

    def __call__(self, modules, batch, generator):
        loss = objective(modules, batch, generator)
        if not modules["net"].training:
            return loss
        self.count += 1
        if self.count - 1 not in self.calls:
            return loss
        if self.kind == "gradient":
            # The loss is finite, its gradient is not: sqrt at 0.
            zero = modules["net"][0].weight[0, 0] * 0
            return loss + zero.sqrt()
        return loss * float(self.kind)


@pytest.mark.parametrize("clip", [1, 0])
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_bad_step_changes_nothing_and_is_counted(tmp_path, kind, clip):
    settings = SETTINGS.changed(steps=5, checkpoint_every=1, keep_checkpoints=9, clip=clip)
    trainer = make(tmp_path, settings, Bad({2, 3}, kind))
    trainer.run()
    before, after = weights(tmp_path, 2), weights(tmp_path, 4)
    assert_same({"net": before["net"], "optimizer": before["optimizer"]}, after)
    assert all(v.isfinite().all() for v in after["ema_net"].values())
    assert not torch.equal(weights(tmp_path, 5)["net"]["0.weight"], after["net"]["0.weight"])
    assert trainer.skipped == 2
    assert [r["skipped"] for r in read_log(tmp_path / "log.jsonl") if "skipped" in r] == [0, 2]
    assert checkpoint.load_state(tmp_path / "checkpoints", 5)["skipped"] == 2


def test_too_many_bad_steps_in_a_row_stop_the_run(tmp_path):
    trainer = make(tmp_path, SETTINGS.changed(max_bad_steps=3), Bad({1, 4, 5, 6, 7, 8}, "nan"))
    with pytest.raises(UserError, match="3 steps in a row") as error:
        trainer.run()
    assert "up to step 7; the checkpoint of step 4 is kept: start another run" in str(error.value)
    assert all(p.isfinite().all() for p in trainer.parameters)
    # However often it is tried again, no checkpoint is added, and none pushed out.
    for _ in range(3):
        with pytest.raises(UserError, match="3 steps in a row"):
            make(tmp_path, SETTINGS.changed(max_bad_steps=3), Bad({0, 1, 2}, "nan")).run()
        assert checkpoint.checkpoint_steps(tmp_path / "checkpoints") == [4]


@pytest.mark.parametrize("which", ["modules", "ema"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, which):
    make(tmp_path, SETTINGS.changed(steps=4)).run()
    trainer = make(tmp_path)
    trainer._resume()
    modules = trainer.modules if which == "modules" else trainer.ema.modules
    with torch.no_grad():
        modules["net"][0].weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="weights are not finite at step 4 and not saved; the checkpoint of step 4"):
        trainer._save(None)
    assert checkpoint.checkpoint_steps(tmp_path / "checkpoints") == [4]
    weights(tmp_path, 4)


@pytest.mark.parametrize("file", ["net.safetensors", "ema_net.safetensors", "optimizer.safetensors", "state.json"])
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, capsys, file):
    make(tmp_path / "whole").run()
    make(tmp_path / "a", SETTINGS.changed(steps=8)).run()
    path = tmp_path / "a" / "checkpoints" / "00000008" / file
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 4
    path.write_bytes(content)
    make(tmp_path / "a").run()
    said = capsys.readouterr().out
    assert f"00000008/{file} is damaged" in said
    assert "training goes on from step 4" in said
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "a"))
    assert (tmp_path / "a" / "checkpoints" / "damaged-00000008" / file).read_bytes() == content


def test_an_evaluation_is_logged_and_decides_which_checkpoint_is_best(tmp_path):
    distances, seen = iter([0.5, 0.2, 0.3, 0.4]), []

    def evaluate(modules, on_progress):
        torch.rand(7)  # draws from the global generator, which no step of training may notice
        seen.append(modules["net"])
        return {"broken": 0, "kid": next(distances)}

    settings = SETTINGS.changed(checkpoint_every=5, keep_checkpoints=1)
    trainer = make(tmp_path / "a", settings, evaluate=evaluate, eval_every=3)
    trainer.run()
    assert seen == [trainer.ema.modules["net"]] * 4
    records = [r for r in read_log(tmp_path / "a" / "log.jsonl") if "evaluation" in r]
    assert [(r["step"], r["evaluation"]["kid"]) for r in records] == [(3, 0.5), (6, 0.2), (9, 0.3), (12, 0.4)]
    checkpoints = tmp_path / "a" / "checkpoints"
    assert checkpoint.best_step(checkpoints) == 6
    assert checkpoint.checkpoint_steps(checkpoints) == [6, 12]
    assert checkpoint.load_state(checkpoints, 6)["evaluation"] == {"broken": 0, "kid": 0.2}
    # The loss goes on falling: without the evaluation the last one is the best. The weights are the same.
    make(tmp_path / "b", settings, evaluate=pytest.fail).run()
    assert checkpoint.best_step(tmp_path / "b" / "checkpoints") == 12
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_what_a_killed_save_left_is_removed(tmp_path):
    make(tmp_path, SETTINGS.changed(steps=4)).run()
    partial = tmp_path / "checkpoints" / ".partial-00000008"
    partial.mkdir()
    (partial / "net.safetensors").write_bytes(b"half")
    make(tmp_path, SETTINGS.changed(steps=8)).run()
    assert not partial.exists()
    assert checkpoint.checkpoint_steps(tmp_path / "checkpoints")[-1] == 8


@pytest.mark.parametrize("file", ["net.safetensors", "state.json", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, file):
    make(tmp_path, SETTINGS.changed(steps=4)).run()
    path = tmp_path / "checkpoints" / "00000004" / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"00000004.*damaged"):
        make(tmp_path).run()


def test_images_are_sampled_with_the_ema_weights(tmp_path):
    seen = []

    class Preview:
        most = 8

        def worth(self, count):
            return count

        def pictures(self, step):
            return [tmp_path / "there.png"]

        def __call__(self, step, modules, count, on_progress):
            seen.append((step, modules, count))

    trainer = make(tmp_path, sample_every=5, preview=Preview(), clock=lambda: 0.0)
    trainer.run()
    assert [(step, count) for step, _, count in seen] == [(5, 8), (10, 8), (12, 8)]
    assert seen[0][1]["net"] is trainer.ema.modules["net"]
    assert (tmp_path / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize("killed_at", [5, 10])
def test_pictures_that_a_killed_process_did_not_draw_are_drawn_on_resuming(tmp_path, killed_at):
    """Killed after a checkpoint, before its picture: in the middle, and at the last step."""

    class Preview:
        most = 8

        def worth(self, count):
            return 0

        def pictures(self, step):
            return [path for path in [tmp_path / f"{step}.png"] if path.exists()]

        def __call__(self, step, modules, count, on_progress):
            if step == killed_at and kill.pop():
                raise KeyboardInterrupt
            (tmp_path / f"{step}.png").write_text(str(modules["net"][0].weight.sum().item()))

    settings, kill = SETTINGS.changed(steps=10, checkpoint_every=5), [True]
    for folder in ("whole", "killed"):
        kill = [False, folder == "killed"]
        options = {"sample_every": 5, "preview": Preview(), "clock": lambda: 0.0}
        if folder == "killed":
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / folder, settings, **options).run()
            (tmp_path / folder / "loss.png").unlink(missing_ok=True)
        make(tmp_path / folder, settings, **options).run()
        drawn = {path.name: path.read_text() for path in tmp_path.glob("*.png")}
        assert drawn.keys() == {"5.png", "10.png"}
        assert (tmp_path / folder / "loss.png").exists()
        if folder == "whole":
            expected = drawn
            for path in tmp_path.glob("*.png"):
                path.unlink()
    assert drawn == expected


def test_the_log_of_a_resumed_run_averages_the_same_steps(tmp_path):
    settings = SETTINGS.changed(log_every=5)  # checkpoints are every 4 steps
    make(tmp_path / "whole", settings).run()
    make(tmp_path / "parts", settings.changed(steps=4)).run()
    make(tmp_path / "parts", settings).run()
    whole, parts = (
        [(r["step"], r["loss"], r["gradient_norm"]) for r in read_log(tmp_path / f / "log.jsonl") if "loss" in r]
        for f in ("whole", "parts")
    )
    assert [step for step, *_ in whole] == [5, 10]
    assert parts == whole


def test_losses_are_drawn_at_the_end_and_from_time_to_time(tmp_path, monkeypatch):
    drawn, now = [], itertools.count(0.0, 4.0)

    def slow(modules, batch, generator):
        if modules["net"].training:
            seconds.append(next(now))
        return objective(modules, batch, generator)

    seconds = [0.0]
    monkeypatch.setattr("infdiff.training.trainer.plot_losses", lambda log, out: drawn.append(trainer.step))
    settings = SETTINGS.changed(checkpoint_every=1, steps=8)
    trainer = make(tmp_path, settings, slow, clock=lambda: seconds[-1])
    trainer.run()
    # A step takes four seconds: ten have passed after the fourth, and ten more after the seventh.
    assert drawn == [4, 7, 8]


def test_a_plot_that_a_full_disk_kept_away_is_drawn_by_the_next_call(tmp_path, monkeypatch):
    def full(log, out):
        raise UserError("no space left on the device")

    monkeypatch.setattr("infdiff.training.trainer.plot_losses", full)
    with pytest.raises(UserError, match="no space"):
        make(tmp_path, SETTINGS.changed(checkpoint_every=12)).run()
    assert checkpoint.checkpoint_steps(tmp_path / "checkpoints") == [12]
    monkeypatch.undo()
    make(tmp_path).run()
    assert (tmp_path / "loss.png").stat().st_size > 1000
