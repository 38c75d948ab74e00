"""Published statistics in place of real images: the mean and covariance of their features."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infdiff.errors import OptionError
from infdiff.metrics.distances import Gaussian
from infdiff.metrics.features import FeatureNetwork

# The metrics that need no more of the real images.
METRICS_OF_STATISTICS = ("frechet",)
# Names of the mean and the covariance: those of clean-fid, ADM and EDM first.
_KEYS = (("mu", "sigma"), ("mean", "cov"))


def holds_statistics(path: Path | None) -> bool:
    """Return True for the name of a file of statistics, which ends in .npz."""
    return path is not None and path.suffix.lower() == ".npz"


@dataclass(frozen=True)
class PublishedStatistics:
    """The Gaussian of real images' features, as a file tells it."""

    path: Path
    gaussian: Gaussian

    @classmethod
    def open(cls, path: Path) -> PublishedStatistics:
        """Read an .npz with mu (D,) and sigma (D, D), or mean and cov. Raises OptionError when it holds none."""
        try:
            # Opened here, because np.load leaves a damaged file open.
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                keys = next((pair for pair in _KEYS if set(pair) <= set(file.files)), None)
                if keys is None:
                    held = ", ".join(file.files[:8]) or "nothing"
                    raise OptionError("data", path, f"holds {held}: want mu and sigma, or mean and cov")
                mean, covariance = (torch.from_numpy(np.asarray(file[key], dtype=np.float64)) for key in keys)
            return cls(path, Gaussian.of_moments(mean, covariance))
        except OptionError:
            raise
        except FileNotFoundError as error:
            raise OptionError("data", path, "there is no such file") from error
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise OptionError("data", path, f"cannot be read as statistics of features ({reason})") from error

    def require(self, networks: Sequence[FeatureNetwork]) -> None:
        """Raise OptionError for a network whose features cannot be those of the statistics."""
        held = len(self.gaussian.mean)
        for network in networks:
            if network.dimension != held:
                raise OptionError(
                    "data",
                    self.path,
                    f"holds {held} features, {network.name} has {network.dimension}: name the network that they are of "
                    "with --network",
                )

    def about(self) -> dict[str, Any]:
        """Return a record of the statistics, for JSON."""
        return {"data": str(self.path), "statistics": "mean and covariance", "features": len(self.gaussian.mean)}
