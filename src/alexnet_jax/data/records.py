"""Prepared data sets: square images in ArrayRecord files, with a manifest and the mean image of the training split.

A data set is a folder:

    manifest.json                 classes, number of images, color components, checksums, skipped images
    mean_image.npy                float32 [size, size, 3], 0 to 255
    train-00000.array_record …    MessagePack records {"image", "label", "name"}

`data.prepare.shards` writes the folder under a temporary name and renames it when it is complete.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import msgpack
import numpy as np
from jaxtyping import Float

from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError

FORMAT = 3
"""Version of the manifest format."""
Encoding = Literal["jpeg", "raw"]
"""Encoding of a record's image: "jpeg", or "raw" for uint8 pixels [size, size, 3], with ten times the space but no decoding."""


class Record(NamedTuple):
    """Prepared image with its label and name.

    Attributes:
      image: square image in the manifest's `encoding`.
      label: class index, from 0.
      name: name of the image in its source.
    """

    image: bytes
    label: int
    name: str


class Shard(NamedTuple):
    """Manifest entry of one record file.

    Attributes:
      file: file name.
      num_images: number of records.
      num_bytes: file size, in bytes.
      sha256: SHA-256 of the file, in hexadecimal.
    """

    file: str
    num_images: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Description of a prepared data set, stored as `manifest.json`.

    Attributes:
      name: name of the data set's folder when it was prepared.
      size: side of the images, in pixels.
      classes: class names; a label is an index into this list.
      splits: number of images in each split.
      color_deviations: `statistics.ColorComponents.deviations` of the training images.
      color_directions: `statistics.ColorComponents.directions` of the training images.
      skipped: reason for each image that could not be read, by name.
      encoding: encoding of the images.
      counts: number of images of each class, by split.
      shards: record files of each split, in order.
      source: description of the source.
      left_out: images excluded by a rule of the source, with the reason, one line each.
      plan: SHA-256 of the source's fingerprint, the options, and the versions of the image libraries, in hexadecimal.
      versions: versions of the image libraries.
      format: version of the manifest format.
    """

    name: str
    size: int
    classes: list[str]
    splits: dict[str, int]
    color_deviations: list[float]
    color_directions: list[list[float]]
    skipped: dict[str, str] = field(default_factory=dict)
    encoding: Encoding = "jpeg"
    counts: dict[str, list[int]] = field(default_factory=dict)
    shards: dict[str, list[Shard]] = field(default_factory=dict)
    source: str = ""
    left_out: list[str] = field(default_factory=list)
    plan: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the content of `manifest.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Dataset:
    """Prepared data set.

    Attributes:
      path: folder of the data set.
      manifest: content of its `manifest.json`.
    """

    path: Path
    manifest: Manifest

    def shards(self, split: str) -> list[str]:
        """Return the paths of a split's record files, in order."""
        return [str(self.path / shard.file) for shard in self.manifest.shards.get(split, [])]

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
        """Mean of the training images, 0 to 255, float32; read from the file on each access."""
        return np.load(self.path / "mean_image.npy", allow_pickle=False)

    @property
    def color_components(self) -> ColorComponents:
        """Principal components of the training images' colors."""
        return ColorComponents(np.array(self.manifest.color_deviations), np.array(self.manifest.color_directions))

    @property
    def evaluation_split(self) -> str:
        """Split used for evaluation: "validation", or "test" if there is no validation split.

        Raises:
          UserError: if the data set has neither split.
        """
        for split in ("validation", "test"):
            if split in self.manifest.splits:
                return split
        raise UserError(f"{self.path} has no validation or test images: add validation images to its source and prepare it again")


def pack(record: Record) -> bytes:
    """Serialize a record."""
    packed = msgpack.packb(record._asdict())
    assert packed is not None
    return packed


def unpack(data: bytes) -> Record:
    """Deserialize a record written by `pack`."""
    return Record(**msgpack.unpackb(data))


def is_prepared(path: Path) -> bool:
    """Return whether `path` is the folder of a prepared data set."""
    return (path / "manifest.json").is_file()


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a prepared data set.

    Args:
      path: folder of the data set.

    Raises:
      UserError: if the manifest is missing, damaged, or has a different format version.
    """
    try:
        values = json.loads((path / "manifest.json").read_text())
        if values["format"] != FORMAT:
            raise UserError(f"{path} was prepared by a different version of alexnet-jax: delete it and prepare it again")
        shards = {split: [Shard(*shard) for shard in files] for split, files in values.pop("shards").items()}
        return Manifest(**values, shards=shards)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a prepared data set (no manifest.json): create it with alexnet-jax prepare") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}/manifest.json is damaged ({error}): delete {path} and prepare it again") from error


def open_dataset(path: Path) -> Dataset:
    """Open a prepared data set.

    Checks that all files exist and have the expected sizes; `prepare --verify` also checks their content.

    Args:
      path: folder of the data set.

    Raises:
      UserError: if the data set has a different format version, or one of its files is missing or damaged.
    """
    dataset = Dataset(path, read_manifest(path))
    manifest = dataset.manifest
    try:
        if (shape := dataset.mean_image.shape) != (expected := (manifest.size, manifest.size, 3)):
            raise ValueError(f"mean_image.npy has shape {shape}, expected {expected}")
        for shard in (shard for shards in manifest.shards.values() for shard in shards):
            if (size := (path / shard.file).stat().st_size) != shard.num_bytes:
                raise ValueError(f"{shard.file} has {size:,} bytes, expected {shard.num_bytes:,}")
    except FileNotFoundError as error:
        raise UserError(f"{path} is damaged ({Path(error.filename).name} is missing): delete it and prepare it again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    return dataset
