"""Randomness as a function of its parts."""

import pytest
import torch

from infdiff.seeding import draw_part, seed_global


@pytest.mark.parametrize("weights", [(1, 6, 1), (0.0, 0.2, 0.8), (3,)])
def test_parts_are_drawn_with_their_weights(weights):
    count = 4000
    drawn = [draw_part(weights, 7, "subsample", step) for step in range(count)]
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        # Five standard deviations of the share.
        assert drawn.count(number) / count == pytest.approx(share, abs=5 * (share * (1 - share) / count) ** 0.5 + 1e-9)
    assert drawn == [draw_part(weights, 7, "subsample", step) for step in range(count)]
    if len(set(drawn)) > 1:
        assert drawn != [draw_part(weights, 8, "subsample", step) for step in range(count)]


@pytest.mark.parametrize("weights", [(0, 0), (1, -1), (2, -1)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        draw_part(weights, 1)


def test_dropout_draws_the_same_from_the_same_seed():
    def drawn(*parts):
        seed_global(torch.device("cpu"), *parts)
        return torch.nn.functional.dropout(torch.ones(1000))

    assert torch.equal(drawn(1, "dropout", 2), drawn(1, "dropout", 2))
    assert not torch.equal(drawn(1, "dropout", 2), drawn(1, "dropout", 3))
