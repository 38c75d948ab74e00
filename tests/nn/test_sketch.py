"""The latent as a coarse image."""

import torch

from infdiff.nn.sketch import Sketch


def sketch():
    torch.manual_seed(0)
    layer = Sketch(5, 8, 4)
    assert not any(parameter.any() for parameter in layer.parameters()), "it starts at zero"
    torch.nn.init.normal_(layer.linear.weight)
    return layer


def test_it_is_linear_in_the_latent_and_differs_from_place_to_place(generator):
    layer = sketch()
    a, b = torch.randn(2, 3, 5, generator=generator)
    torch.testing.assert_close(layer(2 * a - b, (9, 7)), 2 * layer(a, (9, 7)) - layer(b, (9, 7)), rtol=1e-4, atol=1e-4)
    assert layer(a, (9, 7)).std(dim=(2, 3)).min() > 0.1


def test_it_is_the_same_function_at_every_size_of_the_grid(generator):
    """At its own size it is the coarse image; on a grid of twice the cells, means over pairs are near it."""
    layer, z = sketch(), torch.randn(2, 5, generator=generator)
    coarse = layer(z, (4, 4))
    torch.testing.assert_close(coarse, layer.linear(z).view(2, 8, 4, 4))
    fine = torch.nn.functional.avg_pool2d(layer(z, (8, 8)), 2)
    assert (fine - coarse).abs().mean() < 0.5 * coarse.std()
