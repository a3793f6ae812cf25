"""Source that reads WebDataset archives: tar files in which the files of one image have the same name and different extensions.

    imagenet1k-train-0000.tar      n03954731_53652.jpg, n03954731_53652.cls, n01440764_10026.jpg, n01440764_10026.cls, …

The label of an image is in its .cls file, or else in the entry `label`, `cls` or `class` of its .json, or in its .txt: a class
index, or the name of the class. Splits are recognized by the names of the archives. Class indices get their names from a file
beside the archives (`CLASS_FILES`), or from the names of the images if these begin with a WordNet id.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from alexnet_jax.data.class_names import ilsvrc_classes, parse_synset_names, wordnet_ids_of
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources import file_tree, layout
from alexnet_jax.data.sources.base import SPLITS, image_name
from alexnet_jax.data.sources.file_table import Files
from alexnet_jax.data.sources.file_tree import Listing
from alexnet_jax.data.sources.folders import FolderSource
from alexnet_jax.data.sources.shard_labels import check_labels, numbered_classes, splits_of_shards
from alexnet_jax.data.sources.webdataset_labels import MAX_LABEL_BYTES, Label, LabelReader, archive_of
from alexnet_jax.errors import UserError

CLASS_FILES = ("classes.txt", "classnames.txt", "class_names.txt", "labels.txt", "LOC_synset_mapping.txt", "synset_words.txt")
"""Names of text files with the name of class i on line i."""


class Samples(NamedTuple):
    """Images of a split, and the number of the label of each of them in `LabelReader.values`."""

    images: Files
    labels: Int[np.ndarray, " images"]


class NamedImages(Files):
    """Images of a split with the names that they would have in a folder.

    Args:
      images: image files.
      split: split in the names; None if there is none.
      classes: class names.
      labels: labels of the images.
      shards: shard in the names of the images of a folder, by the name of the folder.
    """

    def __init__(
        self,
        images: Files,
        split: str | None,
        classes: list[str],
        labels: Int32[np.ndarray, " images"],
        shards: Mapping[str, str],
    ):
        super().__init__(images.table, images.rows)
        self._split, self._classes, self._labels, self._shards = split, classes, labels, shards

    def name(self, index: int) -> str:
        row, label = int(self.rows[index]), self._labels[index]
        folder = "" if label == UNLABELED else self._classes[label]
        if shard := self._shards.get(self.table.folder(row).name):
            folder = f"{folder}/{shard}" if folder else shard
        return image_name(self._split, folder, self.table.name(row))


def webdataset_source(root: Path, listing: Listing, reader: LabelReader, *, testing: bool = False) -> FolderSource | None:
    """Return the source of the WebDataset archives of a listing, or None if they are none.

    Args:
      root: folder or archive, for error messages.
      listing: files of the folder or archive.
      reader: reader of the labels, which has read those in the archives.
      testing: whether the images are only tested: archives without a split in their name are then test images.

    Raises:
      UserError: if some images have no label or the labels are invalid as in `shard_labels.check_labels`.
    """
    reader.read(listing)
    if not reader.found:
        return None
    images, others = layout.images_and_others(listing.files)
    images = _in_order_on_disk(images)
    numbers, values = images.labels(), reader.values()
    if (numbers == -1).all():
        raise UserError(f"{root} is in the WebDataset format ({images.name(0)}, …), but without labels: add them as .cls files")
    shards = {folder: _shard_of(folder, listing.archived) for folder in images.folders().values()}
    splits, named = splits_of_shards(root, [shard or root.stem for shard in sorted({*shards.values()})], testing=testing)
    samples: dict[str, Samples] = {}
    for split in (split for split in SPLITS if split in splits.values()):
        folders = [number for number, folder in images.folders().items() if splits[shards[folder] or root.stem] == split]
        in_split = np.isin(images.folder_numbers(), folders)
        samples[split] = Samples(images.take(in_split), numbers[in_split])
    _check_complete(root, samples, values)
    classes, display_names, class_file = _classes(root, others, samples, values)
    labels_of = {None: UNLABELED, **{name: number for number, name in enumerate(classes)}}
    label_values = np.array([labels_of.get(value, value) for value in values])
    labels = {split: label_values[each.labels] for split, each in samples.items()}
    unlabeled = check_labels(root, classes, labels, testing=testing)
    labels = {split: each.astype(np.int32) for split, each in labels.items()}
    files = {
        split: _named(each.images, split if named else None, classes, labels[split], shards) for split, each in samples.items()
    }
    left_out = {name: layout.reason_for_no_image(name) for name in others.names() if name != class_file}
    source = FolderSource(classes, files, labels, listing.left_out | left_out, description="WebDataset archives")
    source.display_names, source.unlabeled = display_names, unlabeled
    return source


def _shard_of(folder: str, archived: Collection[str]) -> str:
    """Return the archive that contains a folder, or else the folder, without `/` at the end."""
    archive = archive_of(folder, archived)
    return folder.removesuffix("/") if archive is None else archive


def _in_order_on_disk(images: Files) -> Files:
    """Return images, sorted by name, in the order of their files on disk and, within an archive, of their offsets."""
    table = images.table
    paths = {number: table.folders[number].path for number in images.folders()}
    order = {path: rank for rank, path in enumerate(sorted(set(paths.values())))}
    ranks = np.zeros(len(table.folders), np.intp)
    ranks[[*paths]] = [order[path] for path in paths.values()]
    images = images.take(np.lexsort((images.offsets(), ranks[images.folder_numbers()])))
    if all(path <= following for path, following in pairwise(map(table.path, map(int, images.rows)))):
        return images
    return Files(table, np.array(sorted(map(int, images.rows), key=table.path)))  # files and folders in one folder on disk


def _check_complete(root: Path, splits: Mapping[str, Samples], values: Sequence[Label | None]) -> None:
    """Check that all images of a split have labels, or none, and that the labels are of one kind and name classes."""
    for split, (images, labels) in splits.items():
        without = np.flatnonzero(labels == -1)
        if 0 < len(without) < len(labels):
            names = ", ".join(images.name(index) for index in without[:3].tolist())
            raise UserError(f"{root} has {len(without):,} {split} images without a label file ({names}): add it, or remove them")
    unlabeled = [number for number, value in enumerate(values) if value in (None, UNLABELED)]
    count = sum(int(np.isin(labels, [*unlabeled, -1], invert=True).sum()) for _, labels in splits.values())
    names = {value for value in values if isinstance(value, str)}
    if names and any(isinstance(value, int) and value != UNLABELED for value in values):
        raise UserError(f"{root} has labels that are numbers and others that are names ({min(names)!r}): use one of the two")
    if len(names) > max(2, count // 2):
        raise UserError(f"{root} has {len(names):,} different labels for {count:,} images, such as captions: add .cls files")


def _classes(
    root: Path, others: Files, splits: Mapping[str, Samples], values: Sequence[Label | None]
) -> tuple[list[str], list[str], str | None]:
    """Return the class names, the names to print (or none), and the file that they are read from, if any."""
    names = sorted(value for value in values if isinstance(value, str))
    if names:
        return names, [], None
    count = max((value for value in values if isinstance(value, int)), default=-1) + 1
    for index, name in enumerate(others.names()):
        if name.rpartition("/")[2] not in CLASS_FILES or others[index].size > MAX_LABEL_BYTES:
            continue
        text = file_tree.read(others[index]).decode("utf-8-sig", "backslashreplace")
        if synsets := parse_synset_names(text):
            names, display_names = list(synsets), list(synsets.values())
        else:
            names, display_names = [line.strip() for line in text.splitlines() if line.strip()], []
        if len(names) < count or len(set(names)) < len(names):
            problem = f"{len(set(names)):,} different names for {count:,} classes"
            raise UserError(f"{name} in {root} has {problem}: correct or remove it")
        return ilsvrc_classes(names) or names, display_names, name
    images, labels = next(iter(splits.values()))  # the files of validation images are named after the contest
    labeled = ((values[number], name.rpartition("/")[2]) for number, name in zip(labels, images.names(), strict=True))
    wordnet_ids = wordnet_ids_of((value, name) for value, name in labeled if isinstance(value, int) and value != UNLABELED)
    names = numbered_classes(root, count, sum(len(images) for images, _ in splits.values()))
    return [wordnet_ids.get(number, name) for number, name in enumerate(names)], [], None


def _named(
    images: Files,
    split: str | None,
    classes: list[str],
    labels: Int32[np.ndarray, " images"],
    shards: Mapping[str, str],
) -> NamedImages:
    """Return the images with the names that they would have in a folder; the name of the shard is added where it is needed."""
    named = NamedImages(images, split, classes, labels, {})
    # A set of all names would need more memory than all that is kept of them.
    hashes = np.sort(np.fromiter(map(hash, named.names()), np.int64, len(named)))
    repeated = set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]).tolist())
    seen: set[str] = set()
    for name in (name for name in named.names() if hash(name) in repeated) if repeated else ():
        if name in seen:
            return NamedImages(images, split, classes, labels, shards)
        seen.add(name)
    return named
