"""Source that reads Parquet files as Hugging Face publishes them, such as those of its data set imagenet-1k; requires pyarrow.

A row is an image: `image` is a struct of the file's content, `bytes`, and its name, `path`; `label` is a class index, or -1 in
splits without labels. The names of the classes are in the metadata of the schema. Files without metadata are read if they have
these two columns; the image may then be binary, and the label a class name. Splits are recognized by the names of the files or
folders: train-00000-of-00294.parquet, validation/0000.parquet.
"""

import bisect
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from alexnet_jax.data.class_names import ilsvrc_classes
from alexnet_jax.data.images import InvalidImageError
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage, image_name
from alexnet_jax.data.sources.shard_labels import check_labels, numbered_classes, splits_of_shards
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.text import file_name_text

SUFFIX = ".parquet"
CACHED_GROUPS = 8
"""Number of row groups kept in memory, since threads read ahead. Hugging Face writes groups of 100 to 1,000 images."""


class Columns(NamedTuple):
    """Columns of a file: their names, and the class names, which are empty if the schema has none."""

    image: str
    label: str
    classes: tuple[str, ...]


class RowGroup(NamedTuple):
    """Part of a file that is read at once."""

    path: Path
    number: int
    rows: int


class ParquetSource(Source):
    """Images of Parquet files."""

    def __init__(
        self,
        root: Path,
        columns: Columns,
        classes: list[str],
        groups: dict[str, list[RowGroup]],
        labels: dict[str, Int64[np.ndarray, " images"]],
        splits_named: bool,
    ):
        self.description = "Parquet files"
        self.classes = classes
        self.num_images = {split: len(values) for split, values in labels.items()}
        self._root, self._image, self._splits_named = root, columns.image, splits_named
        self._groups, self._labels = groups, labels
        self._ends = {split: list(accumulate(group.rows for group in split_groups)) for split, split_groups in groups.items()}
        self._cache: OrderedDict[RowGroup, tuple[Any, Any]] = OrderedDict()
        self._lock = Lock()

    def read(self, split: str, index: int) -> SourceImage:
        number = bisect.bisect_right(self._ends[split], index)
        group = self._groups[split][number]
        row = index - (self._ends[split][number] - group.rows)
        contents, paths = self._read_group(group)
        label = int(self._labels[split][index])
        name = self._name(split, label, None if paths is None else paths[row].as_py(), index)
        data = contents[row].as_py()
        if data is None:
            raise InvalidImageError(f"{name} has no content in {group.path.name}")
        return SourceImage(name, label, data)

    def names(self, split: str) -> Iterator[tuple[str, str]]:
        index = 0
        for group in self._groups[split]:
            paths = _read_group(group, self._image, contents=False)[1]
            for row in range(group.rows):
                label = int(self._labels[split][index])
                yield self.classes[label], self._name(split, label, None if paths is None else paths[row].as_py(), index)
                index += 1

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.classes, self._image)).encode())
        for split, groups in self._groups.items():
            for path in dict.fromkeys(group.path for group in groups):
                status = path.stat()
                digest.update(f"{split}/{_name_in(self._root, path)}/{status.st_size}/{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _name(self, split: str, label: int, path: str | None, index: int) -> str:
        class_name = "" if label == UNLABELED else self.classes[label]
        return image_name(split if self._splits_named else None, class_name, path or f"{index:07}")

    def _read_group(self, group: RowGroup) -> tuple[Any, Any]:
        """Return the contents and the names of the images of a row group, read by one thread at a time."""
        with self._lock:
            if group not in self._cache:
                self._cache[group] = _read_group(group, self._image, contents=True)
                if len(self._cache) > CACHED_GROUPS:
                    self._cache.popitem(last=False)
            return self._cache[group]


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files at a path: the file itself, or those in a folder, without hidden ones."""
    if path.is_file():
        return [path] if path.suffix.lower() == SUFFIX else []
    files = (file for file in path.rglob(f"*{SUFFIX}") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def parquet_source(root: Path, files: Sequence[Path], *, testing: bool = False) -> ParquetSource:
    """Open Parquet files, and read the labels of all images.

    Args:
      root: folder or file, for error messages.
      files: Parquet files.
      testing: whether the images are only tested: files without a split in their name are then test images.

    Raises:
      UserError: if pyarrow is not installed, a file is damaged, the files have different columns or classes, or the labels are
        invalid as in `shard_labels.check_labels`.
    """
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ImportError as error:
        raise UserError(f"{root} has Parquet files, which need pyarrow: run pip install 'alexnet-jax[parquet]'") from error
    names = {_name_in(root, file): file for file in files}
    splits, named = splits_of_shards(root, list(names), testing=testing)
    columns: Columns | None = None
    groups: dict[str, list[RowGroup]] = {}
    labels: dict[str, list[Any]] = {}
    for name, file in names.items():
        found, file_groups, file_labels = _open_file(file)
        columns = columns or found
        if found != columns:
            raise UserError(f"{file} has other columns or classes than {files[0]}: pass the files of one data set")
        groups.setdefault(splits[name], []).extend(file_groups)
        labels.setdefault(splits[name], []).extend(file_labels)
    assert columns is not None
    classes, numbers = _number_labels(root, columns, labels)
    numbers = {split: numbers[split] for split in SPLITS if split in numbers and len(numbers[split])}
    groups = {split: [group for group in groups[split] if group.rows] for split in numbers}
    unlabeled = check_labels(root, classes, numbers, testing=testing)
    source = ParquetSource(root, columns, classes, groups, numbers, named)
    source.unlabeled = unlabeled
    return source


def _name_in(root: Path, file: Path) -> str:
    """Return the path of a file in the folder `root`, or its name if it is the root itself."""
    return file_name_text(file.name if file == root else str(file.relative_to(root)))


def _open_file(path: Path) -> tuple[Columns, list[RowGroup], list[Any]]:
    """Return the columns, the row groups and the labels of a file; a missing label is None."""
    from pyarrow import ArrowException  # noqa: PLC0415
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    try:
        with ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow)
            groups = [RowGroup(path, i, file.metadata.row_group(i).num_rows) for i in range(file.num_row_groups)]
            return columns, groups, file.read(columns=[columns.label]).column(0).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_group(group: RowGroup, image: str, *, contents: bool) -> tuple[Any, Any]:
    """Return the contents, unless they are not wanted, and the names of the images of a row group; None if there are no names."""
    from pyarrow import ArrowException  # noqa: PLC0415
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    from pyarrow.types import is_struct  # noqa: PLC0415

    try:
        with ParquetFile(group.path) as file:
            type_ = file.schema_arrow.field(image).type
            if not is_struct(type_):
                return file.read_row_group(group.number, [image]).column(0), None
            has_names = type_.get_field_index("path") >= 0
            fields = [f"{image}.bytes"] * (contents or not has_names) + [f"{image}.path"] * has_names
            column = file.read_row_group(group.number, fields).column(0).combine_chunks()
            return column.field("bytes") if contents else None, column.field("path") if has_names else None
    except (ArrowException, OSError, ValueError) as error:
        raise _damaged(group.path, error) from error


def _columns(path: Path, schema: Any) -> Columns:
    """Return the columns of the images and labels, by the metadata of Hugging Face or by their names."""
    from pyarrow.types import is_binary, is_integer, is_large_binary, is_large_string, is_string, is_struct  # noqa: PLC0415

    content = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(content).get("info", {}).get("features", {}) if content else {}
    images = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"]
    labels = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"]
    image = images[0] if len(images) == 1 else "image"
    label = labels[0] if len(labels) == 1 else "label"
    if not {image, label} <= set(schema.names):
        raise UserError(
            f"{path} has the columns {', '.join(schema.names)}, expected image and label: choose a different data set"
        )
    image_type, label_type = schema.field(image).type, schema.field(label).type
    if is_struct(image_type) and image_type.get_field_index("bytes") >= 0:
        image_type = image_type.field("bytes").type
    if not (is_binary(image_type) or is_large_binary(image_type)):
        raise UserError(f"{path} has images of type {image_type}, expected image files as bytes: choose a different data set")
    if not (is_integer(label_type) or is_string(label_type) or is_large_string(label_type)):
        raise UserError(f"{path} has labels of type {label_type}, expected class numbers or names: choose a different data set")
    names = features.get(label, {}).get("names") or ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if names and not is_integer(label_type):
        raise UserError(f"{path} has labels of type {label_type}, but its metadata has class names for numbers: correct the file")
    return Columns(image, label, tuple(names))


def _number_labels(
    root: Path, columns: Columns, labels: dict[str, list[Any]]
) -> tuple[list[str], dict[str, Int64[np.ndarray, " images"]]]:
    """Return the class names and the labels as numbers. ILSVRC's classes are named by their WordNet ids."""
    known = [label for values in labels.values() for label in values if label is not None]
    if known and all(isinstance(label, str) for label in known):
        classes = sorted(set(known))
        numbers = {name: number for number, name in enumerate(classes)}
        values = {split: [UNLABELED if label is None else numbers[label] for label in each] for split, each in labels.items()}
    else:
        classes = list(columns.classes) or numbered_classes(root, max(known, default=-1) + 1, len(known))
        values = {split: [UNLABELED if label is None else label for label in each] for split, each in labels.items()}
    if len(set(classes)) < len(classes):
        repeated = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{root} has two classes with the name {repeated!r}: rename one of them in the metadata of the files")
    return ilsvrc_classes(classes) or classes, {split: np.array(each, np.int64) for split, each in values.items()}


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not a complete Parquet file ({one_line(error, 120)}): download it again")
