"""Source that reads WebDataset archives: tar files in which the files of one image have the same name and different extensions.

    imagenet1k-train-0000.tar      n03954731_53652.jpg, n03954731_53652.cls, n01440764_10026.jpg, n01440764_10026.cls, …

The label of an image is in its .cls file, or else in the entry `label`, `cls` or `class` of its .json, or in its .txt: a class
index, or the name of the class. Splits are recognized by the names of the archives. Class indices get their names from a file
beside the archives (`CLASS_FILES`), or from the names of the images if these begin with a WordNet id.
"""

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from alexnet_jax.data.class_names import ilsvrc_classes, parse_synset_names, wordnet_ids_of
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources import file_tree, layout
from alexnet_jax.data.sources.base import SPLITS, image_name
from alexnet_jax.data.sources.file_tree import Entry, FileReader, Listing
from alexnet_jax.data.sources.folders import FolderSource
from alexnet_jax.data.sources.shard_labels import check_labels, numbered_classes, splits_of_shards
from alexnet_jax.errors import UserError

CLASS_FILES = ("classes.txt", "classnames.txt", "class_names.txt", "labels.txt", "LOC_synset_mapping.txt", "synset_words.txt")
"""Names of text files with the name of class i on line i."""
_LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Extensions of files with the label of an image, the preferred one first."""
_LABEL_KEYS = ("label", "cls", "class")
MAX_LABEL_BYTES = 1 << 20

Label = int | str


class Sample(NamedTuple):
    """Image with its shard and its label: a class index or name, or None if it has none."""

    image: Entry
    shard: str
    label: Label | None


def webdataset_source(root: Path, listing: Listing, *, testing: bool = False) -> FolderSource | None:
    """Return the source of the WebDataset archives of a listing, or None if they are none.

    Args:
      root: folder or archive, for error messages.
      listing: files of the folder or archive.
      testing: whether the images are only tested: archives without a split in their name are then test images.

    Raises:
      UserError: if some images have no label or the labels are invalid as in `shard_labels.check_labels`.
    """
    samples, others = _samples(root, listing)
    if not samples:
        return None
    if all(sample.label is None for sample in samples):
        image = samples[0].image.name
        raise UserError(f"{root} is in the WebDataset format ({image}, …), but without labels: add them as .cls files")
    shards = sorted({sample.shard for sample in samples})
    splits, named = splits_of_shards(root, [shard or root.stem for shard in shards], testing=testing)
    by_split: dict[str, list[Sample]] = {}
    for sample in samples:
        by_split.setdefault(splits[sample.shard or root.stem], []).append(sample)
    by_split = {split: by_split[split] for split in SPLITS if split in by_split}
    _check_complete(root, by_split)
    classes, display_names, class_file = _classes(root, others, by_split)
    numbers: dict[Label | None, int] = {None: UNLABELED, **{name: number for number, name in enumerate(classes)}}
    labels = {split: np.array([numbers.get(s.label, s.label) for s in each]) for split, each in by_split.items()}
    unlabeled = check_labels(root, classes, labels, testing=testing)
    files = {
        split: list(zip(_named(split if named else None, each, classes, labels[split]), labels[split].tolist(), strict=True))
        for split, each in by_split.items()
    }
    left_out = {entry.name: layout.reason_for_no_image(entry.name) for entry in others if entry.name != class_file}
    source = FolderSource(classes, files, listing.left_out | left_out, description="WebDataset archives")
    source.display_names, source.unlabeled = display_names, unlabeled
    return source


def _samples(root: Path, listing: Listing) -> tuple[list[Sample], list[Entry]]:
    """Return the images with their labels, in the order of the archives, and the files that belong to no image.

    There are no samples if no image has a file that could be its label: a .cls file, or a .json or .txt file in an archive.
    """
    if not any(entry.name.lower().endswith(_LABEL_SUFFIXES) for entry in listing.files):
        return [], []
    archives: dict[str, str | None] = {}
    samples: list[Sample] = []
    others: list[Entry] = []
    any_labels = False
    # The files are sorted by name, so those of an image are neighbors.
    with FileReader() as reader:
        for stem, group in groupby(listing.files, lambda entry: layout.stem(entry.name)):
            entries, folder = list(group), stem.rpartition("/")[0]
            if folder not in archives:
                archives[folder] = _archive_of(folder, listing.archived)
            archive = archives[folder]
            images = [entry for entry in entries if layout.is_image(entry)]
            label_files: dict[str, Entry] = {}
            for entry in (entry for entry in entries if entry not in images):
                suffix = layout.suffix_of(entry.name)
                is_label = (
                    suffix in _LABEL_SUFFIXES and (suffix == ".cls" or archive is not None) and entry.size <= MAX_LABEL_BYTES
                )
                if is_label and images:
                    label_files[suffix] = entry
                else:
                    others.append(entry)
            label = None
            for suffix in (suffix for suffix in _LABEL_SUFFIXES if suffix in label_files):
                any_labels = True
                label = _read_label(root, reader, label_files[suffix], suffix)
                if label is not None:
                    break
            samples += [Sample(image, folder if archive is None else archive, label) for image in images]
    samples.sort(key=lambda sample: (sample.image.path, sample.image.offset, sample.image.name))
    return (samples, others) if any_labels else ([], [])


def _archive_of(folder: str, archived: Iterable[str]) -> str | None:
    """Return the archive that contains a folder, or None."""
    parts = folder.split("/") if folder else []
    return next((name for name in ("/".join(parts[:i]) for i in range(len(parts) + 1)) if name in archived), None)


def _read_label(root: Path, reader: FileReader, entry: Entry, suffix: str) -> Label | None:
    """Return the label in a file, or None if it has none: a .json may have other contents, and a .txt a long caption."""
    text = reader.read(entry).decode("utf-8", "backslashreplace").strip()
    if suffix == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{root} has a damaged file {entry.name} ({error}): download its archive again") from error
        values = [content[key] for key in _LABEL_KEYS if key in content] if isinstance(content, dict) else [content]
        value = values[0] if values and isinstance(values[0], int | str) and not isinstance(values[0], bool) else None
        text = "" if value is None else str(value)
    if not text or "\n" in text:
        if suffix == ".cls":
            raise UserError(f"{root} has a label file with {'no' if not text else 'several'} labels ({entry.name}): correct it")
        return None
    return int(text) if text.removeprefix("-").isdecimal() else text


def _check_complete(root: Path, splits: dict[str, list[Sample]]) -> None:
    """Check that all images of a split have labels, or none, and that the labels are of one kind and name classes."""
    for split, samples in splits.items():
        without = [sample.image.name for sample in samples if sample.label is None]
        if 0 < len(without) < len(samples):
            names = ", ".join(without[:3])
            raise UserError(f"{root} has {len(without):,} {split} images without a label file ({names}): add it, or remove them")
    labels = [sample.label for samples in splits.values() for sample in samples if sample.label not in (None, UNLABELED)]
    names = {label for label in labels if isinstance(label, str)}
    if names and any(isinstance(label, int) for label in labels):
        raise UserError(f"{root} has labels that are numbers and others that are names ({min(names)!r}): use one of the two")
    if len(names) > max(2, len(labels) // 2):
        raise UserError(
            f"{root} has {len(names):,} different labels for {len(labels):,} images, such as captions: add .cls files"
        )


def _classes(root: Path, others: list[Entry], splits: dict[str, list[Sample]]) -> tuple[list[str], list[str], str | None]:
    """Return the class names, the names to print (or none), and the file that they are read from, if any."""
    labels = {sample.label for samples in splits.values() for sample in samples}
    names = sorted(label for label in labels if isinstance(label, str))
    if names:
        return names, [], None
    count = max((label for label in labels if isinstance(label, int)), default=-1) + 1
    for entry in others:
        if entry.name.rpartition("/")[2] not in CLASS_FILES or entry.size > MAX_LABEL_BYTES:
            continue
        text = file_tree.read(entry).decode("utf-8-sig", "backslashreplace")
        if synsets := parse_synset_names(text):
            names, display_names = list(synsets), list(synsets.values())
        else:
            names, display_names = [line.strip() for line in text.splitlines() if line.strip()], []
        if len(names) < count or len(set(names)) < len(names):
            problem = f"{len(set(names)):,} different names for {count:,} classes"
            raise UserError(f"{entry.name} in {root} has {problem}: correct or remove it")
        return ilsvrc_classes(names) or names, display_names, entry.name
    first = next(iter(splits.values()))  # the files of validation images are named after the contest
    wordnet_ids = wordnet_ids_of(
        (sample.label, sample.image.name.rpartition("/")[2])
        for sample in first
        if isinstance(sample.label, int) and sample.label != UNLABELED
    )
    names = numbered_classes(root, count, sum(map(len, splits.values())))
    return [wordnet_ids.get(number, name) for number, name in enumerate(names)], [], None


def _named(split: str | None, samples: list[Sample], classes: list[str], labels: Int[np.ndarray, " images"]) -> list[Entry]:
    """Return the images with the names that they would have in a folder; the name of the shard is added where it is needed."""

    def names(with_shard: bool) -> list[str]:
        folders = ["" if label == UNLABELED else classes[label] for label in labels.tolist()]
        return [
            image_name(split, "/".join(filter(None, (folder, sample.shard * with_shard))), sample.image.name)
            for sample, folder in zip(samples, folders, strict=True)
        ]

    unique = names(with_shard=False)
    if len(set(unique)) < len(unique):
        unique = names(with_shard=True)
    return [sample.image._replace(name=name) for sample, name in zip(samples, unique, strict=True)]
