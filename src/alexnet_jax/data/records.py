"""Prepared data sets: square images in ArrayRecord files, with a manifest and the mean image of the training split.

A data set is a folder:

    manifest.json                 classes, number of images, color components, checksums, skipped images
    mean_image.npy                float32 [size, size, 3], 0 to 255
    train-00000.array_record …    MessagePack records {"image", "label", "name"}

`data.prepare.shards` writes the folder under a temporary name and renames it when it is complete.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgpack
import numpy as np
from jaxtyping import Float

from alexnet_jax.data.class_names import printed_names
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError

FORMAT = 3
"""Version of the manifest format."""
Encoding = Literal["jpeg", "raw"]
"""Encoding of a record's image: "jpeg", or "raw" for uint8 pixels [size, size, 3], with ten times the space but no decoding."""


UNLABELED = -1
"""Label of images without a class, such as the test images of ILSVRC."""

MAX_SIZE = 1 << 14
"""Maximum side of prepared images, in pixels."""


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
      counts: number of images of each class, by split with labels.
      shards: record files of each split, in order.
      source: description of the source.
      left_out: files of the source that are not read, with the reason, one line each.
      plan: SHA-256 of the source's fingerprint, the options, and the versions of the image libraries, in hexadecimal.
      versions: versions of the image libraries.
      mean_image_sha256: `array_digest` of the mean image; empty in data sets of version 0.1.
      display_names: names of the classes to print, in the same order; empty if the source has none besides `classes`.
      unlabeled: splits without labels.
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
    mean_image_sha256: str = ""
    display_names: list[str] = field(default_factory=list)
    unlabeled: list[str] = field(default_factory=list)
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Check types, counts and ranges.

        Raises:
          ValueError: if a value is impossible; the message names it.
        """
        classes, splits = self.classes, self.splits
        checks = {
            "name": isinstance(self.name, str),
            "size": _is_count(self.size) and 0 < self.size <= MAX_SIZE,
            "classes": isinstance(classes, list) and len(classes) > 0 and _are_names(classes, len(classes)),
            "splits": isinstance(splits, dict)
            and set(splits) <= {"train", "validation", "test"}
            and _are_counts(splits.values()),
            "color_deviations": np.shape(self.color_deviations) == (3,) and bool(np.isfinite(self.color_deviations).all()),
            "color_directions": np.shape(self.color_directions) == (3, 3) and bool(np.isfinite(self.color_directions).all()),
            "skipped": isinstance(self.skipped, dict),
            "encoding": self.encoding in get_args(Encoding),
            "left_out": isinstance(self.left_out, list),
            "plan": isinstance(self.plan, str),
            "display_names": self.display_names == [] or _are_names(self.display_names, len(classes)),
            "unlabeled": isinstance(self.unlabeled, list) and set(self.unlabeled) <= set(splits) - set(self.counts),
        }
        if wrong := [name for name, valid in checks.items() if not valid]:
            raise ValueError(f"{', '.join(wrong)} cannot be")
        for split, counts in self.counts.items():
            if not isinstance(counts, list) or not _are_counts(counts) or len(counts) != len(classes):
                raise ValueError(f"counts of {split} do not match the classes")
            if sum(counts) != splits.get(split):
                raise ValueError(f"counts of {split} do not add up to the images of the split")
        for split, shards in self.shards.items():
            if not _are_counts(number for shard in shards for number in shard[1:3]):
                raise ValueError(f"shards of {split} cannot be")
            if any(not isinstance(shard.file, str) or Path(shard.file).name != shard.file for shard in shards):
                raise ValueError(f"shards of {split} are not files of the data set")
            if sum(shard.num_images for shard in shards) != splits.get(split):
                raise ValueError(f"shards of {split} do not add up to the images of the split")

    @property
    def printed_classes(self) -> list[str]:
        """Names of the classes to print, see `class_names.printed_names`."""
        return printed_names(self.classes, self.display_names)

    def class_of(self, label: int) -> str:
        """Return the name of a class, or an empty string for `UNLABELED`."""
        return "" if label == UNLABELED else self.classes[label]

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
        raise UserError(f"{self.path} has no {missing} images: add validation images to its source and prepare it again")

    def check_labeled(self, split: str) -> None:
        """Check that the images of a split have labels.

        Raises:
          UserError: if they have none.
        """
        if split in self.manifest.unlabeled:
            advice = f"write predictions with alexnet-jax predict RUN {self.path} --split {split}"
            raise UserError(f"the {split} images of {self.path} have no labels: {advice}, or choose another --split")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_names(names: object, count: int) -> bool:
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)


def _are_counts(values: Iterable[object]) -> bool:
    return all(map(_is_count, values))


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def read_array(file: Path, advice: str) -> np.ndarray:
    """Read a .npy file of numbers.

    Args:
      file: file to read.
      advice: end of the error message: what to do.

    Raises:
      UserError: if the file cannot be read, is damaged, or contains Python objects.
    """
    try:
        with open(file, "rb") as opened:
            np.lib.format.read_magic(opened)
            opened.seek(0)
            # The header is read by Python's parser, and the data must be in the file before memory is allocated for it.
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            return np.array(array)
    except FileNotFoundError as error:
        raise UserError(f"cannot read {file} (it is missing): {advice}") from error
    except Exception as error:  # NumPy raises exceptions of many types on a damaged header
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"cannot read {file} ({reason}): {advice}") from error


def check_mean_image(mean: np.ndarray, size: int, source: str | Path, advice: str) -> None:
    """Check that an array is a mean image.

    Args:
      mean: array to check.
      size: expected side, in pixels.
      source: file of the array, for the error message.
      advice: end of the error message: what to do.

    Raises:
      UserError: if it is not float32 [size, size, 3] with values from 0 to 255.
    """
    if mean.dtype != np.float32 or mean.shape != (size, size, 3):
        problem = f"is {mean.dtype} of shape {mean.shape}, expected float32 of shape {(size, size, 3)}"
    elif not np.isfinite(mean).all() or mean.min() < 0 or mean.max() > 255:
        problem = "has values that are not from 0 to 255"
    else:
        return
    raise UserError(f"the mean image of {source} {problem}: {advice}")


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
        values = json.loads((path / "manifest.json").read_text("utf-8"))
        if values["format"] != FORMAT:
            raise UserError(f"{path} was prepared by a different version of alexnet-jax: delete it and prepare it again")
        shards = {split: [Shard(*shard) for shard in files] for split, files in values.pop("shards").items()}
        return Manifest(**values, shards=shards)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a prepared data set (no manifest.json): create it with alexnet-jax prepare") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}/manifest.json is damaged ({reason}): delete {path} and prepare it again") from error


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
        _ = dataset.mean_image  # raises an error if it is damaged
        for shard in (shard for shards in manifest.shards.values() for shard in shards):
            if (size := (path / shard.file).stat().st_size) != shard.num_bytes:
                raise ValueError(f"{shard.file} has {size:,} bytes, expected {shard.num_bytes:,}")
    except FileNotFoundError as error:
        raise UserError(f"{path} is damaged ({Path(error.filename).name} is missing): delete it and prepare it again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    return dataset
