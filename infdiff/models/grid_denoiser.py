"""A grid network alone on complete images: the network that EDM preconditions."""

from __future__ import annotations

from torch import Tensor, nn

from infdiff.models.unet import GridNetwork
from infdiff.nn.embedding import Conditioning

# c_noise is a quarter of ln sigma and spans 2.6 between the published noise levels; the time embedding's frequencies
# are made for about a thousand steps.
_STEPS_PER_UNIT = 400


class GridDenoiser(nn.Module):
    """F_theta of EDM: scaled images c_in x (B, C, H, W) and c_noise (B,) -> (B, C, H, W). A new one returns 0."""

    def __init__(self, network: GridNetwork, *, condition_dim: int) -> None:
        super().__init__()
        self.network = network
        self.conditioning = Conditioning(dim=condition_dim, z_dim=0)
        nn.init.zeros_(network.conv_out.weight)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.network(x, self.conditioning(_STEPS_PER_UNIT * c_noise, None))
