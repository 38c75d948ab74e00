"""The networks on points are compiled whole: one graph, forward and backward, that new points do not change."""

import copy

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.points import draw_points
from tests.conftest import TINY

SIZE, POINTS = (16, 16), 64


def inputs(seed):
    """ids, features at them, times and latents."""
    generator = torch.Generator().manual_seed(seed)
    ids = draw_points(2, POINTS, SIZE, generator)
    x, z = (torch.randn(shape, generator=generator) for shape in ((2, POINTS, 3), (2, 8)))
    return ids, x, torch.tensor([3, 500]), z


def gradients(module, out):
    return torch.autograd.grad(out.square().sum(), [p for p in module.parameters() if p.requires_grad])


@pytest.mark.parametrize("name", ["denoiser", "encoder"])
def test_a_network_is_one_graph_for_all_points(name):
    torch.manual_seed(0)
    network = build_modules(load_config("demo", [*TINY, "model.grid.dropout=0.0"]))[name]
    eager = copy.deepcopy(network)  # latents' running statistics are updated by each call in training
    # fullgraph: a break is an error.
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        ids, x, t, z = inputs(seed)
        arguments = (x, network.geometry(ids, SIZE), *((t, z) if name == "denoiser" else ()))
        expected = eager(*arguments)
        with torch.compiler.set_stance("fail_on_recompile" if seed else "default"):
            found = compiled(*arguments)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for a, b in zip(gradients(network, found), gradients(eager, expected), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
