"""A program for tests: every process denoises in bands with the others and by itself, and compares.

Called by several processes as torchrun starts them. Prints the largest difference, of the largest value.
"""

import sys

import torch

from infdiff import processes
from infdiff.models import denoise_tiled
from tests.models.test_tiled import denoiser, inputs

CASES = [
    ((33, 20), 5, ("model.blocks=3", "model.kernel_size=7")),
    ((64, 16), 1000, ("model.blocks=2", "model.kernel_size=5", "model.depthwise=false")),
    ((21, 24), 2, ("model.blocks=1", "model.kernel_size=5", "model.nonlinear_kernel=true")),
    ((40, 24), 8, ("model.grid.kind=dfu", "model.grid.modes=3", "model.scale_grid=true", "model.sharp=true")),
    ((1, 16), 4, ("model.blocks=1",)),
]


def main():
    generator, worst = torch.Generator().manual_seed(0), 0.0
    with processes.together(torch.device("cpu")):
        for size, rows, settings in CASES:
            model, given = denoiser(*settings), inputs(size, generator)
            with processes.apart():
                expected = denoise_tiled(model, *given, tile_rows=rows)
            found = denoise_tiled(model, *given, tile_rows=rows)
            worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    sys.stdout.write(f"{worst}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
