"""Small networks for the tests, with every weight at random."""

import torch

from infdiff.models import GridUNet, SparseUNet
from infdiff.points import draw_points

GRID = {
    "in_channels": 8,
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_sizes": (4,),
    "size": 8,
    "dropout": 0.0,
    "dropout_size": 4,
}


def randomise(module):
    """Zero initialisation would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def denoiser(z_dim=5, **options):
    torch.manual_seed(0)
    unet = GridUNet(out_channels=8, condition_dim=16, **GRID)
    arguments = {"base": (16, 16), "grid": (8, 8), "channels": 8, "kernel_size": 3, "blocks": 2, "condition_dim": 16}
    return randomise(SparseUNet(unet, z_dim=z_dim, **arguments | options))


def inputs(size, count, batch=2, channels=3):
    generator = torch.Generator().manual_seed(2)
    ids = draw_points(batch, count, size, generator)
    x = torch.randn(batch, count, channels, generator=generator, dtype=torch.float64)
    t = torch.tensor([100, 900])[:batch]
    z = torch.randn(batch, 5, generator=generator, dtype=torch.float64)
    return ids, x, t, z
