"""Windows of a large image: what they cover, how they are joined, and what a network sees through them."""

import itertools

import pytest
import torch

from infdiff.diffusion.conditions import Condition
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.pipelines.super_resolve import default_method, reduce, super_resolve_in_windows
from infdiff.pipelines.windows import WindowModel, Windows, add_detail, network_in_windows, window_of

SIZES = [((64, 64), (64, 64)), ((65, 200), (64, 64)), ((31, 17), (16, 16)), ((40, 9), (16, 9))]


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_joined_windows_are_the_image(size, window, generator):
    image = torch.rand(2, 3, *size, generator=generator)
    windows = Windows.over(size, window)
    parts = windows.split(image)
    assert parts.shape == (2 * len(windows.corners), 3, *window)
    torch.testing.assert_close(windows.join(parts), image)


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_windows_share_a_quarter_and_reach_the_border(size, window):
    corners = Windows.over(size, window).corners
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in corners})
        assert starts[0] == 0
        assert starts[-1] == size[axis] - window[axis]
        assert all(b - a <= 0.75 * window[axis] + 1 for a, b in itertools.pairwise(starts))


def test_a_window_is_never_larger_than_the_image():
    assert window_of((40, 200), (64, 64)) == (40, 64)


def test_a_seam_between_two_windows_is_a_ramp():
    windows = Windows.over((8, 28), (8, 16))
    left, right = torch.zeros(1, 1, 8, 16), torch.ones(1, 1, 8, 16)
    line = windows.join(torch.cat([left, right]))[0, 0, 4]
    steps = line.diff()
    assert (steps >= 0).all()
    assert steps.max() <= 0.5
    assert (line[:12] == 0).all()
    assert (line[16:] == 1).all()


def process(sigma=0.3):
    return MollifiedDiffusion(Mollifier(sigma, (16, 16)), target="v", data_std=0.5)


def test_noise_is_as_wide_in_pixels_as_in_training(generator):
    large = process(1.0).with_pixels_of((64, 48))
    assert large.mollifier.std((64, 48)) == (1.0, 1.0)
    noise = large.noise(400, 1, (64, 48), [generator] * 400)[..., 8:-8, 8:-8]  # reflected at the border
    torch.testing.assert_close(noise.std(), torch.tensor(large.noise_std), rtol=0.02, atol=0)
    assert process(1.0).mollifier.std((64, 48)) == (4.0, 3.0)


def exact(p):
    """The network that knows the windows of a clean image: they are its latents."""

    def network(x, t, clean, labels, known):
        cos, sin = p._angle(x, t)
        # v from the state and the clean image: x / scale = cos image + sin noise, v = cos noise - sin image.
        return (cos * x - clean / p.data_std) / sin

    return lambda count: network


def test_with_a_perfect_network_the_image_is_the_networks(generator):
    """Whatever is put in: here a constant image, and out comes what the network knows, every window at its place."""
    clean = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5, generator=generator) - 0.5, (40, 40))
    p = process(0.0)
    large = p.with_pixels_of((40, 40))
    parts = iter(Windows.over((40, 40), (16, 16)).split(clean).split(32))
    model = WindowModel(lambda windows: next(parts), exact(large), large, window=(16, 16))
    out = add_detail(torch.zeros(1, 3, 40, 40), model, seed=0, indices=[0], steps=4, noise=0.5)
    torch.testing.assert_close(out, clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sharp", [True, False])
def test_visible_pixels_stay_and_hidden_ones_are_the_networks(sharp, generator):
    """T does nothing here, so that a second output adds nothing to the first."""
    clean = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5, generator=generator) - 0.5, (40, 40))
    given = torch.zeros(1, 3, 40, 40)
    hidden = torch.zeros(40, 40, dtype=torch.bool)
    hidden[10:15, 5:25] = True
    large = process(0.0).with_pixels_of((40, 40))
    windows = Windows.over((40, 40), (16, 16), hidden)
    assert 0 < len(windows.corners) < len(Windows.over((40, 40), (16, 16)).corners)
    parts = iter(windows.split(clean).split(32))

    def with_second_output(count):
        network = exact(large)(count)
        return lambda x, *given: torch.cat([network(x, *given), torch.zeros_like(x)], dim=1)

    model = WindowModel(
        lambda windows: next(parts), with_second_output if sharp else exact(large), large, (16, 16), sharp
    )
    out = add_detail(given, model, seed=0, indices=[0], steps=4, noise=2.0, hidden=hidden)
    torch.testing.assert_close(out, torch.where(hidden, clean, given), atol=1e-4, rtol=0)


def test_super_resolution_in_windows_agrees_with_the_input_and_depends_on_its_own_seed(generator):
    p = process()
    small = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4, generator=generator) - 0.5, (16, 16), mode="bicubic")

    def enlarged(images, indices):
        model = WindowModel(
            lambda windows: windows.new_zeros(len(windows), 1),
            lambda count: lambda x, t, z, labels, known: torch.zeros_like(x),
            p.with_pixels_of((40, 48)),
            window=(16, 16),
        )
        return super_resolve_in_windows(model, images, size=(40, 48), seed=3, steps=3, indices=indices)

    both = enlarged(small, [5, 9])
    assert both.shape == (2, 3, 40, 48)
    assert (reduce(both, (16, 16)) - small).abs().mean() < 0.02
    torch.testing.assert_close(enlarged(small[1:], [9]), both[1:])
    assert not torch.allclose(enlarged(small[1:], [5]), both[1:])


def test_every_window_has_its_images_label_and_its_own_part_of_known_channels(generator):
    images, known = torch.zeros(2, 1, 40, 70), torch.rand(2, 1, 40, 70, generator=generator)
    labels = torch.tensor([[0.25], [0.75]])

    def network(x, t, z, labels, known):
        return torch.zeros_like(x) if labels is None else known + labels[..., None, None]

    p = process()
    model = WindowModel(lambda windows: windows.new_zeros(len(windows), 1), lambda count: network, p, (16, 16))
    for weight in (1.0, 2.5):
        seen = network_in_windows(images, model, condition=Condition(labels, known, weight))(images, torch.ones(2))
        torch.testing.assert_close(seen, weight * (known + labels[..., None, None]))


def test_windows_are_the_default_beyond_the_training_size():
    assert default_method((64, 65), (64, 64)) == "windows"
    assert default_method((64, 40), (64, 64)) == "guided"
