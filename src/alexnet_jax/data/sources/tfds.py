"""Source that reads data sets prepared by TensorFlow Datasets (TFDS) in place, without TensorFlow."""

import hashlib
from pathlib import Path
from typing import Any

from alexnet_jax.data.images import InvalidImageError
from alexnet_jax.data.sources.base import SIZE, SPLITS, Source, SourceImage
from alexnet_jax.errors import UserError

PREFIX = "tfds:"
"""Prefix of the names of TFDS sources."""


class TfdsSource(Source):
    """Labeled images of TFDS, as encoded image files.

    Args:
      description: `tfds:` and the data set's full name.
      classes: class names.
      size: default side of a prepared image, in pixels; at most 256.
      records: TFDS data source of each split.
      shards: sizes of the splits and their files, for the fingerprint.
      left_out: number of images of each split without labels.
    """

    def __init__(
        self, description: str, classes: list[str], size: int, records: dict[str, Any], shards: str, left_out: dict[str, int]
    ):
        self.description, self.classes, self.size = description, classes, size
        self.left_out = {f"{split} ({count:,} images)": "without labels" for split, count in left_out.items()}
        self.num_left_out = sum(left_out.values())
        self.raw = size < SIZE  # JPEG artifacts are visible in small images
        self.records, self._shards = records, shards
        self.num_images = {split: len(data) for split, data in records.items()}

    def read(self, split: str, index: int) -> SourceImage:
        try:
            record = self.records[split][index]
        except Exception as error:  # the reader raises no specific exception type
            raise UserError(f"{self.description} is damaged at {split} image {index:,} ({error}): build it again") from error
        name = record.get("file_name", record.get("id", f"{index:07}"))
        name = f"{split}/{name.decode() if isinstance(name, bytes) else name}"
        if not 0 <= record["label"] < len(self.classes):
            raise InvalidImageError(f"{name} has label {record['label']}, expected 0 to {len(self.classes) - 1}")
        return SourceImage(name, int(record["label"]), record["image"])

    def fingerprint(self) -> str:
        return hashlib.sha256(self._shards.encode()).hexdigest()


def tfds_source(name: str, data_dir: str | None) -> TfdsSource:
    """Open a data set prepared by TFDS.

    Args:
      name: `tfds:NAME`, optionally with config and version, as in `tfds:imagenet2012:5.1.0`.
      data_dir: data folder of TFDS; None uses its default.

    Raises:
      UserError: if TFDS is not installed, does not have the data set, or has not prepared it in a random-access format; or if
        the data set has no training images, or its images have no labels.
    """
    try:
        import tensorflow_datasets  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{name} needs TensorFlow Datasets ({error}): run pip install 'alexnet-jax[tfds]'") from error
    if data_dir and not Path(data_dir).is_dir():
        raise UserError(f"--tfds-dir {data_dir} is not a folder: pass the data folder of TensorFlow Datasets")
    tfds_name = name.removeprefix(PREFIX)
    try:
        builder = tensorflow_datasets.builder(tfds_name, data_dir=data_dir)
    except Exception as error:  # TFDS raises exceptions of many types for unknown names and versions
        reason = str(error).splitlines()[0]
        folder = f" or the folder {data_dir}" if data_dir else ""
        raise UserError(f"TensorFlow Datasets has no data set {tfds_name} ({reason}): check the name{folder}") from error
    data_dir_option = f" --data_dir={data_dir}" if data_dir else ""
    command = f"tfds build {tfds_name}{data_dir_option} --file_format=array_record"
    if not builder.is_prepared():
        other = "" if data_dir else ", or pass the folder in which it is prepared as --tfds-dir"
        raise UserError(f"{tfds_name} is not prepared in {builder.data_path}: run {command} (needs TensorFlow){other}")
    info = builder.info
    if getattr(info.file_format, "value", None) != "array_record":
        raise UserError(f"{builder.data_path} is not in ArrayRecord format: run {command} --overwrite (needs TensorFlow)")
    features = info.features
    if not {"image", "label"} <= set(features or ()):
        names = ", ".join(features or ())
        raise UserError(f"{tfds_name} has no image and label features, only {names}: choose a different data set")
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
    records: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    for split in (split for split in SPLITS if split in info.splits):
        data = builder.as_data_source(split=split, decoders=decoders)
        if len(data) and data[0]["label"] < 0:  # undisclosed labels, such as those of ImageNet's test images
            left_out[split] = len(data)
        elif len(data):
            records[split] = data
    if "train" not in records:
        raise UserError(f"{tfds_name} has no labeled training images: choose a different data set")
    sides = [side for side in features["image"].shape[:2] if side]
    size = min([*sides, SIZE])
    shards = repr([(split, info.splits[split].shard_lengths, info.splits[split].num_bytes) for split in records])
    return TfdsSource(f"{PREFIX}{info.full_name}", list(features["label"].names), size, records, shards, left_out)
