"""Source that reads images from folders or tar archives: one folder per class, optionally grouped into one folder per split.

An archive counts as a folder (see `file_tree`), so ImageNet's releases are read as distributed. `ILSVRC2012_img_train.tar`, an
archive of one archive per class, is a split with class folders. `ILSVRC2012_img_val.tar` is a split without class folders, whose
labels come from a separate file (see `label_files`). The full ImageNet is a folder of one archive per class.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from alexnet_jax.data.sources import file_tree, label_files
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.data.sources.file_tree import Entry
from alexnet_jax.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Split of each recognized folder name."""
ILSVRC = re.compile(r"ILSVRC20\d\d_(?:img|images)_(train|val|test)(?:_v\d+)?")
"""Names of ILSVRC's archives, without `.tar`."""
KAGGLE = "ILSVRC/Data/CLS-LOC/"
"""Folder of the splits in Kaggle's release of ILSVRC-2012."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
"""Recognized image file extensions."""
EXPECTED_LAYOUT = "train/<class>/*.jpg or <class>/*.jpg (a .tar archive counts as a folder)"
"""Supported folder layouts, for error messages."""


@dataclass(frozen=True)
class ValidationSplit:
    """Random selection of validation images in folders without splits.

    The split of an image depends on a hash of its name and the seed, so adding images later does not move any other image.

    Attributes:
      held_out: expected fraction of images in the validation split, 0 to 1.
      seed: seed of the selection.
    """

    held_out: float = 0.1
    seed: int = 0

    def assign(self, name: str) -> str:
        """Return the split of an image, "train" or "validation", given its name."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return "validation" if int.from_bytes(digest[:8], "big") < self.held_out * 2**64 else "train"


ClassEntry = tuple[str | None, Entry]
"""Class name and file of an image; the class is None if the image is in no class folder."""


class FolderSource(Source):
    """Image files of a folder or archive.

    Args:
      classes: class names.
      files: files and their labels, by split.
      notes: excluded images and the reason, one line each.
    """

    def __init__(self, classes: list[str], files: dict[str, list[tuple[Entry, int]]], notes: tuple[str, ...] = ()):
        self.description = "folders of images"
        self.classes, self.files, self.notes = classes, files, notes
        self.num_images = {split: len(entries) for split, entries in files.items()}

    def read(self, split: str, index: int) -> SourceImage:
        entry, label = self.files[split][index]
        return SourceImage(entry.name, label, file_tree.read(entry))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, files in self.files.items():
            for entry, label in files:
                # The path on disk is not part of the fingerprint, so a source can be moved.
                digest.update(f"{split}/{entry.name}/{label}/{entry.offset}/{entry.size}/{entry.modified}\n".encode())
        return digest.hexdigest()


def folder_source(root: Path, validation_split: ValidationSplit) -> FolderSource:
    """List the images below `root`, in the layout `train|validation|val|test/<class>/*.jpg` or `<class>/*.jpg`.

    Args:
      root: folder or tar archive.
      validation_split: rule that selects validation images if there are no split folders.

    Raises:
      UserError: if there are no training images, there is only one class, or the labels of a split are missing or invalid.
    """
    images: list[Entry] = []
    other_files: list[Entry] = []
    for entry in file_tree.list_files(root):
        if entry.name.startswith(KAGGLE):
            entry = entry._replace(name=entry.name.removeprefix(KAGGLE))
        (images if entry.name.lower().endswith(SUFFIXES) else other_files).append(entry)
    split_folders: dict[str, str] = {}
    for folder in sorted({entry.name.split("/")[0] for entry in images if "/" in entry.name}):
        split = _folder_split(folder)
        if split in split_folders:
            raise UserError(f"{root} has both {split_folders[split]} and {folder} for the {split} split: remove one of them")
        if split:
            split_folders[split] = folder
    if split_folders and "train" not in split_folders:
        raise UserError(f"{root} has {', '.join(split_folders.values())} but no images in train: add train/<class>/*.jpg")
    if split_folders:
        splits = {split: _class_entries(f"{split_folders[split]}/", split, images) for split in SPLITS if split in split_folders}
        training = splits["train"]
    else:
        splits = {split: [] for split in ("train", "validation")}
        training = _class_entries("", "", images)
        for class_name, entry in training:
            splits[validation_split.assign(entry.name)].append((class_name, entry))
    classes = sorted({class_name for class_name, _ in training if class_name is not None})
    outside = len(images) - sum(map(len, splits.values()))
    notes = [f"{outside:,} images outside {', '.join(split_folders.values())}"] if outside else []
    return _assign_labels(root, classes, splits, other_files, notes)


def _folder_split(folder: str) -> str | None:
    match = ILSVRC.fullmatch(folder)
    return SPLIT_NAMES.get(match[1] if match else folder)


def _class_entries(prefix: str, split: str, images: list[Entry]) -> list[ClassEntry]:
    """Return the images whose names start with `prefix`, the folder of a split, with their classes."""
    entries: list[ClassEntry] = []
    for entry in images:
        if entry.name.startswith(prefix):
            first, *rest = entry.name.removeprefix(prefix).split("/", 2)
            if rest and SPLIT_NAMES.get(first) == split:
                first, *rest = rest  # ILSVRC2010_images_val.tar contains val/*.JPEG
            entries.append((sys.intern(first) if rest else None, entry))
    return entries


def _assign_labels(
    root: Path, classes: list[str], splits: dict[str, list[ClassEntry]], other_files: list[Entry], notes: list[str]
) -> FolderSource:
    """Build the source, taking labels from class folders or, for a split without class folders, from a label file.

    Args:
      root: folder or archive, for error messages.
      classes: class names.
      splits: images and their classes, by split.
      other_files: files that are not images.
      notes: excluded images so far; more are appended.
    """
    labels = {class_name: label for label, class_name in enumerate(classes)}
    files: dict[str, list[tuple[Entry, int]]] = {}
    for split, entries in splits.items():
        unsorted = [entry for class_name, entry in entries if class_name is None]
        if split != "train" and unsorted and len(unsorted) == len(entries):
            labeled = label_files.find_labels(split, unsorted, other_files, classes)
            if labeled is None and split != "test":
                expected = label_files.expected_files(split)
                raise UserError(f"{root} has no label file for its {split} images: add one of {expected}")
            if labeled is None:
                notes.append(f"{len(unsorted):,} test images without labels")
            else:
                files[split] = labeled
            continue
        if unsorted:
            notes.append(f"{len(unsorted):,} {split} images outside class folders")
        unknown = sorted({class_name for class_name, _ in entries if class_name is not None} - set(classes))
        if unknown:
            names = ", ".join(unknown[:5])
            raise UserError(f"{root} has {split} classes without training images: {names}; add images of them to train")
        files[split] = [(entry, labels[class_name]) for class_name, entry in entries if class_name is not None]
    if not files["train"]:
        raise UserError(f"{root} has no training images; expected {EXPECTED_LAYOUT}")
    if len(classes) < 2:
        raise UserError(f"{root} has images of one class only ({classes[0]}): add a folder for at least one more class")
    # Images are ordered by class and, within a class, by name; label files may have a different order.
    ordered = {split: sorted(entries, key=itemgetter(1)) for split, entries in files.items() if entries}
    return FolderSource(classes, ordered, tuple(notes))
