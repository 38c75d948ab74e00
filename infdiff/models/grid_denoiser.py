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

    augmentation_dim: length of the labels (B, augmentation_dim) that say how training images were augmented; 0 for
    none. label_dim: length of those (B, label_dim) that say what images are. in_channels: those that the network reads;
    x may lack the last of them, a condition known at every pixel, which then is zeros.
    """

    def __init__(
        self,
        network: GridNetwork,
        *,
        condition_dim: int,
        augmentation_dim: int = 0,
        label_dim: int = 0,
        in_channels: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.augmentation_dim, self.in_channels = augmentation_dim, in_channels
        # What augmentation did enters as a latent does.
        self.conditioning = Conditioning(dim=condition_dim, z_dim=augmentation_dim, label_dim=label_dim)
        nn.init.zeros_(network.conv_out.weight)
        self.modulated = modulated_norms(self)

    def forward(
        self, x: Tensor, c_noise: Tensor, augmentation: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """augmentation: None for images that nothing was applied to, as zeros. label: None, or zeros, for none."""
        if augmentation is None and self.augmentation_dim:
            augmentation = c_noise.new_zeros(c_noise.shape[0], self.augmentation_dim)
        if x.shape[1] < self.in_channels:
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, self.in_channels - x.shape[1]))
        condition = self.conditioning(_STEPS_PER_UNIT * c_noise, augmentation, label)
        return self.network(x, together(self.modulated, condition))
