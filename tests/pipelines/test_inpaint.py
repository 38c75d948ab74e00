"""Inpainting: what holds of visible pixels, whatever the model is."""

import pytest
import torch

from infdiff.pipelines.inpaint import encode_visible, paste, reduce_visible


@pytest.fixture
def image(generator):
    return torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=generator) * 1.6 - 0.8, (24, 30), mode="bilinear"
    )


def test_pasting_keeps_visible_pixels_exactly_and_blends_the_seam(image):
    hidden = torch.zeros(24, 30, dtype=torch.bool)
    hidden[8:16, 8:20] = True
    variants = torch.cat([image + 0.2, image - 0.1]).clamp(-1, 1)
    out = paste(variants, image, hidden)
    assert torch.equal(out[..., ~hidden], image.expand(2, -1, -1, -1)[..., ~hidden])
    # A constant mistake shrinks to a third next to the seam and stays as it is far inside.
    seam = (out - image)[..., 8, 8:20].abs().mean(dim=(1, 2))
    inside = (out - image)[..., 11:13, 12:16].abs().mean(dim=(1, 2, 3))
    assert (seam < 0.35 * inside).all()
    torch.testing.assert_close(inside, torch.tensor([0.2, 0.1]), rtol=0.05, atol=0)


def test_pasting_fills_an_image_that_is_all_hidden(image):
    out = paste(image * 0.5, image, torch.ones(24, 30, dtype=torch.bool))
    torch.testing.assert_close(out, image * 0.5)


def test_a_reduced_image_is_the_mean_of_visible_pixels(image):
    hidden = torch.zeros(24, 30, dtype=torch.bool)
    hidden[3:13, 6:21] = True  # the cells of (8, 10) are of 3 x 3 pixels
    changed = torch.where(hidden, -image, image)
    small, small_hidden = reduce_visible(image, hidden, (8, 10))
    again, _ = reduce_visible(changed, hidden, (8, 10))
    torch.testing.assert_close(small, again)
    wanted = torch.zeros(8, 10, dtype=torch.bool)
    wanted[1:4, 2:7] = True  # the fifth row of cells is hidden in a third of its pixels
    assert torch.equal(small_hidden, wanted)
    torch.testing.assert_close(small[0, :, 4, 3], image[0, :, 13:15, 9:12].mean(dim=(1, 2)))
    torch.testing.assert_close(small[0, :, 6, 3], image[0, :, 18:21, 9:12].mean(dim=(1, 2)))


def test_the_latent_comes_from_visible_pixels_alone(image):
    class Mean(torch.nn.Module):
        def geometry(self, ids, size):
            return ids

        def forward(self, values, ids):
            return torch.cat([values.mean(dim=1), ids.float().mean(dim=1, keepdim=True)], dim=1)

    pixels = ((image + 1) * 127.5).to(torch.uint8)
    hidden = torch.zeros(24, 30, dtype=torch.bool)
    hidden[:, 10:] = True
    changed = torch.where(hidden, 255 - pixels, pixels)
    a, b = (encode_visible(Mean(), x, hidden, points=100, seed=0) for x in (pixels, changed))
    assert torch.equal(a, b)
    few = encode_visible(
        Mean(), pixels, ~torch.nn.functional.one_hot(torch.tensor(5), 720).view(24, 30).bool(), points=9, seed=0
    )
    assert few[0, -1] == 5
    with pytest.raises(ValueError, match="nothing to encode"):
        encode_visible(Mean(), pixels, torch.ones(24, 30, dtype=torch.bool), points=9, seed=0)
