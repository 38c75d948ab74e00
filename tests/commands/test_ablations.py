"""The rows of ∞-Diff's Table 2 train, sample at any size and are shown: each is a setting away."""

import pytest

from tests.conftest import TINY, assert_one_line_error, pixels

ROWS = {
    "Sparse Downsample": ["model.grid.kind=sparse", "model.grid.dropout=0.1"],
    "Nonlinear Kernel": ["model.nonlinear_kernel=true"],
    "Quasi Monte Carlo": ["train.points=halton"],
    "Regular Convs": ["model.depthwise=false"],
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_trains_and_samples(row, command):
    trained = command("train", "--steps", 2, "--out", "runs/x", *TINY, *ROWS[row])
    assert trained.returncode == 0, trained.stderr
    for size in ("16", "24x40"):
        sampled = command("sample", "--run", "runs/x", "--res", size, "--steps", 2, "--out", f"out-{size}")
        assert sampled.returncode == 0, sampled.stderr


def test_samples_without_a_grid_are_the_same_again_and_not_in_tiles(command, tmp_path):
    trained = command("train", "--steps", 2, "--out", "runs/x", *TINY, *ROWS["Sparse Downsample"])
    assert trained.returncode == 0, trained.stderr
    for out, batch in (("a", 2), ("b", 1)):
        done = command("sample", "--run", "runs/x", "--res", 20, "--n", 2, "--batch", batch, "--steps", 2, "--out", out)
        assert done.returncode == 0, done.stderr
    first, again = (sorted((tmp_path / out).glob("0*.png")) for out in "ab")
    assert len(first) == len(again) == 2
    for one, other in zip(first, again, strict=True):
        assert abs(pixels(one) - pixels(other)).max() <= 1
    refused = command("sample", "--run", "runs/x", "--tile", "4")
    assert_one_line_error(refused, "--tile 4", "kind sparse", "all rows")


def test_a_network_on_points_has_no_grid_to_scale_and_wants_points(command):
    refused = command("train", *TINY, *ROWS["Sparse Downsample"], "model.scale_grid=true")
    assert_one_line_error(refused, "model.scale_grid", "model.grid.kind: dfu")
    refused = command("train", "method=edm", "model.grid={kind: sparse}", "sample.sampler=heun", "sample.upscale=none")
    assert_one_line_error(refused, "model.grid.kind: sparse", "method: infinity_diff")
