"""LPIPS: the distance of two images in features that were weighted by what people call alike (Zhang et al. 2018)."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.errors import OptionError, first_line

# (B, 3, H, W) uint8 twice -> the sum of the B distances.
PerceptualDistance = Callable[[Tensor, Tensor], float]


def load_lpips(device: torch.device | str = "cpu") -> PerceptualDistance:
    """Load LPIPS of AlexNet through torchmetrics; AlexNet's weights are torchvision's, downloaded at the first use.

    Raises OptionError that says how to install what is missing.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            images = importlib.import_module("torchmetrics.image")
            metric = images.LearnedPerceptualImagePatchSimilarity(net_type="alex", reduction="sum")
    except ModuleNotFoundError as error:
        raise OptionError("lpips", None, f"{first_line(error)}: pip install torchmetrics torchvision") from error
    except Exception as error:  # downloads fail in many ways, and so do packages built for another PyTorch
        raise OptionError(
            "lpips",
            None,
            f"its network cannot be had ({first_line(error)}): it needs torchmetrics, the torchvision that was built "
            f"for torch {torch.__version__}, and AlexNet's weights in {torch.hub.get_dir()}",
        ) from error
    metric.to(device).eval()

    @torch.inference_mode()
    def distance(a: Tensor, b: Tensor) -> float:
        return float(metric(*(x.to(device).float() / 127.5 - 1 for x in (a, b))))

    return distance
