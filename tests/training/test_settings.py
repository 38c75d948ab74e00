"""The settings of a training run."""

import pytest

from infdiff.training.settings import OptimiserSettings


def test_learning_rate_warms_up_and_falls():
    settings = OptimiserSettings(steps=100, learning_rate=1.0, warmup=10, decay_from=0.5)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(9) == settings.rate(49) == 1.0
    assert settings.rate(75) == pytest.approx(0.5)
    assert settings.rate(99) == pytest.approx(0.02)
    assert OptimiserSettings(learning_rate=1.0).rate(10**6) == 1.0


@pytest.mark.parametrize(
    ("settings", "every", "batches"),
    [
        ({"steps": 4000, "checkpoint_every": 400}, 0, 60),  # 60 / 3 = a twentieth of 400
        ({"steps": 4000, "checkpoint_every": 400}, 100, 15),
        ({"steps": 20, "checkpoint_every": 400}, 0, 3),
        ({"steps": 20, "checkpoint_every": 400, "accumulate": 4}, 0, 12),
        ({"steps": 2}, 0, 1),
    ],
)
def test_validation_lasts_a_twentieth_of_the_steps_between(settings, every, batches):
    assert OptimiserSettings(**settings).validation_batches(every) == batches
