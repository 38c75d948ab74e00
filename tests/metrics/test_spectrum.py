"""Radial power spectra: white noise, waves, a plain numpy version; and the distance of spectra."""

import numpy as np
import pytest
import torch

from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance


def pictures(values):
    return torch.from_numpy(np.clip(np.round(values), 0, 255).astype(np.uint8))


def wave(size, rows, columns, amplitude=100):
    """(1, 3, H, W) with whole cycles down and across."""
    y, x = (np.arange(n) / n for n in size)
    values = 128 + amplitude * np.cos(2 * np.pi * (rows * y[:, None] + columns * x))
    return pictures(np.broadcast_to(values, (1, 3, *size)))


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (31, 20)])
def test_white_noise_has_its_variance_in_every_ring(size):
    noise = pictures(np.random.default_rng(0).normal(128, 20, (300, 3, *size)))
    spectrum = radial_spectrum(noise)
    assert spectrum.shape == (300, min(size) // 2 - 1)
    # 900 pictures, and 12 or more frequencies in the first ring.
    np.testing.assert_allclose(spectrum.mean(0), 400, rtol=0.06)
    assert spectrum.mean() == pytest.approx(400, rel=0.02)


@pytest.mark.parametrize("size", [(24, 24), (20, 28)])
def test_as_written_out_in_numpy(size):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (2, 3, *size))
    shorter = min(size)
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) for n in size))
    expected = np.zeros((2, shorter // 2 - 1))
    for b in range(2):
        rings = [[] for _ in range(shorter // 2 - 1)]
        for channel in images[b]:
            centred = (channel - (channel * window).sum() / window.sum()) * window
            power = np.abs(np.fft.fft2(centred)) ** 2 / (window**2).sum()
            for i in range(size[0]):
                for j in range(size[1]):
                    fy, fx = (min(k, n - k) / n for k, n in ((i, size[0]), (j, size[1])))
                    ring = int(np.floor(np.hypot(fy, fx) * shorter + 0.5))
                    if 2 <= ring <= shorter // 2:
                        rings[ring - 2].append(power[i, j])
        expected[b] = [np.mean(ring) for ring in rings]
    np.testing.assert_allclose(radial_spectrum(pictures(images)).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(("size", "rows", "columns", "ring"), [((64, 64), 8, 0, 8), ((64, 64), 6, 8, 10)])
def test_a_wave_is_in_its_ring(size, rows, columns, ring):
    spectrum = radial_spectrum(wave(size, rows, columns))[0]
    assert int(spectrum.argmax()) + 2 == ring
    far = torch.cat([spectrum[: ring - 5], spectrum[ring + 2 :]])
    assert far.max() < 1e-3 * spectrum.max()


def test_the_same_function_at_two_sizes_has_the_same_rings():
    small, large = (radial_spectrum(wave((n, n), 5, 0))[0] for n in (32, 64))
    # Four times the pixels hold the same wave: four times the power in each of its frequencies.
    assert large[3] == pytest.approx(4 * float(small[3]), rel=0.02)
    assert int(small.argmax()) == int(large.argmax()) == 3


def test_distance_in_decibels():
    random = np.random.default_rng(0)
    pattern = 4 * random.integers(-25, 26, (3, 3, 32, 32))
    full, half = (radial_spectrum(pictures(128 + pattern / n)).mean(0) for n in (1, 2))
    assert spectrum_distance(full, full) == 0
    assert spectrum_distance(full, half) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert spectrum_distance(half, full) == pytest.approx(20 * np.log10(2), abs=0.01)
    flat = radial_spectrum(torch.full((1, 3, 32, 32), 7, dtype=torch.uint8))[0]
    assert 20 < spectrum_distance(flat, full) < 60


def test_too_small():
    with pytest.raises(ValueError, match="3x9 pixels"):
        radial_spectrum(torch.zeros(1, 3, 3, 9, dtype=torch.uint8))
