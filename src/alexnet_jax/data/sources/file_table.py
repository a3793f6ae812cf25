"""Table of the files of a tree, in columns.

A data set may have millions of files. A file takes 28 bytes and its name here; as Python objects it would take half a kilobyte.
"""

import os
from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt


class Entry(NamedTuple):
    """File of a tree, stored as a byte range of a file on disk.

    Attributes:
      name: path in the tree, with parts separated by `/`; the name of an archive appears without `.tar`. Bytes that are not UTF-8
        are escaped.
      path: file on disk: the file itself, or the outermost archive that contains it.
      offset: first byte in the file on disk.
      size: number of bytes.
      modified: modification time of the file on disk, in nanoseconds.
    """

    name: str
    path: str
    offset: int
    size: int
    modified: int


class Folder(NamedTuple):
    """Folder of a tree.

    Attributes:
      name: path in the tree, which ends in `/`, or nothing for the root.
      path: folder on disk, or the outermost archive that contains it.
      modified: modification time of the archive, in nanoseconds; None if the folder is on disk.
    """

    name: str
    path: str
    modified: int | None


class FileTable:
    """Files of a tree, one in each row; iteration yields entries.

    Attributes:
      folders: folders of the files; the same folder may occur more than once.
      labels: number for each file that readers of a listing may set, at first -1.
    """

    def __init__(self) -> None:
        self.folders: list[Folder] = []
        self.labels = array("i")
        self._folders = array("I")
        self._sizes = array("I")
        self._positions = array("q")
        """Offset of each file in its archive; of a file on disk, its modification time."""
        self._names = bytearray()
        """Names without folders, one after another; those of files on disk as the operating system has them."""
        self._ends = array("Q")
        """End of each name in `_names`."""

    def add_folder(self, name: str, path: str, modified: int | None = None) -> int:
        """Add a folder, and return its number; the arguments are those of `Folder`."""
        self.folders.append(Folder(name, path, modified))
        return len(self.folders) - 1

    def add(self, folder: int, name: str, size: int, position: int) -> None:
        """Add a file.

        Args:
          folder: number of its folder.
          name: name in the folder.
          size: number of bytes, less than 2**32.
          position: offset in the archive or, if it is on disk, its modification time.
        """
        self._names += os.fsencode(name) if self.folders[folder].modified is None else name.encode()
        self._ends.append(len(self._names))
        self._folders.append(folder)
        self._sizes.append(size)
        self._positions.append(position)
        self.labels.append(-1)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Entry:
        return self.entry(row, self.name(row))

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    def name(self, row: int) -> str:
        """Return the path of a file in the tree."""
        start = self._ends[row - 1] if row else 0
        return self.folders[self._folders[row]].name + self._names[start : self._ends[row]].decode("utf-8", "backslashreplace")

    def names(self, start: int = 0) -> Iterator[str]:
        """Yield the paths in the tree of the files from row `start` on."""
        folders, numbers, names, ends = self.folders, self._folders, self._names, self._ends
        begin = ends[start - 1] if start else 0
        for row in range(start, len(self)):
            end = ends[row]
            yield folders[numbers[row]].name + names[begin:end].decode("utf-8", "backslashreplace")
            begin = end

    def entry(self, row: int, name: str) -> Entry:
        """Return a file, under the given name."""
        folder, position, size = self.folders[self._folders[row]], self._positions[row], self._sizes[row]
        if folder.modified is None:
            return Entry(name, self.path(row), 0, size, position)
        return Entry(name, folder.path, position, size, folder.modified)

    def path(self, row: int) -> str:
        """Return the file on disk."""
        folder = self.folders[self._folders[row]]
        if folder.modified is not None:
            return folder.path
        start = self._ends[row - 1] if row else 0
        return os.path.join(folder.path, os.fsdecode(bytes(self._names[start : self._ends[row]])))

    def folder(self, row: int) -> Folder:
        """Return the folder of a file."""
        return self.folders[self._folders[row]]

    def size(self, row: int) -> int:
        """Return the number of bytes of a file."""
        return self._sizes[row]

    def folder_numbers(self) -> UInt[np.ndarray, " files"]:
        """Return the number of the folder of each file."""
        return np.array(self._folders)

    def offsets(self) -> Int64[np.ndarray, " files"]:
        """Return the first byte of each file in the file on disk."""
        archived = np.array([folder.modified is not None for folder in self.folders], bool)
        return np.array(self._positions, np.int64) * archived[self._folders]

    def keep(self, rows: Sequence[int], start: int = 0) -> None:
        """Replace the rows from `start` on by some of them, in the given order."""
        begin = self._ends[start - 1] if start else 0
        names, ends = bytearray(), array("Q")
        for row in rows:
            names += self._names[self._ends[row - 1] if row else 0 : self._ends[row]]
            ends.append(begin + len(names))
        self._names[begin:], self._ends[start:] = names, ends
        for column in (self._folders, self._sizes, self._positions, self.labels):
            column[start:] = array(column.typecode, [column[row] for row in rows])

    def sort(self, start: int = 0) -> tuple[int, int] | None:
        """Sort the rows from `start` on by name; return two with the same name, if there are any."""
        if all(name < following for name, following in pairwise(self.names(start))):
            return None
        names = list(self.names(start))
        order = sorted(range(len(names)), key=names.__getitem__)
        self.keep([start + index for index in order], start)
        same = (row for row, (i, j) in enumerate(pairwise(order), start) if names[i] == names[j])
        return next(((row, row + 1) for row in same), None)


class Files:
    """Some files of a table; iteration yields entries.

    Args:
      table: the table.
      rows: their rows.
      prefix: start of their names that is left out.
    """

    def __init__(self, table: FileTable, rows: Int[np.ndarray, " files"], prefix: str = ""):
        self.table, self.rows, self.prefix = table, rows, prefix

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Entry:
        return self.table.entry(int(self.rows[index]), self.name(index))

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    def name(self, index: int) -> str:
        """Return the name of a file."""
        return self.table.name(int(self.rows[index]))[len(self.prefix) :]

    def names(self) -> Iterator[str]:
        """Yield the names of the files."""
        return map(self.name, range(len(self)))

    def take(self, selected: Int[np.ndarray, " files"] | Bool[np.ndarray, " files"]) -> "Files":
        """Return the files with the given indices, or at which a mask is true."""
        return Files(self.table, self.rows[selected], self.prefix)

    def folder_numbers(self) -> UInt[np.ndarray, " files"]:
        """Return the number of the folder of each file."""
        return self.table.folder_numbers()[self.rows]

    def offsets(self) -> Int64[np.ndarray, " files"]:
        """Return the first byte of each file in the file on disk."""
        return self.table.offsets()[self.rows]

    def labels(self) -> Int32[np.ndarray, " files"]:
        """Return the label of each file in the table."""
        return np.array(self.table.labels)[self.rows]

    def folders(self) -> dict[int, str]:
        """Return the names of the folders of the files, by number."""
        numbers = np.unique(self.folder_numbers()).tolist()
        return {number: self.table.folders[number].name[len(self.prefix) :] for number in numbers}

    def in_folders(self, numbers: Collection[int]) -> "Files":
        """Return the files in some folders."""
        return self.take(np.isin(self.folder_numbers(), [*numbers]))
