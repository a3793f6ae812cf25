"""Recognition of the layout of a tree of images: splits, classes, and a folder around both.

Split folders are recognized by their names, without regard to case: train, training_set, Val, test-images, … A layout that can be
read in more than one way, and formats that `prepare` does not read, are refused with what was seen.
"""

import posixpath
import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import numpy as np

from alexnet_jax.data.sources import file_tree
from alexnet_jax.data.sources.file_table import Files, FileTable
from alexnet_jax.data.sources.file_tree import Listing
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded, resolved

_SYNONYMS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_FILLERS = {"set", "data", "images", "imgs", "split"}
"""Words that may stand beside a synonym in the name of a split folder, as in training_set."""
ILSVRC = re.compile(r"ILSVRC20\d\d_(?:img|images)_(train|val|test)(?:_v\d+)?")
"""Names of ILSVRC's archives, without `.tar`."""
EXPECTED_LAYOUT = "train/<class>/*.jpg or <class>/*.jpg (a .tar archive counts as a folder)"
"""Supported folder layouts, for error messages."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
"""File extensions of images; files with unknown extensions are recognized by their content."""
_NO_IMAGES = (".txt", ".xml", ".json", ".csv", ".tsv", ".mat", ".md", ".html", ".py", ".yaml", ".yml", ".pdf", ".cls")
_UNREADABLE = {".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".jxl": "JPEG XL", ".svg": "SVG", ".psd": "Photoshop",
               ".dng": "a raw photo", ".cr2": "a raw photo", ".nef": "a raw photo", ".arw": "a raw photo"}  # fmt: skip
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".zip", ".7z", ".rar")
"""File extensions of compressed archives."""
_TABLES = {".parquet": "Parquet", ".arrow": "Arrow", ".tfrecord": "TFRecord", ".array_record": "ArrayRecord", ".rec": "RecordIO",
           ".mdb": "LMDB", ".lmdb": "LMDB", ".h5": "HDF5", ".hdf5": "HDF5", ".npz": "NumPy"}  # fmt: skip
_IS_IMAGE = dict.fromkeys((*_NO_IMAGES, *_UNREADABLE, *COMPRESSED, *_TABLES), False) | dict.fromkeys(SUFFIXES, True)


def folder_split(folder: str) -> str | None:
    """Return the split that a folder name stands for, or None.

    Examples:
      >>> folder_split("Training_Set"), folder_split("ILSVRC2012_img_val"), folder_split("train station")
      ('train', 'validation', None)
    """
    if match := ILSVRC.fullmatch(folder):
        return _SYNONYMS[match[1]]
    words = [word for word in _words(folder) if word not in _FILLERS]
    return _SYNONYMS.get(words[0]) if len(words) == 1 else None


def _words(folder: str) -> list[str]:
    return [word for part in re.split(r"[\W_]+", folder.lower()) for word in re.split(r"(?<=.)(set)$", part) if word]


CLASS_FOLDERS = "folders of images"
"""Description of a source of images in class folders."""


def check_outside(description: str, root: str | Path, output: Path, option: str) -> None:
    """Check that a folder to write to would not be read as a class, or as a part of one, when images are read again.

    Args:
      description: description of the source; nothing is checked unless it is `CLASS_FOLDERS`.
      root: path of the source; nothing is checked if it is an archive or does not exist.
      output: folder to write to, which may not exist.
      option: option that names it, for the error message.

    Raises:
      UserError: if it would.
    """
    folder, inside = resolved(expanded(root)), resolved(expanded(output))
    if description != CLASS_FOLDERS or not folder.is_dir() or folder not in (inside, *inside.parents):
        return
    # Beside the folders of the splits, other folders are not read.
    splits = {child.name for child in folder.iterdir() if child.is_dir() and folder_split(child.name)}
    if not splits or {*inside.relative_to(folder).parts[:1]} <= splits:
        problem = f"{output} is inside {root}, where it would be read as a class"
        raise UserError(f"{problem}: choose a different {option}, or run the command in another folder")


def shard_split(path: str) -> str | None:
    """Return the split that the path of a file with many images stands for, or None.

    Examples:
      >>> shard_split("data/train-00000-of-00294.parquet"), shard_split("imagenet1k-validation-03"), shard_split("val/0.parquet")
      ('train', 'validation', 'validation')
    """
    *folders, file = path.split("/")
    in_name = [_SYNONYMS[word] for word in _words(file) if word in _SYNONYMS]
    in_folders = [split for split in map(folder_split, folders) if split]
    return next(iter([*reversed(in_name), *reversed(in_folders)]), None)


def is_image(files: FileTable, row: int, name: str) -> bool:
    """Return whether a file is an image, by its extension or, if that is unknown, by its first bytes."""
    if (known := _IS_IMAGE.get(suffix_of(name))) is not None:
        return known
    head = file_tree.read(files[row], 16)
    bmp = head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == files.size(row)
    return (
        bmp
        or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    )


def images_and_others(files: FileTable) -> tuple[Files, Files]:
    """Return the files that are images, and those that are not."""
    images = np.fromiter((is_image(files, row, name) for row, name in enumerate(files.names())), bool, len(files))
    return Files(files, np.flatnonzero(images)), Files(files, np.flatnonzero(~images))


def reason_for_no_image(name: str) -> str:
    """Return why a file that is no image is left out."""
    suffix = suffix_of(name)
    if suffix in COMPRESSED:
        return "a compressed archive, to be unpacked first"
    if suffix in _UNREADABLE:
        return f"{_UNREADABLE[suffix]}, to be converted to JPEG first"
    return "not an image"


def check_formats(root: Path, listing: Listing, images: Files) -> None:
    """Refuse tables of images that are not supported, or not where they are looked for.

    Raises:
      UserError: naming the format and one of its files.
    """
    if not images:
        for entry in listing.files:
            if kind := _TABLES.get(suffix_of(entry.name)):
                raise UserError(
                    f"{root} has {kind} files ({entry.name}), which are not supported: write the images to {EXPECTED_LAYOUT}"
                )


def suffix_of(name: str) -> str:
    """Return the last extension of a file in lower case, such as ".jpg"; faster than `PurePosixPath.suffix`."""
    return posixpath.splitext(name)[1].lower()


def stem(name: str) -> str:
    """Return the path of a file without its extensions, by which WebDataset joins the files of an image."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.')[0]}"


def wrapping_folder(folders: Iterable[str]) -> str:
    """Return the path, ending in `/`, of the folders around the layout, such as ILSVRC/Data/CLS-LOC/ in Kaggle's ImageNet.

    They contain all images, in two or more folders or in a split.

    Args:
      folders: folders that contain images, each ending in `/`, or nothing for the root.
    """
    paths = [folder.split("/")[:-1] for folder in folders]
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    split = next((i for i, folder in enumerate(common) if folder_split(folder)), None)
    if split is None and common in paths:
        return ""  # the only class
    return "".join(f"{folder}/" for folder in common[:split])


def split_folders(root: Path, images: Files) -> dict[str, str]:
    """Return the folder of each split, by split; empty if the folders are classes.

    Raises:
      UserError: if two folders are the same split, folders look like splits but are not recognized, or classes contain splits.
    """
    paths = [folder.split("/")[:-1] for folder in images.folders().values()]
    folders = sorted({path[0] for path in paths if path})
    splits: dict[str, str] = {}
    for folder in folders:
        split = folder_split(folder)
        if split in splits:
            raise UserError(f"{root} has both {splits[split]} and {folder} for the {split} split: remove one of them")
        if split:
            splits[split] = folder
    nested = any(len(path) > 1 for path in paths)
    if splits and not nested and set(splits.values()) < set(folders) and len(splits) == 1:
        return {}  # a class may be called train, as one of CIFAR-100 is
    if splits:
        return splits
    words = [set(_words(re.sub(r"\d+", " ", folder))) for folder in folders]
    others = {frozenset(each - _SYNONYMS.keys()) for each in words}
    if len(folders) > 1 and len(others) == 1 and all(each & _SYNONYMS.keys() for each in words):
        names = ", ".join(folders[:5])
        raise UserError(f"{root} has the folders {names}, which look like splits: rename them to train, validation and test")
    inner = {folder_split(path[1]) for path in paths if len(path) > 1}
    if "train" in inner and len(inner) > 1:
        examples = {folder_split(name.split("/")[1]): name for name in images.names() if name.count("/") > 1}
        raise UserError(
            f"{root} has splits inside its classes ({examples['train']}): move the images to train/<class>/, test/<class>/, …"
        )
    return {}


def no_class_folders(root: Path, images: Files) -> str:
    """Return the message for images that are in no class folder."""
    if not images:
        return f"{root} has no images; expected {EXPECTED_LAYOUT}"
    seen = f"{root} has {len(images):,} images without a class folder ({images[0].name}, …)"
    if re.search(r"ILSVRC20\d\d_val_\d+", images[0].name):
        advice = "these are ILSVRC's validation images, so put them into val, next to train/<class> and a file of their labels"
        return f"{seen}: {advice}"
    return f"{seen}: move each image into a folder named after its class, {EXPECTED_LAYOUT}"
