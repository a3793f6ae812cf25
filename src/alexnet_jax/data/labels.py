"""Labels of pictures that lie in no class's folder, from the lists that ImageNet's validation pictures come with.

A list is recognized by its lines:

    n01751748                            a class; line i is for the picture whose name ends in the number i
    490                                  number of a class in the development kit, whose meta.mat names it; line i likewise
    ILSVRC2012_val_00000001.JPEG 65      a picture and the number of its class, counted from 0 in the order of their names
    ILSVRC2012_val_00000001.JPEG n01751748
    ILSVRC2012_val_00000001,n01751748 111 108 431 392     as on Kaggle: the boxes that follow the class do not matter
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from alexnet_jax.data import tree
from alexnet_jax.data.tree import Entry
from alexnet_jax.errors import UserError

ABBREVIATION = {"validation": "val", "test": "test"}
LARGEST = 64 << 20  # bytes: no list of labels is larger

Labelled = list[tuple[Entry, int]]


def looked_for(split: str) -> str:
    short = ABBREVIATION[split]
    names = (
        f"*{split}_synset_labels.txt",
        f"{short}.txt",
        f"LOC_{short}_solution.csv",
        f"*{split}_ground_truth.txt with meta.mat",
    )
    return ", ".join(names) + " (also in a *devkit*.tar.gz)"


def find(split: str, pictures: list[Entry], others: list[Entry], classes: list[str]) -> Labelled | None:
    """The pictures with the numbers of their classes, or None if no list for them is among the other files.

    Raises:
      UserError: if a list does not fit the pictures or the classes.
    """
    short = ABBREVIATION[split]
    pattern = re.compile(rf"(.*{split}_(synset_labels|ground_truth)|{short}|{split})\.txt|LOC_{short}_solution\.csv")
    lists, meta = [], None
    for name, load in _small_files(others):
        if pattern.fullmatch(name):
            lists.append((name, load))
        elif name == "meta.mat":
            meta = load
    if not lists:
        return None
    # The development kit's comes last: it needs a second file.
    name, load = min(lists, key=lambda found: (found[0].endswith("ground_truth.txt"), found[0]))
    lines = [line for line in load().decode("utf-8", "replace").splitlines() if line.strip()]
    if lines and lines[0].startswith("ImageId,"):
        del lines[0]
    if len(lines) != len(pictures):
        raise UserError(f"{name} has {len(lines):,} labels for {len(pictures):,} {split} pictures: one of them is incomplete")
    rows = [re.split(r"[\s,]+", line.strip()) for line in lines]
    by_name = len(rows[0]) > 1
    keys = [row[0] if by_name else str(i) for i, row in enumerate(rows, 1)]
    said = [row[1 if by_name else 0] for row in rows if len(row) > by_name]
    if len(said) != len(rows):
        raise UserError(f"{name}: some of its lines lack a label")
    if split == "test" and set(said) == {"0"}:
        return None  # ImageNet's secret labels, as some tools write them
    number_of = _numbers(said, by_name, classes, meta, name)
    labels = dict(zip((_stem(key) for key in keys), (number_of(label) for label in said), strict=True))
    found = []
    for entry in pictures:
        key = _stem(entry.name) if by_name else str(int(re.sub(r"^.*?(\d*)$", r"\1", _stem(entry.name)) or 0))
        if key not in labels:
            raise UserError(f"{name} has no label for {entry.name}")
        found.append((entry, labels.pop(key)))
    return found


def _numbers(
    said: list[str], by_name: bool, classes: list[str], meta: Callable[[], bytes] | None, name: str
) -> Callable[[str], int]:
    """From what a list says of a picture to the number of its class."""
    if all(label.isdecimal() for label in said) and not by_name:
        if meta is None:
            raise UserError(
                f"{name} gives classes by number and needs the development kit's meta.mat beside it, which names them"
            )
        kit = _kit_classes(meta())
        spelled = {str(number): synset for number, synset in kit.items()}
    elif all(label.isdecimal() for label in said):
        spelled = {str(number): synset for number, synset in enumerate(classes)}
    else:
        spelled = {synset: synset for synset in classes}
    numbers = {synset: number for number, synset in enumerate(classes)}

    def number_of(label: str) -> int:
        if spelled.get(label) not in numbers:
            raise UserError(f"{name} has the class {label}, of which train has no pictures")
        return numbers[spelled[label]]

    return number_of


def _stem(name: str) -> str:
    """`val/ILSVRC2012_val_00000001.JPEG` and `ILSVRC2012_val_00000001` are the same picture."""
    return PurePosixPath(name).name.split(".")[0]


def _small_files(others: list[Entry]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and bytes of files that may be lists, with those in development kits."""
    for entry in others:
        if entry.size > LARGEST:
            continue
        name = PurePosixPath(entry.name).name
        yield name, lambda entry=entry: tree.read(entry)
        if re.fullmatch(r".*devkit.*\.(tar\.gz|tgz)", name):
            try:
                with tarfile.open(fileobj=io.BytesIO(tree.read(entry)), mode="r:gz") as kit:
                    for member in kit:
                        if member.isreg() and member.size <= LARGEST and member.name.endswith((".txt", ".mat")):
                            file = kit.extractfile(member)
                            assert file is not None
                            data = file.read()
                            yield PurePosixPath(member.name).name, lambda data=data: data
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UserError(f"{entry.path} is damaged ({error}): fetch it again") from error


def _kit_classes(meta: bytes) -> dict[int, str]:
    """Number and WordNet identity of the development kit's classes."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    number = next(field for field in synsets.dtype.names if field.endswith("_ID") and field != "WNID")
    return {int(synset[number]): str(synset["WNID"]) for synset in synsets if int(synset["num_children"]) == 0}
