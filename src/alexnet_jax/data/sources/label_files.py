"""Labels of images without class folders, and names of classes to print, from files that are distributed with ImageNet.

The format of a label file is detected from its lines:

    n01751748                              class of image i, on line i; i is the number at the end of the image's name
    490                                    the same, as a class number of the development kit, whose meta.mat has the names
    ILSVRC2012_val_00000001.JPEG 65        image name, and index into the sorted class names, from 0
    ILSVRC2012_val_00000001 n01751748      image name and class
    ILSVRC2012_val_00000001,n01751748 1…   the same, from Kaggle; bounding boxes after the class are ignored

Names are in LOC_synset_mapping.txt or synset_words.txt, as in "n01440764 tench, Tinca tinca"; in words.txt, the same with a tab
for all synsets of WordNet; or in meta.mat, also in the development kit, as a table of MATLAB.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from alexnet_jax.data.class_names import first_synonym, parse_synset_names
from alexnet_jax.data.sources import file_tree
from alexnet_jax.data.sources.file_table import Entry, Files
from alexnet_jax.errors import UserError

SHORT_NAMES = {"validation": "val", "test": "test"}
"""Split names as abbreviated in file names."""
DEVKIT = re.compile(r".*devkit.*\.(tar\.gz|tgz)")
META = "meta.mat"
"""File of the development kit that gives the class of each number."""
NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
"""Names of text files with the names of WordNet ids, the preferred one first."""
MAX_FILE_BYTES = 64 << 20
"""Size limit of label files and development kits."""


def expected_files(split: str) -> str:
    """Return the names of the supported label files of a split, for error messages."""
    short = SHORT_NAMES[split]
    names = f"*{split}_synset_labels.txt, {short}.txt, LOC_{short}_solution.csv, *{split}_ground_truth.txt with {META}"
    return f"{names}, or a *devkit*.tar.gz that contains one"


def find_labels(split: str, images: Files, other_files: Files, classes: list[str]) -> list[int] | None:
    """Return the labels of the images of a split, from the first supported label file.

    Args:
      split: "validation" or "test".
      images: image files without class folders.
      other_files: files to search for a label file.
      classes: class names, in the order of the labels.

    Returns:
      Label of each image, or None if there is no label file. A test label file whose labels are all 0 is ignored.

    Raises:
      UserError: if the label file does not match the images or the classes.
    """
    files = dict(read_label_files(other_files, _pattern(split)))
    meta = files.pop(META, None)
    # The development kit's file comes last because it also needs meta.mat.
    for name in sorted(files, key=lambda name: (name.endswith("ground_truth.txt"), name)):
        label_file = _parse(name, files[name])
        if split == "test" and set(label_file.labels) == {"0"}:
            continue  # a placeholder that some tools write for undisclosed labels
        return _match(label_file, images, split, _label_classes(label_file, classes, meta), classes)
    return None


def used_files(split: str, files: Files) -> set[str]:
    """Return the names of the files that `find_labels` reads."""
    pattern = _pattern(split)
    names = ((path, PurePosixPath(path).name) for path in files.names())
    return {path for path, name in names if name == META or pattern.fullmatch(name) or DEVKIT.fullmatch(name)}


def _pattern(split: str) -> re.Pattern[str]:
    """Return the pattern of the names of a split's label files."""
    short = SHORT_NAMES[split]
    return re.compile(rf"(.*{split}_(synset_labels|ground_truth)|{short}|{split})\.txt|LOC_{short}_solution\.csv")


@dataclass(frozen=True)
class _LabelFile:
    """Parsed label file.

    Attributes:
      name: file name.
      image_names: image names without extension, line by line; None if line i labels image number i.
      labels: class of each line, as written.
    """

    name: str
    image_names: list[str] | None
    labels: list[str]


def _parse(name: str, data: bytes) -> _LabelFile:
    rows = [re.split(r"[\s,]+", line.strip()) for line in data.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    if rows and rows[0][0] == "ImageId":
        del rows[0]
    columns = 2 if rows and len(rows[0]) > 1 else 1
    if any(len(row) < columns for row in rows):
        raise UserError(f"{name} has lines without a label: download it again")
    image_names = [_stem(row[0]) for row in rows] if columns == 2 else None
    if image_names and len(set(image_names)) < len(image_names):
        raise UserError(f"{name} has more than one label for an image: download it again")
    return _LabelFile(name, image_names, [row[columns - 1] for row in rows])


def _label_classes(label_file: _LabelFile, classes: list[str], meta: bytes | None) -> dict[str, str]:
    """Return a mapping from each label, as written in the file, to its class name."""
    if not all(label.isdecimal() for label in label_file.labels):
        return {name: name for name in classes}
    if label_file.image_names:
        return {str(number): name for number, name in enumerate(classes)}
    if meta is None:
        advice = f"put the development kit's {META}, which has the class names, next to it"
        raise UserError(f"{label_file.name} has class numbers only: {advice}")
    return {synset.number: synset.wordnet_id for synset in read_devkit_synsets(meta)}


def _match(label_file: _LabelFile, images: Files, split: str, label_classes: dict[str, str], classes: list[str]) -> list[int]:
    """Return the indices of the classes of the images."""
    if len(label_file.labels) != len(images):
        counts = f"{len(label_file.labels):,} labels for {len(images):,} {split} images"
        raise UserError(f"{label_file.name} has {counts}: check that both are complete")
    keys = label_file.image_names or [str(number) for number in range(1, len(label_file.labels) + 1)]
    labels = dict(zip(keys, label_file.labels, strict=True))
    class_indices = {name: index for index, name in enumerate(classes)}
    found: list[int] = []
    for name in images.names():
        stem = _stem(name)
        label = labels.get(stem if label_file.image_names else re.sub(r".*?0*(\d*)$", r"\1", stem))
        if label is None:
            raise UserError(f"{label_file.name} has no label for {name}: add it, or remove the image")
        if label_classes.get(label) not in class_indices:
            raise UserError(f"{label_file.name} has the class {label}, which has no training images: add images of it to train")
        found.append(class_indices[label_classes[label]])
    return found


def _stem(name: str) -> str:
    return re.sub(r"\.jpe?g$|\.png$", "", PurePosixPath(name).name, flags=re.IGNORECASE)


def read_label_files(files: Iterable[Entry], pattern: re.Pattern[str] = re.compile("(?!)")) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of meta.mat and of each file that matches `pattern`, including those in development kits.

    Raises:
      UserError: if a development kit is damaged.
    """
    for entry in files:
        name = PurePosixPath(entry.name).name
        if entry.size > MAX_FILE_BYTES:
            continue
        if name == META or pattern.fullmatch(name):
            yield name, file_tree.read(entry)
        elif DEVKIT.fullmatch(name):
            try:
                with tarfile.open(fileobj=io.BytesIO(file_tree.read(entry)), mode="r:gz") as devkit:
                    for member in devkit:
                        name = PurePosixPath(member.name).name
                        if not (name == META or pattern.fullmatch(name)) or member.size > MAX_FILE_BYTES:
                            continue
                        if file := devkit.extractfile(member) if member.isreg() else None:
                            yield name, file.read()
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UserError(f"{entry.path} is damaged ({error}): download it again") from error


class Synset(NamedTuple):
    """Class of the development kit: its number, WordNet id and synonyms; these are empty if the file has none."""

    number: str
    wordnet_id: str
    words: str


def read_devkit_synsets(meta: bytes) -> list[Synset]:
    """Return the classes in the content of meta.mat, without groups of classes (synsets with children).

    Raises:
      UserError: if the file is damaged.
    """
    from scipy.io import loadmat  # noqa: PLC0415 (takes a quarter of a second, which most commands need not wait)

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        number = next(name for name in synsets.dtype.names if re.fullmatch(r"ILSVRC20\d\d_ID", name))
        has_words = "words" in synsets.dtype.names
        return [
            Synset(str(synset[number]), str(synset["WNID"]), str(synset["words"]) if has_words else "")
            for synset in synsets
            if not synset["num_children"]
        ]
    except Exception as error:  # scipy raises exceptions of many types on a damaged file
        raise UserError(f"{META} of the development kit is damaged ({error}): download it again") from error


def find_names(files: Files, classes: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the names of classes to print, and the names of the files that they are read from.

    Returns:
      Names in the order of the classes, or none if no file has a name for any class.

    Raises:
      UserError: if a development kit is damaged.
    """
    paths = ((index, PurePosixPath(path).name) for index, path in enumerate(files.names()))
    by_name = {name: files[index] for index, name in paths if name in NAME_FILES or name == META or DEVKIT.fullmatch(name)}
    by_name = {name: entry for name, entry in by_name.items() if entry.size <= MAX_FILE_BYTES}
    for name in NAME_FILES:
        if name in by_name:
            names = parse_synset_names(file_tree.read(by_name[name]).decode("utf-8-sig", "backslashreplace"))
            if not names.keys().isdisjoint(classes):
                return [names.get(key, key) for key in classes], {by_name[name].name}
    kits = [entry for name, entry in by_name.items() if name == META or DEVKIT.fullmatch(name)]
    for _, content in read_label_files(kits):
        names = {synset.wordnet_id: first_synonym(synset.words) for synset in read_devkit_synsets(content)}
        if any(names.get(key) for key in classes):
            return [names.get(key) or key for key in classes], {entry.name for entry in kits}
    return [], set()
