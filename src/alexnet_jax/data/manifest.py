"""Manifest of a prepared data set: its classes, splits, record files and checksums."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from alexnet_jax.data.class_names import printed_names
from alexnet_jax.errors import UserError, one_line

FORMAT = 3
"""Version of the manifest format."""
Encoding = Literal["jpeg", "raw"]
"""Encoding of a record's image: "jpeg", or "raw" for uint8 pixels [size, size, 3], with ten times the space but no decoding."""
MAX_SIZE = 1 << 14
"""Maximum side of prepared images, in pixels."""


class Shard(NamedTuple):
    """Manifest entry of one record file."""

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
            "classes": isinstance(classes, list) and len(classes) > 0 and are_names(classes, len(classes)),
            "splits": isinstance(splits, dict)
            and set(splits) <= {"train", "validation", "test"}
            and _are_counts(splits.values()),
            "color_deviations": np.shape(self.color_deviations) == (3,) and bool(np.isfinite(self.color_deviations).all()),
            "color_directions": np.shape(self.color_directions) == (3, 3) and bool(np.isfinite(self.color_directions).all()),
            "skipped": isinstance(self.skipped, dict),
            "encoding": self.encoding in get_args(Encoding),
            "left_out": isinstance(self.left_out, list),
            "plan": isinstance(self.plan, str),
            "source": isinstance(self.source, str),
            "mean_image_sha256": isinstance(self.mean_image_sha256, str),
            "versions": isinstance(self.versions, dict),
            "shards": set(self.shards) == set(splits),
            "display_names": self.display_names == [] or are_names(self.display_names, len(classes)),
            "unlabeled": isinstance(self.unlabeled, list) and set(self.unlabeled) <= set(splits) - set(self.counts),
        }
        if wrong := [name for name, valid in checks.items() if not valid]:
            raise ValueError(f"invalid {', '.join(wrong)}")
        for split, counts in self.counts.items():
            if not isinstance(counts, list) or not _are_counts(counts) or len(counts) != len(classes):
                raise ValueError(f"counts of {split} do not match the classes")
            if sum(counts) != splits.get(split):
                raise ValueError(f"counts of {split} do not add up to the images of the split")
        for split, shards in self.shards.items():
            if not _are_counts(number for shard in shards for number in shard[1:3]):
                raise ValueError(f"invalid shards of {split}")
            if any(not isinstance(shard.file, str) or Path(shard.file).name != shard.file for shard in shards):
                raise ValueError(f"shards of {split} are not files of the data set")
            if sum(shard.num_images for shard in shards) != splits.get(split):
                raise ValueError(f"shards of {split} do not add up to the images of the split")

    @property
    def printed_classes(self) -> list[str]:
        """Names of the classes to print, see `class_names.printed_names`."""
        return printed_names(self.classes, self.display_names)

    def to_json(self) -> str:
        """Return the content of `manifest.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a prepared data set.

    Raises:
      UserError: if the manifest is missing, damaged, or has a different format version.
      OSError: if the system refuses to read it, which is no damage.
    """
    try:
        values = json.loads((path / "manifest.json").read_text("utf-8"))
        if values["format"] != FORMAT:
            raise UserError(f"{path} was prepared by a different version of alexnet-jax: delete it and prepare it again")
        shards = {split: [Shard(*shard) for shard in files] for split, files in values.pop("shards").items()}
        return Manifest(**values, shards=shards)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is not a prepared data set (no manifest.json): create it with alexnet-jax prepare") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = one_line(error, 200)
        raise UserError(f"{path}/manifest.json is damaged ({reason}): delete {path} and prepare it again") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def are_names(names: object, count: int) -> bool:
    """Return whether an object from JSON is a list of a given number of strings."""
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)


def _are_counts(values: Iterable[object]) -> bool:
    return all(map(_is_count, values))
