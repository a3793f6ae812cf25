"""Data sets that TensorFlow Datasets has prepared, read where they lie. TensorFlow itself is not needed for that."""

import hashlib
from typing import Any

from alexnet_jax.data.images import BadImage
from alexnet_jax.data.sources.base import SIZE, SPLITS, Picture, Source
from alexnet_jax.errors import UserError

PREFIX = "tfds:"


class TfdsSource(Source):
    """Records of images with labels, by split. Images are the files they were made of, not decoded."""

    def __init__(self, description: str, classes: list[str], size: int, records: dict[str, Any], shards: str, notes: list[str]):
        self.description, self.classes, self.size, self.notes = description, classes, size, tuple(notes)
        self.raw = size < SIZE  # so small that JPEG would show
        self.records, self._shards = records, shards
        self.images = {split: len(found) for split, found in records.items()}

    def read(self, split: str, index: int) -> Picture:
        try:
            record = self.records[split][index]
        except Exception as error:  # the reader's errors have no class of their own
            raise UserError(f"{self.description} is damaged at {split} {index:,} ({error}): prepare it again") from error
        name = record.get("file_name", record.get("id", f"{index:07}"))
        name = f"{split}/{name.decode() if isinstance(name, bytes) else name}"
        if not 0 <= record["label"] < len(self.classes):
            raise BadImage(f"{name} has no label")
        return Picture(name, int(record["label"]), record["image"])

    def fingerprint(self) -> str:
        return hashlib.sha256(self._shards.encode()).hexdigest()


def tfds_source(asked: str, data_dir: str | None) -> TfdsSource:
    """The data set `tfds:NAME`, also with configuration and version: `tfds:imagenet2012:5.1.0`.

    Args:
      asked: as above.
      data_dir: where TFDS keeps its data; None is where it usually does.

    Raises:
      UserError: if TFDS is not installed, has no such data set, or has not prepared it for random access.
    """
    try:
        import tensorflow_datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{asked} needs TensorFlow Datasets: pip install 'alexnet-jax[tfds]' ({error})") from error
    name = asked.removeprefix(PREFIX)
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    except Exception as error:  # unknown names and versions come in many kinds
        raise UserError(f"TensorFlow Datasets has no {name} ({str(error).splitlines()[0]})") from error
    where = f" --data_dir={data_dir}" if data_dir else ""
    command = f"tfds build {name}{where} --file_format=array_record"
    if not builder.is_prepared():
        raise UserError(f"{name} is not prepared in {builder.data_path}; where TensorFlow is installed, run: {command}")
    info = builder.info
    if getattr(info.file_format, "value", None) != "array_record":
        raise UserError(f"{builder.data_path} has no random access; where TensorFlow is installed, run: {command} --overwrite")
    features = info.features
    if not {"image", "label"} <= set(features or ()):
        raise UserError(f"{name} has no image with one label: {', '.join(features or ())}")
    undecoded = {"image": tensorflow_datasets.decode.SkipDecoding()}
    records, notes = {}, []
    for split in (split for split in SPLITS if split in info.splits):
        data = builder.as_data_source(split=split, decoders=undecoded)
        if len(data) and data[0]["label"] < 0:  # the labels of ImageNet's test pictures are secret
            notes.append(f"{len(data):,} {split} pictures, which have no labels")
        elif len(data):
            records[split] = data
    if "train" not in records:
        raise UserError(f"{name} has no training pictures")
    sides = [side for side in features["image"].shape[:2] if side]
    size = min([*sides, SIZE])
    shards = repr([(split, info.splits[split].shard_lengths, info.splits[split].num_bytes) for split in records])
    return TfdsSource(f"{PREFIX}{info.full_name}", list(features["label"].names), size, records, shards, notes)
