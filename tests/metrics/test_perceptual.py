"""LPIPS goes through torchmetrics; what is missing is said in one line."""

import sys
import types

import pytest
import torch

from infdiff.errors import OptionError
from infdiff.metrics.perceptual import load_lpips


class Distance(torch.nn.Module):
    """Takes the place of torchmetrics' class: mean absolute differences, added up over images."""

    def __init__(self, net_type, reduction):
        super().__init__()
        assert (net_type, reduction) == ("alex", "sum")

    def forward(self, a, b):
        assert a.dtype == torch.float32
        assert a.min() >= -1
        assert a.max() <= 1
        return (a - b).abs().mean(dim=(1, 2, 3)).sum()


def provide(monkeypatch, distance):
    module = types.ModuleType("torchmetrics.image")
    module.LearnedPerceptualImagePatchSimilarity = distance
    monkeypatch.setitem(sys.modules, "torchmetrics", types.ModuleType("torchmetrics"))
    monkeypatch.setitem(sys.modules, "torchmetrics.image", module)


def test_images_come_in_its_range_and_distances_are_added_up(monkeypatch, generator):
    provide(monkeypatch, Distance)
    a, b = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    expected = (a.double() - b.double()).abs().mean(dim=(1, 2, 3)).sum() / 127.5
    assert load_lpips()(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(OptionError, match=r"lpips: .*pip install torchmetrics torchvision"):
        load_lpips()


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    def offline(**options):
        raise OSError("no network\nat all")

    provide(monkeypatch, offline)
    with pytest.raises(OptionError, match=r"lpips: its network cannot be had .no network.: .*AlexNet") as error:
        load_lpips()
    assert "\n" not in str(error.value)
