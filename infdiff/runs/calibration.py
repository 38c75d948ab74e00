"""Statistics of the EMA encoder's latents: measured with its own weights, for it normalises by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from infdiff.config.settings import Config
from infdiff.data.examples import Examples
from infdiff.methods.sizes import point_count
from infdiff.models import SparseEncoder
from infdiff.pipelines.generate import encode
from infdiff.training.pauses import OnProgress

# Enough for means to 4 % of a standard deviation.
_MOST = 768
_FEWEST = 256
# Encoding an image and its flipped copy takes about a sixth of the time that training on it takes: 3 % of the time.
_SHARE = 0.2
_BATCH = 64


class Calibration:
    """Called with the EMA modules, measures what the encoder standardises by, on images spread over the training set.

    Their flipped copies, too, if the run flips images. The number of images depends on settings alone.
    """

    def __init__(self, config: Config, images: Examples, device: torch.device) -> None:
        self.config, self.images, self.device = config, images, device

    def count(self) -> int:
        """Number of images, by how many the run trains on between two checkpoints."""
        train = self.config.train
        trained = train.batch_size * train.accumulate * min(train.steps, train.checkpoint_every)
        return min(len(self.images), _MOST, max(_FEWEST, round(_SHARE * trained)))

    @torch.no_grad()
    def __call__(self, modules: Mapping[str, nn.Module], on_progress: OnProgress) -> None:
        encoder, points = cast(SparseEncoder, modules["encoder"]), point_count(self.config)
        count = self.count()
        places = torch.arange(count) * len(self.images) // count
        assert encoder.standardize is not None
        with encoder.standardize.measuring():
            for number, some in enumerate(places.split(_BATCH)):
                on_progress(number * _BATCH, count)
                images = self.images.take(some)[:, : self.config.data.channels].to(self.device)
                for batch in (images, images.flip(-1)) if self.config.data.flip else (images,):
                    encode(encoder, batch, points=points, seed=self.config.seed)
