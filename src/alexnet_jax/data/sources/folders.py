"""Source that reads images from folders or tar archives: one folder per class, optionally grouped into one folder per split.

An archive counts as a folder (see `file_tree`), so ImageNet's releases are read as distributed. `ILSVRC2012_img_train.tar`, an
archive of one archive per class, is a split with class folders. `ILSVRC2012_img_val.tar` is a split without class folders, whose
labels come from a separate file (see `label_files`); test images may have none. The full ImageNet is a folder of one archive per
class.

Every file is read, or left out by name: images read, images skipped because they cannot be decoded, files left out, and label
files are together all files. Every class has a training image, or the source is refused.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources import file_tree, label_files, layout, name_files
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.data.sources.file_tree import Entry, Listing
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.errors import UserError
from alexnet_jax.text import normalized

MAX_NAMED = 20
"""Files that are left out for the same reason are named together, as their folder, if they are more and the folder has no other
file."""

DESCRIPTION = "folders of images"
"""Description of a source of images in class folders."""

ClassEntry = tuple[str | None, Entry]
"""Class name and file of an image; the class is None if the image is in no class folder."""


class FolderSource(Source):
    """Image files of a folder or archive.

    Args:
      classes: class names.
      files: files and their labels, by split.
      left_out: reason for each file that is not read, by name.
      description: short description.
    """

    def __init__(
        self,
        classes: list[str],
        files: dict[str, list[tuple[Entry, int]]],
        left_out: dict[str, str],
        description: str = DESCRIPTION,
    ):
        self.description = description
        self.classes, self.files = classes, files
        self.num_left_out = len(left_out)
        self.left_out = _name_folders(left_out, (entry.name for entries in files.values() for entry, _ in entries))
        self.num_images = {split: len(entries) for split, entries in files.items()}

    def read(self, split: str, index: int) -> SourceImage:
        entry, label = self.files[split][index]
        return SourceImage(entry.name, label, file_tree.read(entry))

    def names(self, split: str) -> Iterator[tuple[str, str]]:
        return ((self.classes[label], entry.name) for entry, label in self.files[split])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, files in self.files.items():
            for entry, label in files:
                # The path on disk is not part of the fingerprint, so a source can be moved.
                digest.update(f"{split}/{entry.name}/{label}/{entry.offset}/{entry.size}/{entry.modified}\n".encode())
        return digest.hexdigest()


def folder_source(root: Path, listing: Listing, validation_split: ValidationSplit, *, testing: bool = False) -> FolderSource:
    """Return the images below `root`, in the layout `train|validation|val|test/<class>/*.jpg` or `<class>/*.jpg`.

    Args:
      root: folder or tar archive.
      listing: its files.
      validation_split: rule that selects validation images if there are no split folders.
      testing: whether the images are only tested. Without split folders, all of them are the test split; and a train split is not
        required.

    Raises:
      UserError: if a class has no training images, there is only one class, the labels of a split are missing or invalid, or the
        layout is not supported or can be read in several ways.
    """
    images: list[Entry] = []
    other_files: list[Entry] = []
    for entry in listing.files:
        (images if layout.is_image(entry) else other_files).append(entry)
    layout.check_formats(root, listing, images)
    if prefix := layout.wrapping_folder(images):
        images = [_strip(entry, prefix) for entry in images]
        listing.folders = {folder.removeprefix(prefix) for folder in listing.folders if folder.startswith(prefix)}
        console.print(f"{root}: reading {prefix}, the only folder with images")
    folders = layout.split_folders(root, images)
    if folders and "train" not in folders and not testing:
        raise UserError(f"{root} has {', '.join(folders.values())} but no images in train: add train/<class>/*.jpg")
    if folders:
        splits: dict[str, list[ClassEntry]] = {}
        class_prefix = ""
        for split in (split for split in SPLITS if split in folders):
            outer = f"{folders[split]}/"
            inner = layout.wrapping_folder([_strip(entry, outer) for entry in images if entry.name.startswith(outer)])
            # In a later split, the only folder may be the only class.
            if class_prefix and any(name == inner.split("/")[0] for name, _ in next(iter(splits.values()))):
                inner = ""
            class_prefix = class_prefix or outer + inner
            splits[split] = _class_entries(outer + inner, split, images)
        inside = tuple(f"{folder}/" for folder in folders.values())
        for entry in images:
            if not entry.name.startswith(inside):
                listing.left_out[prefix + entry.name] = f"outside {', '.join(folders.values())}"
    else:
        entries = _class_entries("", "", images)
        held_out = validation_split.select((name, entry.name) for name, entry in entries if name is not None)
        splits = {"test": entries} if testing else {"train": [], "validation": []}
        class_prefix = ""
        for class_name, entry in () if testing else entries:
            splits["validation" if entry.name in held_out else "train"].append((class_name, entry))
    first = "train" if "train" in splits else next(iter(splits))
    classes = sorted({class_name for class_name, _ in splits[first] if class_name is not None})
    if not classes:
        raise UserError(layout.no_class_folders(root, [entry for _, entry in splits[first]]))
    _check_classes(root, classes, listing, class_prefix)
    return _assign_labels(root, classes, splits, first, other_files, listing.left_out)


def _strip(entry: Entry, prefix: str) -> Entry:
    return entry._replace(name=entry.name.removeprefix(prefix))


def _class_entries(prefix: str, split: str, images: list[Entry]) -> list[ClassEntry]:
    """Return the images whose names start with `prefix`, the folder of a split, with their classes."""
    entries: list[ClassEntry] = []
    for entry in images:
        if entry.name.startswith(prefix):
            first, *rest = entry.name.removeprefix(prefix).split("/", 2)
            if rest and split and layout.folder_split(first) == split:
                first, *rest = rest  # ILSVRC2010_images_val.tar contains val/*.JPEG
            entries.append((sys.intern(first) if rest else None, entry))
    return entries


def _check_classes(root: Path, classes: list[str], listing: Listing, prefix: str) -> None:
    """Check that there are two classes with different names, and that every class folder has images.

    Args:
      root: folder or archive, for error messages.
      classes: names of the classes that have images.
      listing: all folders of the tree.
      prefix: folder of the class folders.
    """
    folders = {folder.removeprefix(prefix) for folder in listing.folders if folder.startswith(prefix)}
    folders = {folder for folder in folders if "/" not in folder and not layout.folder_split(folder)}
    if empty := sorted(folders - set(classes)):
        names = ", ".join(prefix + name for name in empty[:5])
        reasons = [f"{name} is {reason}" for name, reason in listing.left_out.items() if name.startswith(f"{prefix}{empty[0]}/")]
        seen = f" ({'; '.join(reasons[:3])})" if reasons else ""
        raise UserError(f"{root} has class folders without images that can be read: {names}{seen}; add images, or remove them")
    if len(classes) < 2:
        raise UserError(f"{root} has images of one class only ({classes[0]}): add a folder for at least one more class")
    forms: dict[str, str] = {}
    for name in classes:
        if (other := forms.setdefault(normalized(name), name)) != name:
            raise UserError(
                f"{root} has two class folders with the name {name!r}, {other!a} and {name!a}, which differ in their "
                "Unicode form only: merge them"
            )


def _assign_labels(
    root: Path,
    classes: list[str],
    splits: dict[str, list[ClassEntry]],
    first: str,
    other_files: list[Entry],
    left_out: dict[str, str],
) -> FolderSource:
    """Build the source, taking labels from class folders or, for a split without class folders, from a label file.

    Args:
      root: folder or archive, for error messages.
      classes: class names.
      splits: images and their classes, by split.
      first: split that defines the classes.
      other_files: files that are not images.
      left_out: files left out so far; more are added.
    """
    labels = {class_name: label for label, class_name in enumerate(classes)}
    files: dict[str, list[tuple[Entry, int]]] = {}
    display_names, used = name_files.find_names(other_files, classes)
    unlabeled: list[str] = []
    for split, entries in splits.items():
        unsorted = [entry for class_name, entry in entries if class_name is None]
        if split != first and unsorted and len(unsorted) == len(entries):
            labeled = label_files.find_labels(split, unsorted, other_files, classes)
            used |= label_files.used_files(split, other_files)
            if labeled is None and split != "test":
                expected = label_files.expected_files(split)
                raise UserError(f"{root} has no label file for its {split} images: add one of {expected}")
            if labeled is None:
                unlabeled.append(split)
                labeled = [(entry, UNLABELED) for entry in unsorted]
            files[split] = labeled
            continue
        left_out |= {entry.name: "in no class folder" for entry in unsorted}
        unknown = sorted({class_name for class_name, _ in entries if class_name is not None} - set(classes))
        if unknown:
            names = ", ".join(unknown[:5])
            raise UserError(f"{root} has {split} classes without training images: {names}; add images of them to train")
        files[split] = [(entry, labels[class_name]) for class_name, entry in entries if class_name is not None]
    left_out |= {entry.name: layout.reason_for_no_image(entry.name) for entry in other_files if entry.name not in used}
    # Images are ordered by class and, within a class, by name; label files may have a different order.
    ordered = {split: sorted(entries, key=itemgetter(1)) for split, entries in files.items() if entries}
    source = FolderSource(classes, ordered, left_out)
    source.display_names, source.unlabeled = display_names, unlabeled
    return source


def _name_folders(left_out: dict[str, str], used: Iterable[str]) -> dict[str, str]:
    """Replace the files of a folder by the folder, if they are many, have one reason, and no other file is in the folder."""
    folders: dict[str, dict[str, str]] = {}
    for name, reason in left_out.items():
        folders.setdefault(name.rpartition("/")[0], {})[name] = reason
    others = {name.rpartition("/")[0] for name in used}
    named: dict[str, str] = {}
    for folder, files in folders.items():
        if len(files) > MAX_NAMED and len(set(files.values())) == 1 and folder and folder not in others:
            named[f"{folder}/ ({len(files):,} files)"] = next(iter(files.values()))
        else:
            named |= files
    return dict(sorted(named.items()))
