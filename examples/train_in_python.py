"""Train ∞-Diff on the embedded faces without scripts and settings: the objects, and how they fit together."""

import os

import torch

from infdiff.data.demo import DEMO_PATH
from infdiff.data.image_set import ImageSet
from infdiff.data.store import ImageStore
from infdiff.diffusion import MollifiedDiffusion, Mollifier
from infdiff.models import GridUNet, SparseUNet
from infdiff.training import MollifiedObjective

STEPS, BATCH, SIZE = int(os.environ.get("STEPS", "200")), 8, (32, 32)

torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
faces = ImageSet(ImageStore(DEMO_PATH), list(range(126)), SIZE, cache="ram")

inner = GridUNet(
    in_channels=32,
    out_channels=32,
    size=16,
    channels=32,
    multipliers=(1, 2),
    blocks=1,
    attention_sizes=(8,),
    condition_dim=128,
)
denoiser = SparseUNet(inner, base=SIZE, grid=(16, 16), channels=32, kernel_size=5, blocks=2, condition_dim=128)
process = MollifiedDiffusion(Mollifier(1.0, SIZE), target="v")
objective = MollifiedObjective(process, points=lambda size, _: size[0] * size[1] // 4, kind="uniform", flip=True)

optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
for step in range(1, STEPS + 1):
    images = faces.take(torch.randint(len(faces), (BATCH,), generator=generator))
    loss = objective({"denoiser": denoiser}, images, generator)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.3f}")
