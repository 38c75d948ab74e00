"""Super-resolution: its results reduce to the small image, whatever the model is."""

import pytest
import torch

from infdiff.metrics.similarity import psnr
from infdiff.pipelines.super_resolve import back_project, reduce


@pytest.fixture
def image(generator):
    return torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=generator) * 1.6 - 0.8, (24, 30), mode="bilinear"
    )


@pytest.mark.parametrize("size", [(48, 60), (50, 61), (24, 30)])
def test_back_projection_agrees_with_the_small_image(size, image, generator):
    wrong = torch.rand(1, 3, *size, generator=generator) - 0.5
    out = back_project(wrong, image)
    assert out.abs().max() <= 1
    assert psnr(reduce(out, (24, 30)), image, peak=2) > 40 > psnr(reduce(wrong, (24, 30)), image, peak=2)
