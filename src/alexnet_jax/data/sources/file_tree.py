"""File listing of a folder, in which each tar archive appears as a folder, and random access to the files.

Archives are indexed once and then read in place, from any number of threads. Nothing is extracted to disk and links in archives
are not followed, so an archive cannot refer to files outside it.
"""

import os
import tarfile
from collections.abc import Iterator
from io import BufferedReader
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from alexnet_jax.console import console
from alexnet_jax.errors import UserError


class Entry(NamedTuple):
    """File of a tree, stored as a byte range of a file on disk.

    Attributes:
      name: path in the tree, with parts separated by `/`; the name of an archive appears without `.tar`.
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


def read(entry: Entry) -> bytes:
    """Return the content of a file.

    Raises:
      UserError: if the file on disk cannot be read, or is shorter than it was when it was listed.
    """
    try:
        with open(entry.path, "rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
    except OSError as error:
        raise UserError(f"cannot read {entry.path}: {error.strerror}") from error
    if len(data) != entry.size:
        raise UserError(f"{entry.path} is shorter than when it was listed: restore it and run the command again")
    return data


def list_files(root: Path) -> list[Entry]:
    """List all files below a folder or in an archive, sorted by name. Hidden files are ignored.

    Raises:
      UserError: if an archive is damaged, or two files have the same name.
    """
    entries = sorted(_list_folder(root, "", ()) if root.is_dir() else _list_archive(root, ""))
    for entry, following in pairwise(entries):
        if entry.name == following.name:
            raise UserError(f"{entry.path} and {following.path} both contain {entry.name}: remove one of them")
    return entries


def _list_folder(folder: Path, prefix: str, parents: tuple[Path, ...]) -> Iterator[Entry]:
    resolved = folder.resolve()
    if resolved in parents:
        raise UserError(f"{folder} is a link to one of its parent folders: remove it")
    with os.scandir(folder) as scan:
        items = list(scan)
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            yield from _list_folder(Path(item.path), f"{prefix}{item.name}/", (*parents, resolved))
        elif item.is_file() and item.name.endswith(".tar"):
            yield from _list_archive(Path(item.path), f"{prefix}{item.name.removesuffix('.tar')}/")
        elif item.is_file():
            status = item.stat()
            yield Entry(prefix + item.name, item.path, 0, status.st_size, status.st_mtime_ns)


def _list_archive(path: Path, prefix: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        root = Entry(prefix, str(path), 0, 0, os.fstat(file.fileno()).st_mtime_ns)
        yield from _list_members(file, root, str(path))


def _list_members(file: BufferedReader, root: Entry, display_name: str) -> Iterator[Entry]:
    """Yield the files of an archive, including those of nested archives.

    Args:
      file: the archive, opened.
      root: entry of the archive: name prefix of its files, and its offset in the file on disk.
      display_name: name of the archive in messages.
    """
    ignored = 0
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the caller closes the file)
        while member := archive.next():
            # TarFile keeps all members it has read, and a million of them would exhaust the memory. Clearing the list is a common
            # workaround; there is no public method.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            parts = PurePosixPath(member.name).parts
            if ".." in parts or parts[:1] == ("/",):
                raise UserError(f"{display_name} contains the unsafe path {member.name!r}: use an archive from a trusted source")
            if member.isdir() or any(part.startswith(".") for part in parts):
                continue
            if not member.isreg() or member.issparse():
                ignored += 1
                continue
            name, offset = root.name + "/".join(parts), root.offset + member.offset_data
            if name.endswith(".tar"):
                nested = cast(BufferedReader, archive.extractfile(member))
                folder = root._replace(name=f"{name.removesuffix('.tar')}/", offset=offset)
                yield from _list_members(nested, folder, f"{display_name}:{member.name}")
            else:
                yield root._replace(name=name, offset=offset, size=member.size)
        # TarFile also stops, without an error, at a damaged or missing header. A complete archive ends with a block of zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"truncated or damaged at byte {archive.offset:,}")
    except tarfile.TarError as error:
        raise UserError(f"{display_name} is not a complete tar archive ({error}): download it again") from error
    if ignored:
        console.print(f"{display_name}: ignored {ignored:,} links and special files", style="yellow", markup=False)
