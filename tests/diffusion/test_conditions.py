"""Classifier-free guidance, and conditions that are left out."""

import pytest
import torch

from infdiff.diffusion.conditions import Condition, draw_dropped, dropped, guided_network, with_known


@pytest.mark.parametrize(("weight", "expected", "calls"), [(0, 3.0, 1), (1, 5.0, 1), (2, 7.0, 2), (0.5, 4.0, 2)])
def test_guidance_is_the_line_through_both_predictions(weight, expected, calls):
    seen = []

    def network(x, t, labels, known):
        seen.append(labels)
        return torch.full_like(x, 3.0 if labels is None else 5.0)

    guided = guided_network(network, Condition(torch.ones(2, 4), None, weight))
    assert torch.equal(guided(torch.zeros(2, 3, 4, 4), torch.ones(2)), torch.full((2, 3, 4, 4), expected))
    assert len(seen) == calls


def test_guidance_without_a_condition_is_nothing():
    guided = guided_network(lambda x, t, labels, known: x + 1, Condition(guidance=5.0))
    assert torch.equal(guided(torch.zeros(1, 1, 2, 2), torch.ones(1)), torch.ones(1, 1, 2, 2))


def test_guidance_of_a_gaussian_of_two_classes_is_that_of_bayes_rule():
    """Classes of mean -1 and 1: the score of p(x | c) p(c | x)^(w - 1), differentiated by autograd."""
    sigma, weight = 0.7, 2.5
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    logs = -((x.view(-1, 1) - means) ** 2) / (2 * sigma**2)
    joint = weight * logs[:, 1] - (weight - 1) * torch.logsumexp(logs, dim=1)
    (score,) = torch.autograd.grad(joint.sum(), x)

    def mean_of(x, t, labels, known):
        share = torch.softmax(-((x.view(-1, 1) - means) ** 2) / (2 * sigma**2), dim=1)
        return (torch.full_like(x, 1.0) if labels is not None else (share @ means).view_as(x)).detach()

    estimate = guided_network(mean_of, Condition(torch.ones(9, 2), None, weight))(x.detach(), torch.ones(9))
    torch.testing.assert_close((estimate - x.detach()) / sigma**2, score)


@pytest.mark.parametrize("kinds", [1, 2])
def test_conditions_are_dropped_as_often_as_asked(kinds, generator):
    assert draw_dropped(50, 1.0, kinds, generator).all()
    assert not draw_dropped(50, 0.0, kinds, generator).any()
    draws = draw_dropped(40_000, 0.1, kinds, generator).double()
    each = 0.1 if kinds == 1 else 1 - 0.9**2
    torch.testing.assert_close(draws.mean(0), torch.full((kinds,), each).double(), atol=0.006, rtol=0)
    together = draws.prod(dim=1).mean().item()
    assert together == pytest.approx(0.1 if kinds == 1 else 0.1 + 0.9 * 0.01, abs=0.006)


def test_dropped_rows_are_zero_whatever_they_held():
    rows = torch.tensor([[1.0, torch.nan], [3.0, 4.0]])
    assert torch.equal(dropped(rows, torch.tensor([True, False])), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))


def test_what_is_not_known_is_zero_in_all_channels_and_marked():
    values = torch.tensor([[[1.0, 2.0], [3.0, torch.nan]]])  # (1, 2, 2): the second point is missing
    assert torch.equal(with_known(values), torch.tensor([[[1.0, 0.0], [3.0, 0.0], [1.0, 0.0]]]))
