"""Where training runs in bfloat16."""

import pytest
import torch

from infdiff.precision import has_fast_bfloat16, without_autocast


@pytest.mark.parametrize(("amx", "fast"), [(True, True), (False, False)])
def test_cpus_are_fast_with_matrix_units_alone(amx, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is fast
    assert has_fast_bfloat16(torch.device("cuda"))


def test_autocast_is_off_inside():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x.device):
            assert (x @ x).dtype == torch.float32
    with without_autocast(torch.device("meta")):
        pass
