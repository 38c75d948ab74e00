"""What can be seen of a configuration: networks, losses, trainings, images. Each is called with a folder of its own."""

import json
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import infdiff
from infdiff.commands import train
from infdiff.config.files import changed, flatten, load_config, save_config
from infdiff.data.latents import Latents
from infdiff.errors import UserError
from infdiff.methods.checks import check_config
from infdiff.methods.finetune import frozen_parameters
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sizes import largest, training_weights
from infdiff.runs.data import TrainingData, build_data
from infdiff.runs.latent_training import build_latent_trainer, encode_run
from infdiff.runs.latents import build_latent
from infdiff.runs.training import build_trainer
from infdiff.shipped import CONFIG_FOLDER

CPU = torch.device("cpu")
EARLIER_RUNS = Path(__file__).parent / "earlier_runs"


@lru_cache(maxsize=1)
def demo():
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["data.size=32"])
    return build_data(config, CPU).train.take(torch.arange(4))


def digest(modules):
    return {name: tensor.sum().item() for key, m in modules.items() for name, tensor in named(key, m)}


def named(key, module):
    return ((f"{key}.{name} {tuple(t.shape)}", t.double().abs()) for name, t in module.state_dict().items())


def weights(config, tmp_path):
    """The initial weights, their shapes and sizes; and what the modules say of themselves."""
    return digest(build_modules(config))


def backends(config, tmp_path):
    """How the sparse convolutions are computed."""
    modules = build_modules(config).values()
    return {getattr(layer, "backend", None) for module in modules for layer in module.modules()}


def loss(config, tmp_path):
    """A training loss of random weights."""
    torch.manual_seed(0)
    size = largest(training_weights(config))
    images = demo()[..., : size[0], : size[1]]
    modules, random = build_modules(config), torch.Generator().manual_seed(0)
    for module in modules.values():
        for parameter in module.parameters():  # no layer is left at zero, where nothing before it shows
            torch.nn.init.normal_(parameter, std=0.1, generator=random)
    return method_of(config).objective()(modules, images, random).item()


def training(config, tmp_path):
    """All that a training leaves behind: weights, averages, the log, which files; or why it stops."""
    tmp_path.mkdir(exist_ok=True)
    trainer = build_trainer(config, build_data(config, CPU), tmp_path, CPU)
    trainer.clock = lambda: 0.0  # there is time for every preview
    return left_behind(trainer, tmp_path)


def latent_training(config, tmp_path):
    """The same of the latent model."""
    z = torch.randn(40, config.latent_dim, generator=torch.Generator().manual_seed(0))
    folder = type("Folder", (), {"path": tmp_path})()
    tmp_path.mkdir(exist_ok=True)
    return left_behind(build_latent_trainer(config, Latents.of(z[:32], z[32:]), folder, CPU), tmp_path)


def left_behind(trainer, folder):
    (folder / "samples").mkdir(exist_ok=True)
    stopped = ""
    try:
        trainer.run()
    except UserError as error:
        stopped = str(error)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in records:
        for key in [key for key in record if key.endswith("per_second") or "memory" in key]:
            del record[key]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return stopped, records, files, digest(trainer.modules), digest(trainer.ema.modules)


def on_a_gpu(config, tmp_path):
    """Whether steps run in bfloat16, as graphs and sharded on GPUs, and what is compiled; or why not on a CPU."""
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_: function)
        patch.setattr(torch.nn.Module, "compile", lambda module, *_, **__: compiled.append(type(module).__name__))
        tmp_path.mkdir(exist_ok=True)
        settings = (config.latent if "latent" in tmp_path.name else config).train
        patch.setattr("infdiff.training.settings.why_not_compiled", lambda device: None)
        patch.setattr("infdiff.training.step.why_not_compiled", lambda device: None)
        try:
            trainer_of(config, tmp_path)
        except UserError as error:
            return str(error)
    device = torch.device("cuda")
    return settings.uses_bfloat16(device), settings.records(device), settings.shards(2), compiled


def followed(config, tmp_path):
    """Which trackers get the log."""
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infdiff.trackers.group._open", lambda name, start: opened.append(name) or mock.MagicMock())
        tmp_path.mkdir(exist_ok=True)
        trainer = trainer_of(config, tmp_path)
        (tmp_path / "samples").mkdir(exist_ok=True)
        trainer.run()
    return opened


def algorithms(config, tmp_path):
    """Whether steps are taken with deterministic algorithms alone."""
    tmp_path.mkdir(exist_ok=True)
    trainer, seen = trainer_of(config, tmp_path), set()
    objective = trainer.objective

    def noted(*arguments):
        seen.add(torch.are_deterministic_algorithms_enabled())
        return objective(*arguments)

    trainer.objective = noted
    (tmp_path / "samples").mkdir(exist_ok=True)
    trainer.run()
    return seen


def trainer_of(config, folder):
    """The trainer of a run, or of its latent model in a folder that is called so."""
    if "latent" not in folder.name:
        return build_trainer(config, build_data(config, CPU), folder, CPU)
    z = torch.randn(40, config.latent_dim)
    return build_latent_trainer(config, Latents.of(z, z), type("Folder", (), {"path": folder})(), CPU)


def batches(config, tmp_path):
    """The images of the first training steps and all of the validation, where they lie, and who decodes them."""
    workers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys.modules["infdiff.data.batches"],
            "DataLoader",
            lambda *_, num_workers, **__: workers.append(num_workers) or [],
        )
        data = build_data(config, CPU)
        given = TrainingData(config, data, CPU)
        first = [batch.float().mean().item() for batch, _ in zip(given.batches(0), range(6), strict=False)]
        sizes = [tuple(batch.shape) for batch, _ in zip(given.batches(0), range(6), strict=False)]
    validation = [(tuple(batch.shape), batch.float().mean().item()) for batch in given.validation()]
    return first, sizes, validation, workers, data.train.cache, len(data.train)


def samples(config, tmp_path, **options):
    """An image of a trained run whose configuration has these settings."""
    source = "points" if config.method == "infinity_diff" else "grid"
    kept = load_config(EARLIER_RUNS / source / "config.yaml")
    settings = {key: value for key, value in flatten(config).items() if key.startswith(SAMPLED)}
    run = shutil.copytree(EARLIER_RUNS / source, tmp_path / "run")
    for path in run.rglob("config.yaml"):
        save_config(changed(kept, settings), path)
    return infdiff.load(run, device="cpu").sample(1, 12, output="tensor", **options).tolist()


SAMPLED = ("sample.", "edm.", "latent.sample_steps")


def deblurred(config, tmp_path):
    return samples(config, tmp_path, deblur="wiener")


def latent_model(config, tmp_path):
    """The untrained latent model and its process."""
    network, process = build_latent(config)
    return digest({"latent": network}), type(process), getattr(process, "alpha_bar", torch.empty(0)).tolist()


def whitened(config, tmp_path):
    """What latents are scaled by; here, each is the mean colour of an image."""
    tmp_path.mkdir(exist_ok=True)
    run = SimpleNamespace(fingerprint=lambda step, network: "a")
    trained = SimpleNamespace(
        config=config, device=CPU, step=0, folder=run, encode=lambda x: x.float().mean(dim=(2, 3))
    )
    folder = SimpleNamespace(path=tmp_path, config=lambda: config)
    return encode_run(trained, folder, lambda count: None, lambda count: None).axes.tolist()


def mixture(config, tmp_path):
    """The weights of the sizes that steps are trained on; or why they cannot be."""
    try:
        check_config(config)
    except UserError as error:
        return str(error)
    return training_weights(config)


def frozen(config, tmp_path):
    """How many parameters stay as they are on a batch of the largest size."""
    batch = torch.empty(1, 3, *largest(training_weights(config)))
    parameters = frozen_parameters(config, build_modules(config))
    return None if parameters is None else len(parameters(batch))


def opened(config, tmp_path):
    """The folder that a training makes, or why it cannot."""
    tmp_path.mkdir(exist_ok=True)
    save_config(config, tmp_path / "c.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        try:
            train.main(["--config", "c.yaml", "train.steps=1", "--device", "cpu"])
        except UserError as error:
            return str(error)
    return sorted(str(path) for path in (tmp_path / "runs").iterdir())
