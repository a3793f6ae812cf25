"""Folders of images: a folder for each class, with or without a folder for each split above them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.errors import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
HELD_OUT = 10  # where a folder has no splits, one image in so many is kept for validation


@dataclass(frozen=True)
class ImageFolder:
    """Image files and the number of their class, by split; `train` is never empty."""

    classes: list[str]
    files: dict[str, list[tuple[Path, int]]]


def scan(root: Path) -> ImageFolder:
    """Finds the images below `root`: `train|validation|val|test/<class>/*.jpg` or `<class>/*.jpg`.

    Without splits, an image goes to validation by a hash of its name, one in ten on average: adding images later moves
    none of the others.

    Raises:
      UserError: if there is no such folder, no image in it, or only one class.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give one that holds train/<class>/*.jpg or <class>/*.jpg")
    split_folders = {SPLITS[d.name]: d for d in sorted(root.iterdir()) if d.is_dir() and d.name in SPLITS}
    if split_folders and "train" not in split_folders:
        raise UserError(f"{root} has {', '.join(split_folders)} but no train folder")
    classes = _folders(split_folders.get("train", root))
    files: dict[str, list[tuple[Path, int]]] = {}
    if split_folders:
        for split, folder in split_folders.items():
            strangers = sorted(set(_folders(folder)) - set(classes))
            if strangers:
                raise UserError(f"{folder} has classes that train lacks: {', '.join(strangers[:5])}")
            files[split] = _images(folder, classes)
    else:
        for path, label in _images(root, classes):
            digest = hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()
            held_out = int.from_bytes(digest[:8], "big") % HELD_OUT == 0
            files.setdefault("validation" if held_out else "train", []).append((path, label))
    if not files.get("train"):
        raise UserError(f"{root} holds no images: expected train/<class>/*.jpg or <class>/*.jpg")
    found = {label for _, label in files["train"]}
    if len(found) < 2:
        raise UserError(f"{root} has images of one class only ({classes[found.pop()]}): there is nothing to learn")
    order = ("train", "validation", "test")
    return ImageFolder(classes, {split: files[split] for split in order if files.get(split)})


def _folders(root: Path) -> list[str]:
    return sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


def _images(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
