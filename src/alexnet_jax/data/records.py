"""A prepared data set: a folder of square images in ArrayRecord files, with a manifest and the training set's mean image.

    manifest.json                 classes, images of each, color components, checksums, what was skipped
    mean_image.npy                float32 [size, size, 3], 0 to 255
    train-00000.array_record …    records of {"image", "label", "name"} in MessagePack

The folder appears under its name only when it is complete. `shards` writes it, `prepare` from what people have.
"""

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
Encoding = Literal["jpeg", "raw"]
"""How a record holds an image: as JPEG, or as the bytes of its pixels [size, size, 3]: ten times the disk, no decoding."""


class Record(NamedTuple):
    """One square image, as the manifest's `encoding` says, number of its class, and where it came from."""

    image: bytes
    label: int
    name: str


class Shard(NamedTuple):
    """A file of records: its name, images, bytes and SHA-256."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is in a prepared data set.

    Attributes:
      name: of the folder it was made as.
      size: side of the images, pixels.
      classes: their names; a label is a place in this list.
      splits: images in each split.
      color_deviations: see `statistics.ColorComponents`, as are the directions.
      skipped: images that could not be read, and why.
      encoding: how records hold images.
      counts: images of each class in each split.
      shards: the files of each split, in order.
      source: what the images came from.
      left_out: what of the source is not in here by rule, and why.
      plan: changes with the source, the settings, and the versions of the libraries that make the pixels.
      versions: of these.
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
        """The text of `manifest.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Dataset:
    """A prepared data set that has been opened."""

    path: Path
    manifest: Manifest

    def shards(self, split: str) -> list[str]:
        """Files of a split, in order."""
        return [str(self.path / shard.file) for shard in self.manifest.shards.get(split, [])]

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        """Mean of the training images, gray levels 0 to 255, float32; read anew at each call."""
        return np.load(self.path / "mean_image.npy", allow_pickle=False)

    @property
    def color_components(self) -> ColorComponents:
        """Principal components of the colors of the training images."""
        return ColorComponents(np.array(self.manifest.color_deviations), np.array(self.manifest.color_directions))

    @property
    def evaluation_split(self) -> str:
        """The split that the error is measured on: validation, or test if there is none.

        Raises:
          UserError: if there is neither.
        """
        for split in ("validation", "test"):
            if split in self.manifest.splits:
                return split
        raise UserError(f"{self.path} has no validation or test images to measure the error on: add some and prepare it again")


def pack(record: Record) -> bytes:
    """The bytes of a record, as shards hold them."""
    packed = msgpack.packb(record._asdict())
    assert packed is not None
    return packed


def unpack(data: bytes) -> Record:
    """The record that `pack` has made the bytes of."""
    return Record(**msgpack.unpackb(data))


def is_prepared(path: Path) -> bool:
    """Whether a data set lies there that was finished."""
    return (path / "manifest.json").is_file()


def read_manifest(path: Path) -> Manifest:
    """The manifest of a prepared data set.

    Raises:
      UserError: if it is missing, damaged, or of another version.
    """
    try:
        values = json.loads((path / "manifest.json").read_text())
        if values["format"] != FORMAT:
            raise UserError(f"{path} was prepared by another version of alexnet-jax: delete it and prepare it again")
        shards = {split: [Shard(*shard) for shard in files] for split, files in values.pop("shards").items()}
        return Manifest(**values, shards=shards)
    except FileNotFoundError as error:
        raise UserError(f"{path} is no prepared data set: it has no manifest.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}/manifest.json is damaged ({error}): delete {path} and prepare it again") from error


def open_dataset(path: Path) -> Dataset:
    """Opens a prepared data set.

    Raises:
      UserError: if it is of another version, or a file of it is missing or damaged.
    """
    dataset = Dataset(path, read_manifest(path))
    manifest = dataset.manifest
    try:
        if (shape := dataset.mean_image.shape) != (manifest.size, manifest.size, 3):
            raise ValueError(f"mean_image.npy has the shape {shape}")
        for shard in (shard for shards in manifest.shards.values() for shard in shards):
            if (size := (path / shard.file).stat().st_size) != shard.bytes:
                raise ValueError(f"{shard.file} has {size:,} bytes, not {shard.bytes:,}")
    except FileNotFoundError as error:
        raise UserError(f"{path} lacks its {Path(error.filename).name}: delete it and prepare it again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    return dataset
