"""Restore blurred photographs with a trained run: any function of images measures them, no physics has to be inverted.

python examples/restore.py runs/photos photo.png
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import infdiff

NOISE = 0.02

run, picture = sys.argv[1:3]
model = infdiff.load(run)
height, width = model.size


def blurred(images: torch.Tensor) -> torch.Tensor:
    """The means over 5 x 5 pixels: images (B, 3, H, W) -> (B, 3, H - 4, W - 4)."""
    return F.avg_pool2d(images, 5, stride=1)


with Image.open(picture) as opened:
    photo = opened.convert("RGB").resize((width, height))
image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
measured = blurred(image)
measured += NOISE * torch.randn(measured.shape, generator=torch.Generator().manual_seed(0))

# No pseudo-inverse: guided by gradients. Latents of the blurred photograph are closer than drawn ones.
z = model.encode((measured.clamp(-1, 1) + 1) / 2)
for number, restored in enumerate(model.restore(measured, blurred, n=2, noise=NOISE, iterations=2, z=z)):
    restored.save(f"restored{number}.png")
