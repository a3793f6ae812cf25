"""File listing of a folder, in which each tar archive appears as a folder, and random access to the files.

Archives are indexed once and then read in place, from any number of threads. Nothing is extracted to disk and links in archives
are not followed, so an archive cannot refer to files outside it.
"""

import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import cast

from alexnet_jax.data.sources.file_table import Entry, FileTable
from alexnet_jax.data.sources.tar_headers import FastTarInfo
from alexnet_jax.errors import UserError
from alexnet_jax.files import resolved
from alexnet_jax.text import file_name_text

SYSTEM_FOLDERS = {
    "$recycle.bin", "recycler", "system volume information", "__macosx", "@eadir", "#recycle", "lost+found", "__pycache__",
}  # fmt: skip
"""Folders that operating systems and storage devices create, in lower case; folders whose names start with a dot are hidden."""
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
_SYSTEM_NAMES = SYSTEM_FOLDERS | SYSTEM_FILES
MAX_FILE_BYTES = 512 << 20
"""Size limit of a file that is not an archive."""
MAX_DEPTH = 100
"""Maximum number of folders inside one another."""
MAX_NESTING = 4
"""Maximum number of archives inside one another; the releases of ImageNet have two."""


@dataclass
class Listing:
    """Files and folders of a tree.

    Attributes:
      files: files that can be read, sorted by name.
      folders: names of all folders, and of archives without `.tar`.
      left_out: reason for each file that is not in `files`, by name.
      archived: names of the folders that are archives.
      archive_listed: function that is called after the files of an archive have been added, with this listing and the first row
        of the archive in `files`; it may remove rows from there on.
    """

    files: FileTable = field(default_factory=FileTable)
    folders: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    archive_listed: "Callable[[Listing, int], None] | None" = None


def read(entry: Entry, size: int | None = None) -> bytes:
    """Return the content of a file, or its first `size` bytes.

    Raises:
      UserError: if the file on disk cannot be read, or is shorter than it was when it was listed.
    """
    with closing(FileReader()) as reader:
        return reader.read(entry, size)


class FileReader:
    """Reader of many files in the order of a listing, for one thread; the caller closes it.

    The last file on disk is kept open, since opening an archive takes longer than reading one of its small files.
    """

    def __init__(self) -> None:
        self._path: str | None = None
        self._file: BufferedReader | None = None

    def read(self, entry: Entry, size: int | None = None) -> bytes:
        """Return the content of a file, or its first `size` bytes.

        Raises:
          UserError: as `read` does.
        """
        expected = entry.size if size is None else min(size, entry.size)
        try:
            if self._file is None or self._path != entry.path:
                self.close()
                self._file, self._path = open(entry.path, "rb"), entry.path  # noqa: SIM115 (`close` closes it)
            self._file.seek(entry.offset)
            data = self._file.read(expected)
        except OSError as error:
            raise UserError(f"cannot read {entry.path}: {error.strerror}") from error
        if len(data) != expected:
            raise UserError(f"{entry.path} is shorter than when it was listed: restore it and run the command again")
        return data

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None


def list_files(root: Path, archive_listed: Callable[[Listing, int], None] | None = None) -> Listing:
    """List all files below a folder or in an archive; for `archive_listed`, see `Listing`.

    Hidden files, files of the operating system, empty files, links in archives, and links to nothing are left out.

    Raises:
      UserError: if a folder cannot be read, an archive is damaged, or two files have the same name.
    """
    listing = Listing(archive_listed=archive_listed)
    try:
        if root.is_dir():
            _list_folder(listing, root, "", (), None)
        else:
            listing.archived.add("")
            _list_archive(listing, root, "")
    except OSError as error:
        raise UserError(f"cannot read {error.filename or root}: {error.strerror}") from error
    _sort(listing.files)
    return listing


def _sort(files: FileTable, start: int = 0) -> None:
    """Sort the files from row `start` on, and check that their names are different."""
    if same := files.sort(start):
        first, second = sorted(map(files.path, same))
        raise UserError(f"{first} and {second} both contain {files.name(same[0])}: remove one of them")


def is_archive(name: str) -> bool:
    """Return whether a file name ends in .tar, in lower or upper case."""
    return name.lower().endswith(".tar")


def _system_reason(name: str) -> str | None:
    """Return why a file or folder is left out because of its name, or None if it is not."""
    if name.startswith("."):
        return "hidden"
    return "of the operating system" if name.lower() in _SYSTEM_NAMES else None


def _list_folder(listing: Listing, folder: Path, prefix: str, parents: tuple[Path, ...], reason: str | None) -> None:
    """Add the files below a folder; if there is a `reason`, they are left out."""
    if len(parents) >= MAX_DEPTH:
        raise UserError(f"{parents[0]} has more than {MAX_DEPTH} folders inside one another: pass a folder of images")
    path = resolved(folder)
    if path in parents:
        raise UserError(f"{folder} is a link to one of its parent folders: remove it")
    with os.scandir(folder) as scan:
        items = sorted(scan, key=_name_in_tree, reverse=True)
    number = listing.files.add_folder(prefix, str(folder))
    while items:
        item = items.pop()  # its status, which it keeps, is larger than all that is stored here of a file
        name, left_out = prefix + file_name_text(item.name), reason or _system_reason(item.name)
        try:
            status = item.stat()
        except OSError:
            listing.left_out[name] = left_out or "a link to nothing"
            continue
        if stat.S_ISDIR(status.st_mode):
            if not left_out:
                listing.folders.add(name)
            if not left_out or not item.is_symlink():
                _list_folder(listing, Path(item.path), f"{name}/", (*parents, path), left_out)
        elif left_out or not stat.S_ISREG(status.st_mode):
            listing.left_out[name] = left_out or "not a regular file"
        elif is_archive(item.name):
            _list_archive(listing, Path(item.path), f"{name[:-4]}/")
        elif not (reason_for_size := _size_reason(status.st_size)):
            listing.files.add(number, item.name, status.st_size, status.st_mtime_ns)
        else:
            listing.left_out[name] = reason_for_size


def _name_in_tree(item: "os.DirEntry[str]") -> str:
    """Return the name of an item of a folder, ending in `/` if it has files: this is the order of the names of all files."""
    name = file_name_text(item.name)
    try:
        is_folder = item.is_dir()
    except OSError:  # a loop of links
        is_folder = False
    return f"{name}/" if is_folder else f"{name[:-4]}/" if is_archive(name) else name


def _size_reason(size: int) -> str | None:
    """Return why a file is left out because of its size, or None if it is not."""
    if size == 0:
        return "empty"
    return f"larger than {MAX_FILE_BYTES >> 20} MB" if size > MAX_FILE_BYTES else None


def _list_archive(listing: Listing, path: Path, prefix: str) -> None:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        root = Entry(prefix, str(path), 0, status.st_size, status.st_mtime_ns)
        _list_members(listing, file, root, str(path), 1)


def _list_members(listing: Listing, file: BufferedReader, root: Entry, display_name: str, depth: int) -> None:
    """Add the files of an archive and of those in it; `root` has the prefix of their names and its offset in the file on disk."""
    if depth > MAX_NESTING:
        raise UserError(f"{display_name} has more than {MAX_NESTING} archives inside one another: unpack it first")
    if root.name:
        listing.folders.add(root.name[:-1])
        listing.archived.add(root.name[:-1])
    files, start = listing.files, len(listing.files)
    numbers: dict[str, int] = {}
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=FastTarInfo)  # noqa: SIM115 (the caller closes the file)
        while member := archive.next():
            # TarFile keeps all members it has read, and a million of them would exhaust the memory. Clearing the list is a common
            # workaround; there is no public method.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts or member.name.startswith("/"):
                raise UserError(f"{display_name} contains the unsafe path {member.name!r}: use an archive from a trusted source")
            path = file_name_text("/".join(parts))
            name, offset = root.name + path, root.offset + member.offset_data
            reason = next(filter(None, map(_system_reason, parts)), None)
            if member.isdir():
                if parts and not reason:
                    listing.folders.add(name)
                continue
            if reason or not member.isreg() or member.issparse():
                listing.left_out[name] = reason or "a link or special file in an archive"
                continue
            if member.offset_data + member.size > root.size:
                raise tarfile.ReadError(f"{member.name!r} is larger than the archive")
            if is_archive(name):
                nested = cast(BufferedReader, archive.extractfile(member))
                folder = root._replace(name=f"{name[:-4]}/", offset=offset, size=member.size)
                _list_members(listing, nested, folder, f"{display_name}:{member.name}", depth + 1)
                continue
            prefix, _, file_name = path.rpartition("/")
            if prefix not in numbers:
                numbers[prefix] = files.add_folder(f"{root.name}{prefix}/" if prefix else root.name, root.path, root.modified)
                listing.folders.update(root.name + "/".join(prefix.split("/")[:i]) for i in range(1, len(parts)))
            if reason := _size_reason(member.size):
                listing.left_out[name] = reason
            else:
                files.add(numbers[prefix], file_name, member.size, offset)
        # TarFile also stops, without an error, at a damaged or missing header. A complete archive ends with a block of zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"truncated or damaged at byte {archive.offset:,}")
    except (tarfile.TarError, ValueError, OverflowError) as error:  # ValueError: a number in a header that cannot be
        raise UserError(f"{display_name} is not a complete tar archive ({error}): download it again") from error
    _sort(files, start)
    if listing.archive_listed:
        listing.archive_listed(listing, start)
