"""Source that reads data sets prepared by TensorFlow Datasets (TFDS) in place, without TensorFlow and without TFDS.

A prepared data set is a folder NAME/VERSION or NAME/CONFIG/VERSION:

    dataset_info.json                         splits and the number of records in each file
    features.json                             types of the features
    label.labels.txt                          class names, one per line
    NAME-train.tfrecord-00000-of-01024 …      records, each a tf.train.Example, in TFRecord or ArrayRecord files
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_jax.data.class_names import ilsvrc_classes
from alexnet_jax.data.images import InvalidImageError
from alexnet_jax.data.record_files import RecordFiles
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources.base import SIZE, SPLITS, Source, SourceImage, image_name
from alexnet_jax.data.sources.tfrecord import TfrecordFiles, parse_example
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.files import expanded

PREFIX = "tfds:"
"""Prefix of the names of TFDS sources."""
INFO, FEATURES = "dataset_info.json", "features.json"
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
FORMATS = ("tfrecord", "array_record")
_NAMES = ("file_name", "image/filename", "id")
"""Features that name an image."""


@dataclass(frozen=True)
class Split:
    """Files of a split.

    Attributes:
      files: record files, in order.
      sizes: number of records of each file.
      num_bytes: size of the records, as recorded by TFDS.
    """

    files: list[Path]
    sizes: list[int]
    num_bytes: int


class TfdsSource(Source):
    """Images of a data set of TFDS, as encoded image files."""

    def __init__(self, folder: Path, classes: list[str], size: int, splits: dict[str, Split], file_format: str):
        info = json.loads((folder / INFO).read_text("utf-8"))
        self.description = PREFIX + "/".join(filter(None, (info["name"], info.get("configName"), info["version"])))
        self.classes, self.size = classes, size
        self.raw = size < SIZE  # JPEG artifacts are visible in small images
        self._folder, self._splits = folder, splits
        self._records: dict[str, TfrecordFiles | RecordFiles] = {
            split: TfrecordFiles(files.files, files.sizes)
            if file_format == "tfrecord"
            else RecordFiles(list(map(str, files.files)), files.sizes)
            for split, files in splits.items()
        }
        self.num_images = {split: sum(files.sizes) for split, files in splits.items()}
        self.unlabeled = [split for split in splits if self._example(split, 0)["label"] == [UNLABELED]]

    def read(self, split: str, index: int) -> SourceImage:
        example = self._example(split, index)
        (label,), (data,) = example["label"], example["image"]
        name = next((example[key][0] for key in _NAMES if example.get(key)), f"{index:07}")
        name = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
        expected = range(len(self.classes)) if split not in self.unlabeled else [UNLABELED]
        if label not in expected or not isinstance(label, int) or not isinstance(data, bytes):
            raise InvalidImageError(f"{split}/{name} has label {label!r}, expected {expected[0]} to {expected[-1]}")
        class_name = "" if label == UNLABELED else self.classes[label]
        return SourceImage(image_name(split, class_name, name), label, data)

    def fingerprint(self) -> str:
        shards = [(split, files.sizes, files.num_bytes) for split, files in self._splits.items()]
        return hashlib.sha256(repr(shards).encode()).hexdigest()

    def _example(self, split: str, index: int) -> dict[str, list[bytes] | list[int]]:
        try:
            example = parse_example(self._records[split][index])
            if len(example["image"]) != 1 or len(example["label"]) != 1:
                raise ValueError("not one image and one label")
            return example
        except UserError:
            raise
        except Exception as error:  # the reader of ArrayRecord raises no specific exception type
            reason = one_line(error, 120)
            raise UserError(f"{self._folder} is damaged at {split} image {index:,} ({reason}): build it again") from error


def tfds_source(name: str, data_dir: str | None, *, testing: bool = False) -> TfdsSource:
    """Open a data set prepared by TFDS, by name.

    Args:
      name: `tfds:NAME`, optionally with config and version, as in `tfds:imagenet2012:5.1.0`.
      data_dir: data folder of TFDS; None uses its default.
      testing: whether the images are only tested.

    Raises:
      UserError: if the data set is not prepared in the folder, or is invalid as for `open_tfds_folder`.
    """
    if data_dir and not Path(data_dir).is_dir():
        raise UserError(f"--tfds-dir {data_dir} is not a folder: pass the data folder of TensorFlow Datasets")
    folder = expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    path = folder.joinpath(*re.split("[:/]", name.removeprefix(PREFIX)))
    found = find_tfds_folder(path)
    if found is None:
        command = f"tfds build {name.removeprefix(PREFIX)} --data_dir={folder}"
        other = "" if data_dir else ", or pass the folder in which it is prepared as --tfds-dir"
        raise UserError(f"{name.removeprefix(PREFIX)} is not prepared in {folder}: run {command} (needs TensorFlow){other}")
    return open_tfds_folder(found, testing=testing)


def find_tfds_folder(path: Path) -> Path | None:
    """Return the folder of a data set prepared by TFDS: `path`, or the latest version in it or in its only config; or None.

    Raises:
      UserError: if the data set has several configs.
    """
    if (path / INFO).is_file() and (path / FEATURES).is_file():
        return path
    versions = [
        file.parent
        for pattern in (f"*/{INFO}", f"*/*/{INFO}")
        for file in path.glob(pattern)
        if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name) and (file.parent / FEATURES).is_file()
    ]
    if len(configs := sorted({version.parent for version in versions})) > 1:
        names = ", ".join(map(str, configs[:5]))
        raise UserError(f"{path} has several data sets of TensorFlow Datasets: pass one of {names}")
    return max(versions, key=lambda version: [*map(int, version.name.split("."))], default=None)


def open_tfds_folder(folder: Path, *, testing: bool = False) -> TfdsSource:
    """Open a data set prepared by TFDS, in a folder from `find_tfds_folder`.

    Raises:
      UserError: if the data set is damaged, is in another format than `FORMATS`, has no labeled training images unless `testing`,
        or its examples are not images with labels.
    """
    try:
        info = json.loads((folder / INFO).read_text("utf-8"))
        features = json.loads((folder / FEATURES).read_text("utf-8"))["featuresDict"]["features"]
        file_format = info.get("fileFormat") or "tfrecord"
        if file_format not in FORMATS:
            command = f"tfds convert_format --dataset_dir={folder} --out_file_format=array_record"
            raise UserError(f"{folder} is in the format {file_format}, expected tfrecord or array_record: run {command}")
        if not ("image" in features.get("image", {}) and "classLabel" in features.get("label", {})):
            names = ", ".join(features)
            raise UserError(f"{folder} has no image and label features, only {names}: choose a different data set")
        splits = {
            split["name"]: _files(folder, info, split, file_format)
            for name in SPLITS
            for split in info["splits"]
            if split["name"] == name and sum(map(int, split.get("shardLengths", [])))
        }
        sides = [int(side) for side in features["image"]["image"].get("shape", {}).get("dimensions", [])[:2]]
        classes = _class_names(folder, int(features["label"]["classLabel"]["numClasses"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error, 120)
        raise UserError(
            f"{folder} is not a data set of TensorFlow Datasets that can be read ({reason}): build it again"
        ) from error
    if not splits or ("train" not in splits and not testing):
        raise UserError(f"{folder} has no labeled training images: choose a different data set")
    source = TfdsSource(folder, classes, min([*(side for side in sides if side > 0), SIZE]), splits, file_format)
    if "train" in source.unlabeled and not testing:
        raise UserError(f"{folder} has no labeled training images: choose a different data set")
    return source


def _files(folder: Path, info: dict[str, Any], split: dict[str, Any], file_format: str) -> Split:
    """Return the files of a split.

    Raises:
      UserError: if one of them is missing.
    """
    sizes = list(map(int, split["shardLengths"]))
    template = split.get("filepathTemplate") or DEFAULT_TEMPLATE
    files: list[Path] = []
    for number in range(len(sizes)):
        index, count = f"{number:05}", f"{len(sizes):05}"
        values = {"DATASET": info["name"], "SPLIT": split["name"], "FILEFORMAT": file_format, "SHARD_INDEX": index}
        files.append(folder / template.format(**values, NUM_SHARDS=count, SHARD_X_OF_Y=f"{index}-of-{count}"))
        if not files[-1].is_file():
            raise UserError(f"{folder} is incomplete ({files[-1].name} is missing): build the data set again")
    return Split(files, sizes, int(split.get("numBytes", 0)))


def _class_names(folder: Path, count: int) -> list[str]:
    """Return the class names of the feature `label`; ILSVRC's classes are named by their WordNet ids."""
    file = folder / "label.labels.txt"
    names = file.read_text("utf-8").split("\n") if file.is_file() else [str(number) for number in range(count)]
    names = [name for name in names if name]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{file.name} has {len(set(names)):,} different names for {count:,} classes")
    return ilsvrc_classes(names) or names
