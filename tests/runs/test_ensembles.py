"""Spread and error of ensembles, against numpy and against the case in which they are equal."""

import numpy as np
import pytest
import torch

from infdiff.runs.ensembles import mean_and_spread, spread_skill_ratios


def test_mean_and_spread_are_those_of_numpy(generator):
    members = torch.randn(5, 2, 6, 7, generator=generator)
    mean, spread = mean_and_spread(members)
    np.testing.assert_allclose(mean, members.numpy().mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(spread, members.numpy().std(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_a_truth_drawn_like_the_members_has_the_ratio_one(count, generator):
    centre = torch.randn(1, 2, 300, 300, generator=generator)
    drawn = centre + torch.tensor([0.5, 20.0]).view(2, 1, 1) * torch.randn(count + 1, 2, 300, 300, generator=generator)
    members, truth = drawn[1:], drawn[0]
    everywhere = torch.ones(300, 300, dtype=torch.bool)
    assert spread_skill_ratios(members, truth, everywhere) == pytest.approx([1, 1], rel=0.01)
    mean = members.mean(dim=0)
    assert spread_skill_ratios(mean + 0.5 * (members - mean), truth, everywhere) == pytest.approx([0.5, 0.5], rel=0.01)


def test_pixels_that_are_known_or_have_no_truth_do_not_count(generator):
    members, truth = torch.randn(4, 1, 8, 8, generator=generator), torch.randn(1, 8, 8, generator=generator)
    where = torch.zeros(8, 8, dtype=torch.bool)
    where[:4] = True
    wanted = spread_skill_ratios(members[:, :, :3], truth[:, :3], where[:3])
    truth[:, 3:] = torch.nan
    assert spread_skill_ratios(members, truth, where) == pytest.approx(wanted)
