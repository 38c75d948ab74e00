"""Train the latent diffusion model of a run: the second stage, which draws the latents of new images.

  infdiff train-latent                                            # of the newest run
  infdiff train-latent --run runs/photos --steps 20000
  infdiff train-latent --run runs/photos latent.width=1024 latent.train.learning_rate=5e-5

Every image of the run's data is encoded once. The same command again continues where it stopped. The model with the
lowest loss on held-out latents is kept, and `infdiff sample` uses it.
"""

from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

from infdiff import processes
from infdiff.cli import Parser, choose_device
from infdiff.commands.trained_run import load_run
from infdiff.commands.trainings import describe_devices, require_same_program, say, warn
from infdiff.config.files import load_config
from infdiff.methods.checks import check_latent, check_share
from infdiff.runs.latent_training import build_latent_trainer, encode_run, open_latent_folder
from infdiff.runs.latents import latent_settings
from infdiff.runs.owner import owning
from infdiff.trackers import require_trackers


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff train-latent`."""
    run(make_parser(prog).parse_intermixed_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff train-latent")
    parser.add_run("checkpoint of the first stage: last (default), best, or a step")
    parser.add_argument("--force", action="store_true", help="train where another process trains this model")
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_device()
    parser.add_argument("overrides", nargs="*", metavar="latent.key=value", help="any setting of the latent model")
    return parser


def run(arguments: Namespace) -> None:
    """Encode the data of a run and train a latent model on the latents, on all processes of torchrun."""
    processes.select_gpu()
    with processes.together(choose_device(arguments.device)):
        _run(arguments)


def _run(arguments: Namespace) -> None:
    trained = load_run(arguments)
    steps = [] if arguments.steps is None else [f"latent.train.steps={arguments.steps}"]
    check_latent(arguments.overrides)
    trained.require_encoder()
    config = load_config(trained.folder.config_file, [*steps, *arguments.overrides])
    check_share("latent.train.batch_size", latent_settings(config).train.batch_size, processes.joined().count)
    require_trackers(latent_settings(config).train.log, "latent.train")
    require_same_program(config)
    latent_settings(config).train.check_device(trained.device, "latent.train")
    place = trained.folder.latents(trained.step).path
    with owning(place, force=arguments.force, say=warn):
        with processes.first_before_others():
            folder = open_latent_folder(trained, config)
        with tqdm(unit="image", desc="encoding", disable=None if processes.joined().first else True) as bar:
            latents = encode_run(trained, folder, bar.reset, bar.update)
        trainer = build_latent_trainer(config, latents, folder, trained.device)
        parameters = sum(p.numel() for p in trainer.modules["latent"].parameters())
        counts = f"{len(latents.train)} latents, {len(latents.validation)} held out"
        say(f"{folder}: {parameters:,} parameters, {counts}, on {describe_devices(trained.device)}")
        trainer.run()
        say(f"{folder}: {trainer.step} steps done, losses in {folder.path / 'loss.png'}")
