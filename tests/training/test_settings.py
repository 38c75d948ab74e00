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
