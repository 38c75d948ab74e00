"""PSNR by its definition; SSIM window by window; both as torchmetrics computes them."""

from unittest import mock

import numpy as np
import pytest
import torch

from infdiff.metrics.similarity import psnr, ssim
from tests.metrics.libraries import library


def test_psnr():
    a = torch.zeros(2, 3, 4, 5)
    assert psnr(a, a + 0.2, peak=2).tolist() == pytest.approx([20.0, 20.0], abs=1e-5)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = images.flip(0)
    error = ((images.numpy().astype(float) - other.numpy()) ** 2).mean((1, 2, 3))
    assert psnr(images, other).tolist() == pytest.approx((10 * np.log10(255**2 / error)).tolist())
    assert psnr(images, images).tolist() == [100.0, 100.0]


def ssim_by_windows(a, b):
    """Wang et al. 2004, one window after the other."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for x, y in zip(a, b, strict=True):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                cov = (weights * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def test_ssim_window_by_window():
    random = np.random.default_rng(0)
    a = random.integers(0, 256, (2, 3, 13, 16)).astype(np.uint8)
    b = np.clip(a + random.normal(0, [[[[20]]], [[[60]]]], a.shape), 0, 255).astype(np.uint8)
    expected = [ssim_by_windows(x.astype(float), y.astype(float)) for x, y in zip(a, b, strict=True)]
    found = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert expected[0] > expected[1]


def test_ssim_of_equal_and_of_inverted_images():
    pattern = torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert float(ssim(pattern, pattern)) == pytest.approx(1)
    assert float(ssim(pattern, 255 - pattern)) < 0
    with pytest.raises(ValueError, match="9x20 pixels"):
        ssim(pattern[:, :, :9], pattern[:, :, :9])


def images(generator):
    a = torch.randint(0, 256, (3, 3, 40, 52), dtype=torch.uint8, generator=generator)
    noise = torch.randn(a.shape, generator=generator) * torch.tensor([5.0, 20.0, 60.0])[:, None, None, None]
    return a, (a + noise).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def functional():
    """Functions of torchmetrics, without the packages that it has other functions from: one of them may be broken."""
    optional = library("lightning_utilities.core.imports").RequirementCache
    with mock.patch.object(optional, "__bool__", return_value=False):
        return library("torchmetrics.functional.image")


def test_psnr_is_torchmetrics(functional, generator):
    a, b = images(generator)
    expected = functional.peak_signal_noise_ratio(
        b.double(), a.double(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    assert psnr(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_ssim_is_torchmetrics_where_windows_stay_within_the_image(functional, generator):
    """It adds windows that reach over the border, where the image is reflected; Wang et al. 2004 do not."""
    a, b = images(generator)
    _, whole = functional.structural_similarity_index_measure(
        b.double(), a.double(), data_range=255.0, reduction="none", return_full_image=True
    )
    assert whole.shape == a.shape
    expected = whole[:, :, 5:-5, 5:-5].mean((1, 2, 3))
    assert expected.min() < 0.9 < expected.max()
    assert ssim(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-6)
