"""Labels of the images of WebDataset archives: class indices or names, in files with the names of the images."""

import json
from collections.abc import Collection, Mapping
from contextlib import closing
from itertools import compress, groupby
from pathlib import Path

from alexnet_jax.data.sources import layout
from alexnet_jax.data.sources.file_table import Entry, FileTable
from alexnet_jax.data.sources.file_tree import FileReader, Listing
from alexnet_jax.errors import UserError

_LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Extensions of files with the label of an image, the preferred one first."""
_LABEL_KEYS = ("label", "cls", "class")
MAX_LABEL_BYTES = 1 << 20

Label = int | str


class LabelReader:
    """Reader of the labels of images, while their archives are listed.

    Attributes:
      found: whether an image has a file that could be its label: a .cls file, or a .json or .txt file in an archive.
    """

    def __init__(self, root: Path):
        self.found = False
        self._root = root
        self._numbers: dict[Label, int] = {}

    def values(self) -> list[Label | None]:
        """Return the labels, in the order of their numbers in `FileTable.labels`, and None at the end, for number -1."""
        return [*self._numbers, None]

    def read(self, listing: Listing, start: int = 0) -> None:
        """Label the images from row `start` of a listing on, and remove the files of their labels from the listing.

        Raises:
          UserError: if a file does not have one label.
        """
        files = listing.files
        names = enumerate(files.names(start), start)
        folders = {files.folder(row).name for row, name in names if name.lower().endswith(_LABEL_SUFFIXES)}
        if not folders:
            return
        archived = {folder: archive_of(folder, listing.archived) is not None for folder in folders}
        rows = [row for row in range(start, len(files)) if files.folder(row).name in folders]
        kept = bytearray(b"\1") * (len(files) - start)
        # The files are sorted by name, so those of an image are neighbors.
        with closing(FileReader()) as reader:
            for _, group in groupby(zip(rows, map(files.name, rows), strict=True), lambda file: layout.stem(file[1])):
                images: list[int] = []
                label_files: list[tuple[str, int]] = []
                for row, name in group:
                    if layout.is_image(files, row, name):
                        images.append(row)
                        continue
                    suffix = layout.suffix_of(name)
                    is_label = suffix == ".cls" or (suffix in _LABEL_SUFFIXES and archived[files.folder(row).name])
                    if is_label and files.size(row) <= MAX_LABEL_BYTES:
                        label_files.append((suffix, row))
                if not images or not label_files:
                    continue
                self.found = True
                for _, row in label_files:
                    kept[row - start] = 0
                label = self._first_label(reader, files, dict(label_files))
                if label is not None:
                    number = self._numbers.setdefault(label, len(self._numbers))
                    for row in images:
                        files.labels[row] = number
        if not all(kept):
            files.keep([*compress(range(start, len(files)), kept)], start)

    def _first_label(self, reader: FileReader, files: FileTable, label_files: Mapping[str, int]) -> Label | None:
        """Return the label of an image, from the first of its files that has one."""
        for suffix in (suffix for suffix in _LABEL_SUFFIXES if suffix in label_files):
            label = _read_label(self._root, reader, files[label_files[suffix]], suffix)
            if label is not None:
                return label
        return None


def archive_of(folder: str, archived: Collection[str]) -> str | None:
    """Return the archive that contains a folder, or None."""
    parts = folder.split("/")[:-1]
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
