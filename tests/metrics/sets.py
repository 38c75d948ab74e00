"""Small sets of images, and a feature network that needs no weights."""

import torch

from infdiff.metrics.features import FeatureNetwork

# A network of two features: the mean and the standard deviation of the pixels.
NETWORK = FeatureNetwork(
    "moments",
    "1",
    2,
    lambda x: torch.stack([x.float().mean((1, 2, 3)), x.float().std((1, 2, 3))], 1),
    torch.device("cpu"),
)


def images(count, generator, size=(16, 16)):
    spread = torch.rand(count, 1, 1, 1, generator=generator)
    values = 128 + 100 * spread * torch.randn(count, 3, *size, generator=generator)
    return values.clamp(0, 255).to(torch.uint8)
