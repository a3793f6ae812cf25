"""Pictures in folders or tar archives: a folder for each class, with or without a folder for each split above them.

What ImageNet's own releases look like is among it: `ILSVRC2012_img_train.tar` holds an archive for each class and so is a
split of class folders (see `tree`), and `ILSVRC2012_img_val.tar` a split without them, whose labels are in a list (see
`labels`). The whole ImageNet is a folder of archives, one for each class.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from alexnet_jax.data.sources import file_tree
from alexnet_jax.data.sources import label_files as labels
from alexnet_jax.data.sources.base import SPLITS, Picture, Source
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
ILSVRC = re.compile(r"ILSVRC20\d\d_(?:img|images)_(train|val|test)(?:_v\d+)?")
KAGGLE = "ILSVRC/Data/CLS-LOC/"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
LOOKED_FOR = "train/<class>/*.jpg or <class>/*.jpg; each folder may be a .tar archive"


@dataclass(frozen=True)
class ValidationSplit:
    """How pictures without splits are divided into training and validation.

    A picture is held out by a hash of its name and the seed: adding pictures later moves none of the others.

    Attributes:
      held_out: share of the pictures that is kept for validation, on average.
      seed: another seed, another division.
    """

    held_out: float = 0.1
    seed: int = 0

    def split(self, name: str) -> str:
        """Whether a file of this name is for training or validation: the same whichever others there are."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return "validation" if int.from_bytes(digest[:8], "big") < self.held_out * 2**64 else "train"


Named = tuple[str | None, Entry]
"""A picture with its class, or None where it lies in no class's folder."""


class FolderSource(Source):
    """Files of a tree and the number of their class, by split."""

    def __init__(self, classes: list[str], files: dict[str, list[tuple[Entry, int]]], notes: tuple[str, ...] = ()):
        self.description = "folders of pictures"
        self.classes, self.files, self.notes = classes, files, notes
        self.images = {split: len(found) for split, found in files.items()}

    def read(self, split: str, index: int) -> Picture:
        entry, label = self.files[split][index]
        return Picture(entry.name, label, file_tree.read(entry))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, files in self.files.items():
            for entry, label in files:
                # Not the path: a source that has been moved is the same one.
                digest.update(f"{split}/{entry.name}/{label}/{entry.offset}/{entry.size}/{entry.modified}\n".encode())
        return digest.hexdigest()


def folder_source(root: Path, division: ValidationSplit) -> FolderSource:
    """Finds the pictures below `root`: `train|validation|val|test/<class>/*.jpg` or `<class>/*.jpg`.

    Raises:
      UserError: if there is no picture in it, only one class, or a split's labels are missing.
    """
    pictures: list[Entry] = []
    others: list[Entry] = []
    for entry in file_tree.list_files(root):
        if entry.name.startswith(KAGGLE):
            entry = entry._replace(name=entry.name.removeprefix(KAGGLE))
        (pictures if entry.name.lower().endswith(SUFFIXES) else others).append(entry)
    tops: dict[str, str] = {}
    for top in sorted({entry.name.split("/")[0] for entry in pictures if "/" in entry.name}):
        split = _split_of(top)
        if split in tops:
            raise UserError(f"{root} has both {tops[split]} and {top} for {split}: take one of them away")
        if split:
            tops[split] = top
    if tops and "train" not in tops:
        raise UserError(f"{root} has {', '.join(tops.values())} but no train folder with pictures")
    if tops:
        splits = {split: _below(f"{tops[split]}/", split, pictures) for split in SPLITS if split in tops}
        known = splits["train"]
    else:
        splits = {split: [] for split in ("train", "validation")}
        known = _below("", "", pictures)
        for name, entry in known:
            splits[division.split(entry.name)].append((name, entry))
    classes = sorted({name for name, _ in known if name is not None})
    outside = len(pictures) - sum(map(len, splits.values()))
    notes = [f"{outside:,} pictures outside {', '.join(tops.values())}"] if outside else []
    return _labelled(root, classes, splits, others, notes)


def _split_of(folder: str) -> str | None:
    match = ILSVRC.fullmatch(folder)
    return SPLIT_NAMES.get(match[1] if match else folder)


def _below(top: str, split: str, pictures: list[Entry]) -> list[Named]:
    """Pictures of a split's folder, with their classes."""
    found: list[Named] = []
    for entry in pictures:
        if entry.name.startswith(top):
            first, *rest = entry.name.removeprefix(top).split("/", 2)
            if rest and SPLIT_NAMES.get(first) == split:
                first, *rest = rest  # ILSVRC2010_images_val.tar holds val/*.JPEG
            found.append((sys.intern(first) if rest else None, entry))
    return found


def _labelled(
    root: Path, classes: list[str], splits: dict[str, list[Named]], others: list[Entry], notes: list[str]
) -> FolderSource:
    numbers = {name: number for number, name in enumerate(classes)}
    files: dict[str, list[tuple[Entry, int]]] = {}
    for split, named in splits.items():
        loose = [entry for name, entry in named if name is None]
        if split != "train" and loose and len(loose) == len(named):
            found = labels.find(split, loose, others, classes)
            if found is None and split != "test":
                raise UserError(f"{root}: no list of labels for the {split} pictures, looked for {labels.looked_for(split)}")
            if found is None:
                notes.append(f"{len(loose):,} test pictures, which have no labels")
            else:
                files[split] = found
            continue
        if loose:
            notes.append(f"{len(loose):,} {split} pictures that are in no class's folder")
        strangers = sorted({name for name, _ in named if name is not None} - set(classes))
        if strangers:
            raise UserError(f"{root}: {split} has classes that train lacks: {', '.join(strangers[:5])}")
        files[split] = [(entry, numbers[name]) for name, entry in named if name is not None]
    if not files["train"]:
        raise UserError(f"{root} holds no images: looked for {LOOKED_FOR}")
    if len(classes) < 2:
        raise UserError(f"{root} has images of one class only ({classes[0]}): there is nothing to learn")
    # By class, and by name as they are within each: a list of labels is in another order.
    ordered = {split: sorted(found, key=itemgetter(1)) for split, found in files.items() if found}
    return FolderSource(classes, ordered, tuple(notes))
