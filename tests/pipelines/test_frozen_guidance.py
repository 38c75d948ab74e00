"""Results guided by gradients stay what they were before there was another guidance; the numbers were made by that."""

import pytest
import torch

from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.samplers import ddpm
from infdiff.pipelines.inpaint import inpaint
from infdiff.pipelines.restore import Guidance
from infdiff.pipelines.super_resolve import super_resolve

TIMES = [1000, 700, 300, 40, 0]


def network(x, t):
    """A small nonlinear one of integers and halves, so that nothing depends on a random generator."""
    taps = torch.tensor([[0.0, 1, 0], [1, -2, 1], [0, 1, 0]]).expand(3, 1, 3, 3) / 4
    out = torch.tanh(torch.nn.functional.conv2d(x, taps, padding=1, groups=3) + 0.25 * x) / 2
    return torch.cat([out, out / 8], dim=1)


def picture(size):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([(rows % 5) / 4, (columns % 7) / 8, ((rows + columns) % 3) / 4]).float()[None] - 0.5


@pytest.fixture
def process():
    return MollifiedDiffusion(Mollifier(0.5, (8, 8)), target="v", shift=0.2)


def summary(images):
    return [images.double().mean().item(), images.double().square().mean().item(), images[0, 1, 3, 5].item()]


# Sums of floats depend on the machine in their last bits; on the one that made the numbers they were equal.
def same(images, numbers):
    return summary(images) == pytest.approx([float.fromhex(number) for number in numbers], rel=1e-5)


def super_resolved(process, **given):
    return super_resolve(
        lambda size: network, process, picture((6, 8)), size=(12, 16), seed=3, times=TIMES, sharp_at=40, **given
    )


def filled(process, **given):
    hidden = torch.zeros(8, 12, dtype=torch.bool)
    hidden[2:6, 3:9] = True
    return inpaint(
        network,
        process,
        picture((8, 12)),
        hidden,
        seed=3,
        indices=[0, 4],
        sample=lambda denoise, first, noise: ddpm(denoise, first(), TIMES, alpha_bar=process.alpha_bar, noise=noise),
        **given,
    )


def test_super_resolution(process):
    made = super_resolved(process, guidance=Guidance(weight=0.8))
    assert same(made, ["-0x1.58e392b385555p-3", "0x1.0dbcdc4c4abaep-3", "-0x1.ce449a0000000p-3"])


def test_inpainting(process):
    made = filled(process, guidance=Guidance())
    assert same(made, ["-0x1.50744f94be38ep-3", "0x1.4c478aae98f66p-4", "-0x1.a712560000000p-3"])


def test_inpainting_by_the_papers_steps(process):
    made = filled(process, guidance=Guidance(fixed={1000: 0.5, 700: 0.25, 300: 0.5, 40: 0.125}))
    assert same(made, ["-0x1.d50b606f4e38ep-6", "0x1.5952ae0ee0bb5p-5", "-0x1.ac5e900000000p-3"])
