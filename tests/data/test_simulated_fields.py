"""The simulated sea: physics that can be checked, and what satellites and gauges see of it."""

import numpy as np
import torch

from infdiff.data.simulated_fields import Sea, seen_between_swaths, seen_by_gauges, simulated_fields


def test_advection_is_that_of_numpy_gradients():
    """The change of vorticity and temperature by the currents, with differences of a smooth stream function."""
    side = 64
    sea = Sea(1, side, torch.Generator().manual_seed(0))
    y, x = np.mgrid[:side, :side] / side * 2 * np.pi
    # The stream function is sin(2 x + 1) cos(y) + cos(3 y - x) / 2.
    scale = 2 * np.pi / 1e6  # radians a metre
    vorticity = -(5 * np.sin(2 * x + 1) * np.cos(y) + 5 * np.cos(3 * y - x)) * scale**2
    temperature = np.cos(x + 2 * y)
    state = torch.fft.rfft2(torch.from_numpy(np.stack([vorticity, temperature])[None]).float())
    found = torch.fft.irfft2(sea._change(state), s=(side, side))[0].double().numpy()
    # Closed forms of the derivatives, a radian at a time; rows go south.
    stream_y = -np.sin(2 * x + 1) * np.sin(y) - 1.5 * np.sin(3 * y - x)
    stream_x = 2 * np.cos(2 * x + 1) * np.cos(y) + 0.5 * np.sin(3 * y - x)
    vorticity_y = (5 * np.sin(2 * x + 1) * np.sin(y) + 15 * np.sin(3 * y - x)) * scale**2
    vorticity_x = (-10 * np.cos(2 * x + 1) * np.cos(y) - 5 * np.sin(3 * y - x)) * scale**2
    temperature_y, temperature_x = -2 * np.sin(x + 2 * y), -np.sin(x + 2 * y)
    south, east = stream_x * scale, -stream_y * scale
    wanted = [
        -(south * vorticity_y + east * vorticity_x) * scale,
        -(south * temperature_y + east * temperature_x) * scale - 6e-6 * south,
    ]
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()


def test_fields_depend_on_the_seed_alone():
    a, b, c = (np.stack(list(simulated_fields(6, 16, seed))) for seed in (0, 0, 1))
    assert a.shape == (6, 2, 16, 16)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
    assert np.isfinite(a).all()
    assert len({field.tobytes() for field in a}) == 6
    assert 14 < a[:, 0].mean() < 16
    assert 0.5 < a[:, 1].std() < 4


def test_swaths_and_gauges_hide_pixels_of_both_channels():
    field = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    parts = []
    for index in range(50):
        seen = seen_between_swaths(field, 0, index)
        missing = np.isnan(seen)
        assert (missing[0] == missing[1]).all()
        np.testing.assert_array_equal(seen[~missing], field[~missing])
        parts.append(missing.mean())
    assert min(parts) > 0.02
    assert max(parts) < 0.5
    assert len(set(parts)) > 40
    gauged = seen_by_gauges(field, 200, 0, 3)
    assert np.isfinite(gauged).sum(axis=(1, 2)).tolist() == [200, 200]
    np.testing.assert_array_equal(gauged, seen_by_gauges(field, 200, 0, 3))
    assert not np.array_equal(gauged, seen_by_gauges(field, 200, 0, 4), equal_nan=True)
