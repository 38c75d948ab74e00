"""A grid network alone on complete images: the network that EDM preconditions."""

from __future__ import annotations

from torch import Tensor, nn

from infdiff.models.unet import GridNetwork
from infdiff.nn.condition import together
from infdiff.nn.embedding import Conditioning
from infdiff.nn.norm import modulated_norms

# c_noise is a quarter of ln sigma and spans 2.6 between the published noise levels; the time embedding's frequencies
# are made for about a thousand steps.
_STEPS_PER_UNIT = 400


class GridDenoiser(nn.Module):
    """F_theta of EDM: scaled images c_in x (B, C, H, W) and c_noise (B,) -> (B, C, H, W). A new one returns 0.

    label_dim: length of the labels (B, label_dim) that say how training images were augmented; 0 for none.
    """

    def __init__(self, network: GridNetwork, *, condition_dim: int, label_dim: int = 0) -> None:
        super().__init__()
        self.network = network
        self.label_dim = label_dim
        # The label enters as a latent does.
        self.conditioning = Conditioning(dim=condition_dim, z_dim=label_dim)
        nn.init.zeros_(network.conv_out.weight)
        self.modulated = modulated_norms(self)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """label: None for images that nothing was applied to, as a label of zeros."""
        if label is None and self.label_dim:
            label = c_noise.new_zeros(c_noise.shape[0], self.label_dim)
        return self.network(x, together(self.modulated, self.conditioning(_STEPS_PER_UNIT * c_noise, label)))
