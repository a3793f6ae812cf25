"""Source that reads images from folders or tar archives: one folder per class, optionally grouped into one folder per split.

An archive counts as a folder (see `file_tree`), so ImageNet's releases are read as distributed. `ILSVRC2012_img_train.tar`, an
archive of one archive per class, is a split with class folders. `ILSVRC2012_img_val.tar` is a split without class folders, whose
labels come from a separate file (see `label_files`); test images may have none. The full ImageNet is a folder of one archive per
class.

Every file is read, or left out by name: images read, images skipped because they cannot be decoded, files left out, and label
files are together all files. Every class has a training image, or the source is refused.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from alexnet_jax.console import console
from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources import file_tree, label_files, layout
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.data.sources.file_table import Files
from alexnet_jax.data.sources.file_tree import Listing
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.errors import UserError
from alexnet_jax.text import normalized

MAX_NAMED = 20
"""Files that are left out for the same reason are named together, as their folder, if they are more and the folder has no other
file."""


class ClassImages(NamedTuple):
    """Images, and the class of each folder by its number in the file table; None if the folder is in no class folder."""

    images: Files
    classes: dict[int, str | None]

    def class_names(self) -> set[str]:
        """Return the classes that have images."""
        return {name for name in self.classes.values() if name is not None}

    def labels(self, numbers: Mapping[str, int]) -> Int32[np.ndarray, " images"]:
        """Return the number of the class of each image, or -1 if it is in no class folder."""
        of_folders = np.full(max(self.classes, default=0) + 1, -1, np.int32)
        for folder, name in self.classes.items():
            of_folders[folder] = -1 if name is None else numbers[name]
        return of_folders[self.images.folder_numbers()]

    def take(self, selected: Bool[np.ndarray, " images"]) -> "ClassImages":
        """Return some of the images."""
        images = self.images.take(selected)
        return ClassImages(images, {folder: self.classes[folder] for folder in images.folders()})


class FolderSource(Source):
    """Image files of a folder or archive."""

    def __init__(
        self,
        classes: list[str],
        images: Mapping[str, Files],
        labels: Mapping[str, Int32[np.ndarray, " images"]],
        left_out: dict[str, str],
        description: str = layout.CLASS_FOLDERS,
    ):
        self.description = description
        self.classes, self.images, self.labels = classes, images, labels
        self.num_left_out = len(left_out)
        self.left_out = _name_folders(left_out, images.values())
        self.num_images = {split: len(files) for split, files in images.items()}

    def read(self, split: str, index: int) -> SourceImage:
        entry = self.images[split][index]
        return SourceImage(entry.name, int(self.labels[split][index]), file_tree.read(entry))

    def names(self, split: str) -> Iterator[tuple[str, str]]:
        return ((self.classes[label], name) for label, name in zip(self.labels[split], self.images[split].names(), strict=True))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, files in self.images.items():
            for label, entry in zip(self.labels[split], files, strict=True):
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
    images, other_files = layout.images_and_others(listing.files)
    layout.check_formats(root, listing, images)
    if prefix := layout.wrapping_folder(images.folders().values()):
        images = Files(images.table, images.rows, prefix)
        listing.folders = {folder.removeprefix(prefix) for folder in listing.folders if folder.startswith(prefix)}
        console.print(f"{root}: reading {prefix}, the only folder with images")
    folders = layout.split_folders(root, images)
    if folders and "train" not in folders and not testing:
        raise UserError(f"{root} has {', '.join(folders.values())} but no images in train: add train/<class>/*.jpg")
    splits: dict[str, ClassImages] = {}
    class_prefix = ""
    if folders:
        for split in (split for split in SPLITS if split in folders):
            outer = f"{folders[split]}/"
            inside = [folder.removeprefix(outer) for folder in images.folders().values() if folder.startswith(outer)]
            inner = layout.wrapping_folder(inside)
            # In a later split, the only folder may be the only class.
            if class_prefix and inner.split("/")[0] in next(iter(splits.values())).class_names():
                inner = ""
            class_prefix = class_prefix or outer + inner
            splits[split] = _class_images(outer + inner, split, images)
        inside = tuple(f"{folder}/" for folder in folders.values())
        outside = images.in_folders([number for number, folder in images.folders().items() if not folder.startswith(inside)])
        listing.left_out |= {prefix + name: f"outside {', '.join(folders.values())}" for name in outside.names()}
    elif testing:
        splits["test"] = _class_images("", "", images)
    else:
        found = _class_images("", "", images)
        held_out = _select(found, validation_split)
        splits["train"], splits["validation"] = found.take(~held_out), found.take(held_out)
    first = "train" if "train" in splits else next(iter(splits))
    classes = sorted(splits[first].class_names())
    if not classes:
        raise UserError(layout.no_class_folders(root, splits[first].images))
    _check_classes(root, classes, listing, class_prefix)
    return _assign_labels(root, classes, splits, first, other_files, listing.left_out)


def _class_images(prefix: str, split: str, images: Files) -> ClassImages:
    """Return the images whose names start with `prefix`, the folder of a split, with their classes."""
    classes: dict[int, str | None] = {}
    for number, folder in images.folders().items():
        if folder.startswith(prefix):
            first, *rest = folder.removeprefix(prefix).split("/")
            if rest and split and layout.folder_split(first) == split:
                first, *rest = rest  # ILSVRC2010_images_val.tar contains val/*.JPEG
            classes[number] = first if rest else None
    return ClassImages(images.in_folders(classes), classes)


def _select(found: ClassImages, validation_split: ValidationSplit) -> Bool[np.ndarray, " images"]:
    """Return which images are held out for validation; images in no class folder are not."""
    names = sorted(found.class_names())
    labels = found.labels({name: number for number, name in enumerate(names)})
    held_out = np.zeros(len(labels), bool)
    in_class = np.flatnonzero(labels >= 0)
    images = ((names[labels[index]], found.images.name(index)) for index in in_class.tolist())
    held_out[in_class] = validation_split.select(images)
    return held_out


def _check_classes(root: Path, classes: list[str], listing: Listing, prefix: str) -> None:
    """Check that there are two classes with different names, and that every class folder has images."""
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
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(normalized(name).casefold().split()), []).append(name)
        if (other := forms.setdefault(normalized(name), name)) != name:
            raise UserError(
                f"{root} has two class folders with the name {name!r}, {other!a} and {name!a}, which differ in their "
                "Unicode form only: merge them"
            )
    if pairs := [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        console.print(
            f"{root} has classes that differ only in case or spaces: {', '.join(pairs[:5])}; merge those of the same class",
            style="yellow",
        )


def _assign_labels(
    root: Path,
    classes: list[str],
    splits: dict[str, ClassImages],
    first: str,
    other_files: Files,
    left_out: dict[str, str],
) -> FolderSource:
    """Build the source, taking labels from class folders or, for a split without class folders, from a label file.

    Files that are left out are added to `left_out`.
    """
    numbers = {class_name: label for label, class_name in enumerate(classes)}
    images: dict[str, Files] = {}
    labels: dict[str, Int32[np.ndarray, " images"]] = {}
    display_names, used = label_files.find_names(other_files, classes)
    unlabeled: list[str] = []
    for split, found in splits.items():
        if not len(found.images):
            continue
        found_classes = found.class_names()
        if unknown := sorted(found_classes - numbers.keys()):
            names = ", ".join(unknown[:5])
            raise UserError(f"{root} has {split} classes without training images: {names}; add images of them to train")
        if split != first and not found_classes:
            from_file = label_files.find_labels(split, found.images, other_files, classes)
            used |= label_files.used_files(split, other_files)
            if from_file is None and split != "test":
                expected = label_files.expected_files(split)
                raise UserError(f"{root} has no label file for its {split} images: add one of {expected}")
            if from_file is None:
                unlabeled.append(split)
            of_images = np.array([UNLABELED] * len(found.images) if from_file is None else from_file, np.int32)
        else:
            of_images = found.labels(numbers)
            left_out |= dict.fromkeys(found.images.take(of_images < 0).names(), "in no class folder")
            found, of_images = found.take(of_images >= 0), of_images[of_images >= 0]
        # Images are ordered by class and, within a class, by name; label files may have a different order.
        order = np.argsort(of_images, kind="stable")
        images[split], labels[split] = found.images.take(order), of_images[order]
    left_out |= {name: layout.reason_for_no_image(name) for name in other_files.names() if name not in used}
    source = FolderSource(classes, images, labels, left_out)
    source.display_names, source.unlabeled = display_names, unlabeled
    return source


def _name_folders(left_out: dict[str, str], used: Iterable[Files]) -> dict[str, str]:
    """Replace the files of a folder by the folder, if they are many, have one reason, and no other file is in the folder."""
    folders: dict[str, dict[str, str]] = {}
    for name, reason in left_out.items():
        folders.setdefault(name.rpartition("/")[0], {})[name] = reason
    unmixed = {folder for folder, files in folders.items() if folder and len(files) > MAX_NAMED and len(set(files.values())) == 1}
    if unmixed:
        unmixed -= {name.rpartition("/")[0] for files in used for name in files.names()}
    named: dict[str, str] = {}
    for folder, files in folders.items():
        if folder in unmixed:
            named[f"{folder}/ ({len(files):,} files)"] = next(iter(files.values()))
        else:
            named |= files
    return dict(sorted(named.items()))
