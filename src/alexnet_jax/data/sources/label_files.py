"""Labels of pictures that lie in no class's folder, from the lists that ImageNet's validation pictures come with.

A list is recognized by its lines:

    n01751748                              a class; line i is for the picture whose name ends in the number i
    490                                    likewise, a class by its number in the development kit, whose meta.mat names it
    ILSVRC2012_val_00000001.JPEG 65        a picture, and a class by its place among their sorted names, from 0
    ILSVRC2012_val_00000001 n01751748      a picture and a class
    ILSVRC2012_val_00000001,n01751748 1…   likewise, as on Kaggle: the boxes that follow the class do not matter
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from alexnet_jax.data.sources import file_tree
from alexnet_jax.data.sources.file_tree import Entry
from alexnet_jax.errors import UserError

SHORT = {"validation": "val", "test": "test"}
KIT = re.compile(r".*devkit.*\.(tar\.gz|tgz)")
META = "meta.mat"
LARGEST = 64 << 20  # bytes: no list of labels is larger


def looked_for(split: str) -> str:
    """The lists that would do, for an error."""
    short = SHORT[split]
    lists = f"*{split}_synset_labels.txt, {short}.txt, LOC_{short}_solution.csv, *{split}_ground_truth.txt with {META}"
    return f"{lists}; a *devkit*.tar.gz may hold them"


def find(split: str, pictures: list[Entry], others: list[Entry], classes: list[str]) -> list[tuple[Entry, int]] | None:
    """The pictures with the numbers of their classes, or None if no list for them is among the other files.

    Raises:
      UserError: if the list does not fit the pictures or the classes.
    """
    short = SHORT[split]
    pattern = re.compile(rf"(.*{split}_(synset_labels|ground_truth)|{short}|{split})\.txt|LOC_{short}_solution\.csv")
    files = dict(_small_files(others, pattern))
    meta = files.pop(META, None)
    # That of the development kit comes last, because it needs a second file.
    for name in sorted(files, key=lambda name: (name.endswith("ground_truth.txt"), name)):
        parsed = _parse(name, files[name])
        if split == "test" and set(parsed.labels) == {"0"}:
            continue  # how some tools write labels that are secret
        return _match(parsed, pictures, split, _meanings(parsed, classes, meta), classes)
    return None


@dataclass(frozen=True)
class _List:
    """What a list says: `keys` are names of pictures, or None where line i is for picture number i."""

    name: str
    keys: list[str] | None
    labels: list[str]


def _parse(name: str, data: bytes) -> _List:
    rows = [re.split(r"[\s,]+", line.strip()) for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if rows and rows[0][0] == "ImageId":
        del rows[0]
    columns = 2 if rows and len(rows[0]) > 1 else 1
    if any(len(row) < columns for row in rows):
        raise UserError(f"{name} has lines without a label")
    keys = [_stem(row[0]) for row in rows] if columns == 2 else None
    if keys and len(set(keys)) < len(keys):
        raise UserError(f"{name} has two labels for the same picture")
    return _List(name, keys, [row[columns - 1] for row in rows])


def _meanings(parsed: _List, classes: list[str], meta: bytes | None) -> dict[str, str]:
    """From how a list writes a class to its name."""
    if not all(label.isdecimal() for label in parsed.labels):
        return {name: name for name in classes}
    if parsed.keys:
        return {str(number): name for number, name in enumerate(classes)}
    if meta is None:
        raise UserError(f"{parsed.name} gives classes by number: put the development kit's {META} beside it, which names them")
    return _kit_classes(meta)


def _match(
    parsed: _List, pictures: list[Entry], split: str, meanings: dict[str, str], classes: list[str]
) -> list[tuple[Entry, int]]:
    if len(parsed.labels) != len(pictures):
        raise UserError(
            f"{parsed.name} has {len(parsed.labels):,} labels for {len(pictures):,} {split} pictures: one of them is incomplete"
        )
    keys = parsed.keys or [str(number) for number in range(1, len(parsed.labels) + 1)]
    said = dict(zip(keys, parsed.labels, strict=True))
    numbers = {name: number for number, name in enumerate(classes)}
    found = []
    for picture in pictures:
        stem = _stem(picture.name)
        label = said.get(stem if parsed.keys else re.sub(r".*?0*(\d*)$", r"\1", stem))
        if label is None:
            raise UserError(f"{parsed.name} has no label for {picture.name}")
        if meanings.get(label) not in numbers:
            raise UserError(f"{parsed.name} has the class {label}, of which there are no training pictures")
        found.append((picture, numbers[meanings[label]]))
    return found


def _stem(name: str) -> str:
    return re.sub(r"\.jpe?g$|\.png$", "", PurePosixPath(name).name, flags=re.IGNORECASE)


def _small_files(others: list[Entry], pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of lists and of meta.mat, also of those in development kits."""
    for entry in others:
        name = PurePosixPath(entry.name).name
        if entry.size > LARGEST:
            continue
        if name == META or pattern.fullmatch(name):
            yield name, file_tree.read(entry)
        elif KIT.fullmatch(name):
            try:
                with tarfile.open(fileobj=io.BytesIO(file_tree.read(entry)), mode="r:gz") as kit:
                    for member in kit:
                        name = PurePosixPath(member.name).name
                        wanted = name == META or pattern.fullmatch(name)
                        if wanted and member.size <= LARGEST and (file := kit.extractfile(member) if member.isreg() else None):
                            yield name, file.read()
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UserError(f"{entry.path} is damaged ({error}): fetch it again") from error


def _kit_classes(meta: bytes) -> dict[str, str]:
    """Number and name of the development kit's classes; those with children are not for recognition."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        number = next(name for name in synsets.dtype.names if re.fullmatch(r"ILSVRC20\d\d_ID", name))
        return {str(synset[number]): str(synset["WNID"]) for synset in synsets if not synset["num_children"]}
    except Exception as error:  # a damaged one raises anything
        raise UserError(f"{META} of the development kit is damaged ({error}): fetch it again") from error
