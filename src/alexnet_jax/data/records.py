"""Prepared data sets: square images in ArrayRecord files, with a manifest and the mean image of the training split.

A data set is a folder:

    manifest.json                 classes, number of images, color components, checksums, skipped images
    mean_image.npy                float32 [size, size, 3], 0 to 255
    train-00000.array_record …    MessagePack records {"image", "label", "name"}

`data.prepare.shards` writes the folder under a temporary name and renames it when it is complete.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgpack
import numpy as np
from jaxtyping import Float

from alexnet_jax.data.manifest import Manifest, read_manifest
from alexnet_jax.data.npy_file import array_digest, read_array
from alexnet_jax.data.statistics import ColorComponents, check_mean_image
from alexnet_jax.errors import UserError

UNLABELED = -1
"""Label of images without a class, such as the test images of ILSVRC."""


class Record(NamedTuple):
    """Prepared image with its label and name.

    Attributes:
      image: square image in the manifest's `encoding`.
      label: class index, from 0; `UNLABELED` in splits without labels.
      name: name of the image in its source.
    """

    image: bytes
    label: int
    name: str


@dataclass(frozen=True)
class Dataset:
    """Prepared data set: its folder, and the content of its `manifest.json`."""

    path: Path
    manifest: Manifest

    def shards(self, split: str) -> list[str]:
        """Return the paths of a split's record files, in order."""
        return [str(self.path / shard.file) for shard in self.manifest.shards.get(split, [])]

    def class_of(self, label: int) -> str:
        """Return the name of a class, or an empty string for `UNLABELED`."""
        return "" if label == UNLABELED else self.manifest.classes[label]

    @property
    def majority_error(self) -> float:
        """Error of always predicting the most frequent class of the evaluation split."""
        counts = self.manifest.counts[self.evaluation_split]
        return 1 - max(counts) / sum(counts)

    @property
    def checksum(self) -> str:
        """Checksum of the images and labels of all splits, from those of the record files."""
        shards = sorted((split, shard.sha256) for split, shards in self.manifest.shards.items() for shard in shards)
        return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        """Mean of the training images, 0 to 255, float32; read from the file on each access.

        Raises:
          UserError: if the file is missing or damaged.
        """
        file, advice = self.path / "mean_image.npy", f"delete {self.path} and prepare it again"
        mean = read_array(file, advice)
        check_mean_image(mean, self.manifest.size, file, advice)
        if self.manifest.mean_image_sha256 not in ("", array_digest(mean)):
            raise UserError(f"{file} is damaged (checksum mismatch): {advice}")
        return mean

    @property
    def color_components(self) -> ColorComponents:
        """Principal components of the training images' colors."""
        return ColorComponents(np.array(self.manifest.color_deviations), np.array(self.manifest.color_directions))

    @property
    def evaluation_split(self) -> str:
        """Split used for evaluation: "validation", or "test" if there is no validation split.

        Raises:
          UserError: if the data set has neither split with labels.
        """
        for split in ("validation", "test"):
            if split in self.manifest.splits and split not in self.manifest.unlabeled:
                return split
        missing = "labeled validation or test" if self.manifest.unlabeled else "validation or test"
        raise UserError(
            f"{self.path} has no {missing} images: add images to its classes, or a validation split, and prepare it again"
        )

    def check_labeled(self, split: str) -> None:
        """Check that the images of a split have labels.

        Raises:
          UserError: if they have none.
        """
        if split in self.manifest.unlabeled:
            advice = f"write predictions with alexnet-jax predict RUN {self.path} --split {split}"
            raise UserError(f"the {split} images of {self.path} have no labels: {advice}, or choose another --split")


def pack(record: Record) -> bytes:
    """Serialize a record."""
    packed = msgpack.packb(record._asdict())
    assert packed is not None
    return packed


def unpack(data: bytes) -> Record:
    """Deserialize a record written by `pack`."""
    return Record(**msgpack.unpackb(data))


def is_prepared(path: Path) -> bool:
    """Return whether `path` is the folder of a prepared data set; another program's folder may have a manifest.json, too."""
    return (path / "manifest.json").is_file() and ((path / "mean_image.npy").is_file() or any(path.glob("*.array_record")))


def open_dataset(path: Path) -> Dataset:
    """Open a prepared data set.

    Checks that all files exist and have the expected sizes; `prepare --verify` also checks their content.

    Raises:
      UserError: if the data set has a different format version, or one of its files is missing or damaged.
      OSError: if the system refuses to read it, which is no damage.
    """
    dataset = Dataset(path, read_manifest(path))
    manifest = dataset.manifest
    try:
        _ = dataset.mean_image  # raises an error if it is damaged
        for shard in (shard for shards in manifest.shards.values() for shard in shards):
            if (size := (path / shard.file).stat().st_size) != shard.num_bytes:
                raise ValueError(f"{shard.file} has {size:,} bytes, expected {shard.num_bytes:,}")
    except FileNotFoundError as error:
        raise UserError(f"{path} is damaged ({Path(error.filename).name} is missing): delete it and prepare it again") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    return dataset
