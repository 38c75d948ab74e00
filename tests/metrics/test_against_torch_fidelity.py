"""The same numbers as torch-fidelity computes from the same features, and its networks as they are used here."""

import pytest
import torch
from torch import nn

from infdiff.metrics.distances import Gaussian, frechet_distance, kernel_distance, squared_mmd
from infdiff.metrics.features import load_network
from infdiff.metrics.neighbours import precision_and_recall
from infdiff.metrics.resize import resized
from tests.metrics.libraries import library, torchvision_or_stand_in


@pytest.fixture(scope="module")
def fidelity():
    """Imports modules of torch-fidelity."""
    with torchvision_or_stand_in():
        library("torch_fidelity")
        yield library


def features(generator, dimension=64):
    """Two sets with correlated features that are never negative, as networks' are."""
    mixing = torch.randn(dimension, dimension, generator=generator) / dimension**0.5
    a = torch.randn(700, dimension, generator=generator) @ mixing
    b = 1.1 * torch.randn(500, dimension, generator=generator) @ mixing + 0.1
    return a.relu(), b.relu()


def test_frechet_distance_is_torch_fidelitys(fidelity, generator):
    fid = fidelity("torch_fidelity.metric_fid")
    a, b = features(generator)
    theirs = [fid.fid_features_to_statistics(x.double()) for x in (a, b)]
    expected = fid.fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert expected > 0.1
    assert frechet_distance(Gaussian.fit(a), Gaussian.fit(b)) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_torch_fidelitys(fidelity, generator):
    kid = fidelity("torch_fidelity.metric_kid")
    a, b = (x.double() for x in features(generator))
    assert squared_mmd(a[:500], b) == pytest.approx(kid.kernel_mmd(a[:500].numpy(), b.numpy()), rel=1e-9)
    # Over subsets, which each draws in its own way.
    theirs = kid.kid_features_to_metric(a, b, kid_subsets=400, kid_subset_size=100, verbose=False)
    mean, deviation = kernel_distance(a, b, subsets=400, size=100)
    error = theirs["kernel_inception_distance_std"] / 400**0.5
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=6 * error)
    assert deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.3)
    assert mean > 20 * error


@pytest.mark.parametrize("save_cpu_ram", [False, True])
def test_precision_and_recall_are_torch_fidelitys(save_cpu_ram, fidelity, generator):
    prc = fidelity("torch_fidelity.metric_prc")
    a, b = features(generator, dimension=8)
    theirs = prc.prc_features_to_metric(a, b, save_cpu_ram=save_cpu_ram, verbose=False)
    assert 0.5 < theirs["precision"] < theirs["recall"] < 1 or 0.5 < theirs["recall"] < theirs["precision"] < 1
    assert precision_and_recall(a, b) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)


def inception(fidelity, monkeypatch):
    module = fidelity("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *arguments, **options: {})
    monkeypatch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    extractor = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return extractor, None


def clip(fidelity, monkeypatch):
    module = fidelity("torch_fidelity.feature_extractor_clip")
    archive = nn.Module()
    archive.visual = module.CLIPVisual(512, 224, 1, 64, 32).visual
    archive.text_projection = nn.Parameter(torch.zeros(1, 512))
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *arguments, **options: archive)
    extractor = module.FeatureExtractorCLIP("clip-vit-b-32", ["clip"])
    return extractor, extractor.model.visual


def dinov2(fidelity, monkeypatch):
    module = fidelity("torch_fidelity.feature_extractor_dinov2")
    network = nn.Sequential(nn.Conv2d(3, 1024, 14, 14), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setattr(torch.hub, "load", lambda *arguments, **options: network)
    return module.FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"]), network


# Mean and standard deviation of the channels that each network was trained with.
OF_CLIP = [(0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)]
OF_IMAGENET = [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]


@pytest.mark.parametrize(
    ("name", "side", "make", "statistics"),
    [
        ("inception", 299, inception, None),
        ("inception-tensorflow", 299, inception, None),
        ("clip", 224, clip, OF_CLIP),
        ("dinov2", 224, dinov2, OF_IMAGENET),
    ],
)
def test_an_image_of_the_networks_size_reaches_it_as_it_is(
    name, side, make, statistics, fidelity, monkeypatch, generator
):
    """With random weights: what the extractor does to images is here, its weights would have to be downloaded."""
    torch.manual_seed(0)
    extractor, behind = make(fidelity, monkeypatch)
    registry = fidelity("torch_fidelity.registry").FEATURE_EXTRACTORS_REGISTRY
    monkeypatch.setitem(registry, extractor.name, lambda *arguments: extractor)
    network = load_network(name)
    whole, smaller = (
        torch.randint(0, 256, (2, 3, n, n), dtype=torch.uint8, generator=generator) for n in (side, side // 2)
    )
    (expected,) = extractor(whole)
    assert expected.std(0).mean() > 0
    torch.testing.assert_close(network(whole), expected, rtol=1e-5, atol=1e-6)
    # What is smaller is not resized by the extractor, but for the one that is to.
    (theirs,) = extractor(smaller)
    assert torch.allclose(network(smaller), theirs) is (name == "inception-tensorflow")
    if behind is not None:
        mean, std = torch.tensor(statistics)[:, :, None, None]
        torch.testing.assert_close(network(whole), behind((whole / 255 - mean) / std), rtol=1e-4, atol=1e-5)
        assert torch.equal(network(smaller), extractor(resized(smaller, side, eight_bit=True).to(torch.uint8))[0])
