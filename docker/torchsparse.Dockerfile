# infdiff with TorchSparse as a backend, from the root of a checkout:
#   docker build -f docker/torchsparse.Dockerfile -t infdiff-torchsparse .
#   docker run --rm --gpus all infdiff-torchsparse infdiff doctor
# Not built by us yet. Checked: TorchSparse's set-up imports torch (hence --no-build-isolation), compiles for CUDA where
# FORCE_CUDA=1 says so and no device is there, and its sources include <google/dense_hash_map>, which is in Debian's
# package libsparsehash-dev.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04
# Ubuntu keeps one version of each of these, the one with the latest security fixes: a pin would soon name none.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git libsparsehash-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch for the CUDA of the image, and torchvision, which TorchSparse requires, of the same build: not
# pinned, so that pip takes the newest pair in the index of this CUDA.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cu128 \
    && pip install --no-cache-dir "setuptools>=77" wheel ninja
# No device is visible while an image is built: name those that it will run on.
ENV FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0 8.6 8.9 9.0"
WORKDIR /infdiff
COPY . .
# The package is the checkout; TorchSparse is pinned to a commit in pyproject.toml.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-build-isolation ".[torchsparse,cuda12]"
CMD ["infdiff", "doctor"]
