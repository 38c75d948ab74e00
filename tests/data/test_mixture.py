"""Which resolution a step is trained on: its weights, and that nothing but (seed, step) decides."""

import itertools
import os
import subprocess
import sys

import pytest

from infdiff.data.mixture import Mixture


def parts(mixture, count, first=0):
    return [mixture.part(step) for step in range(first, first + count)]


@pytest.mark.parametrize("weights", [(0.1, 0.2, 0.7), (1, 2, 7), (0, 1, 3), (5, 0, 0)])
def test_parts_are_drawn_with_their_weights_whatever_they_sum_to(weights):
    drawn = parts(Mixture(weights, (1, 1, 1), seed=0), 4000)
    for part, weight in enumerate(weights):
        share = weight / sum(weights)
        # Five standard deviations of the share of 4000 draws.
        assert drawn.count(part) / 4000 == pytest.approx(share, abs=5 * (share * (1 - share) / 4000) ** 0.5 + 1e-9)


def test_the_order_is_a_function_of_seed_and_step_in_every_process():
    expected = parts(Mixture((1, 1, 2), (4, 4, 4), seed=3), 64)
    code = (
        "from infdiff.data.mixture import Mixture; m = Mixture((1, 1, 2), (4, 4, 4), seed=3);"
        "print([m.part(s) for s in reversed(range(64))][::-1])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "RANK": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == str(expected), result.stderr
    assert parts(Mixture((1, 1, 2), (4, 4, 4), seed=4), 64) != expected


@pytest.mark.parametrize("batch_sizes", [(4, 4), (5, 2)])
def test_draws_from_any_step_on_continue_those_from_the_first(batch_sizes):
    mixture = Mixture((1, 2), batch_sizes, seed=1, batches_a_step=3)
    whole = list(itertools.islice(mixture.draws(0), 60))
    assert [part for part, _ in whole] == [mixture.part(step) for step in range(20) for _ in range(3)]
    assert all(count == batch_sizes[part] for part, count in whole)
    for step in (0, 1, 7, 19):
        assert list(itertools.islice(mixture.draws(step), 60 - 3 * step)) == whole[3 * step :]
        assert mixture.images_before(step) == sum(count for _, count in whole[: 3 * step])


@pytest.mark.parametrize("weights", [(0, 0), (1, -1), (1,), (2, -1)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="not negative, not all 0"):
        Mixture(weights, (4, 4), seed=0)
