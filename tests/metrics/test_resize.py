"""Resizing for feature networks: Pillow's filter written out, and clean-fid's own functions where they can be had."""

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.metrics.resize import resized, resizing
from tests.metrics.libraries import library

SIZES = [(224, 224), (64, 64), (256, 256), (300, 230), (97, 512)]


def noise(size, generator):
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)


def taps(count, side):
    """(side, count): Keys' cubic kernel with a = -1/2, widened when reducing, normalised within the image."""
    scale = max(1.0, count / side)
    centres = (np.arange(side) + 0.5) * count / side
    t = np.abs((np.arange(count) + 0.5 - centres[:, None]) / scale)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [224, 299])
def test_in_float_it_is_the_antialiased_cubic_kernel(size, side, generator):
    images = noise(size, generator)
    found = resized(images, side)
    assert (found.shape, found.dtype) == ((2, 3, side, side), torch.float32)
    expected = taps(size[0], side) @ images.numpy().astype(float) @ taps(size[1], side).T
    assert np.abs(found.numpy() - expected.clip(0, 255)).max() < 1e-3
    if size != (side, side):
        assert (found != found.round()).float().mean() > 0.5
        assert (expected < 0).any()  # what is clipped is there


@pytest.mark.parametrize("size", SIZES)
def test_in_float_each_channel_is_an_image_of_pillow(size, generator):
    images = noise(size, generator)
    for image, found in zip(images, resized(images, 299), strict=True):
        for channel, plane in zip(image.numpy(), found.numpy(), strict=True):
            alone = Image.fromarray(channel.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
            assert np.array_equal(plane, np.asarray(alone).clip(0, 255))


@pytest.mark.parametrize("size", SIZES)
def test_in_eight_bits_it_is_pillow_on_the_image_as_a_whole(size, generator):
    images = noise(size, generator)
    for image, found in zip(images, resized(images, 224, eight_bit=True), strict=True):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(whole))


@pytest.mark.parametrize("eight_bit", [False, True])
def test_at_the_size_itself_nothing_changes(eight_bit, generator):
    images = noise((224, 224), generator)
    assert torch.equal(resized(images, 224, eight_bit=eight_bit), images.float())
    assert resized(images[:0], 224, eight_bit=eight_bit).shape == (0, 3, 224, 224)


def test_names_tell_preprocessings_apart():
    names = {resizing(side, eight_bit=eight_bit) for side in (224, 299) for eight_bit in (False, True)}
    assert len(names) == 4


@pytest.mark.parametrize("size", SIZES)
def test_in_float_it_is_clean_fids(size, generator):
    clean_fid = library("cleanfid.resize")
    images = noise(size, generator)
    function = clean_fid.build_resizer("clean")
    for image, found in zip(images, resized(images, 299), strict=True):
        assert np.array_equal(found.permute(1, 2, 0).numpy(), function(image.permute(1, 2, 0).numpy()))


@pytest.mark.parametrize("side", [64, 224, 256, 1024])
def test_in_eight_bits_it_is_clean_fids_for_clip(side, generator):
    """Its function, `img_preprocess_clip`, is these transforms; its file cannot be imported without CLIP's package."""
    transforms = library("torchvision.transforms")
    function = transforms.Compose(
        [transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    images = noise((side, side), generator)
    for image, found in zip(images, resized(images, 224, eight_bit=True), strict=True):
        expected = np.asarray(function(Image.fromarray(image.permute(1, 2, 0).numpy())))
        assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
