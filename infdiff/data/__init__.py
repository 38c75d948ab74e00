"""Images on disk: the LMDB store, how it is prepared, and batches in a reproducible order."""

from infdiff.data.batches import batches, first_batches, mixed_batches
from infdiff.data.demo import DEMO_PATH
from infdiff.data.examples import Examples, ResizableExamples
from infdiff.data.image_folder import ImageFolder
from infdiff.data.image_set import CACHES, ImageSet, split
from infdiff.data.latents import Latents, LatentSet, encode_data, encode_images, load_latents
from infdiff.data.mixture import Mixture
from infdiff.data.point_examples import PointExamples, PointReader
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import SOURCES, Source, open_source
from infdiff.data.store import FORMATS, ImageStore
from infdiff.data.upsampled import Upsampled

__all__ = [
    "CACHES",
    "DEMO_PATH",
    "FORMATS",
    "SOURCES",
    "Examples",
    "ImageFolder",
    "ImageSet",
    "ImageStore",
    "LatentSet",
    "Latents",
    "Mixture",
    "PointExamples",
    "PointReader",
    "Recipe",
    "ResizableExamples",
    "Source",
    "Upsampled",
    "batches",
    "encode_data",
    "encode_images",
    "first_batches",
    "load_latents",
    "mixed_batches",
    "open_source",
    "prepare",
    "split",
]
