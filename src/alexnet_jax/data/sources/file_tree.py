"""Files below a folder, in which a tar archive counts as a folder, wherever it stands.

Archives are read in place: an index of where each file lies is made once, and then any of them can be read at any time, by
several threads. Nothing is written to disk and no link is followed, so no archive can reach beyond itself.
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
    """A file: its name in the tree, and the bytes of which file on the disk it is.

    The name has parts separated by `/`; an archive's part lacks its `.tar`. `modified` is the time of the file on the disk,
    nanoseconds.
    """

    name: str
    path: str
    offset: int
    size: int
    modified: int


def read(entry: Entry) -> bytes:
    """The bytes of a file.

    Raises:
      UserError: if it is gone, or shorter than it was when the tree was listed.
    """
    try:
        with open(entry.path, "rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
    except OSError as error:
        raise UserError(f"cannot read {entry.path}: {error.strerror}") from error
    if len(data) != entry.size:
        raise UserError(f"{entry.path} has become shorter since its files were listed: is something writing to it?")
    return data


def list_files(root: Path) -> list[Entry]:
    """Every file below a folder or archive, by name; hidden ones are left out.

    Raises:
      UserError: if an archive is damaged or two files have the same name.
    """
    entries = sorted(_in_folder(root, "", ()) if root.is_dir() else _in_archive(root, ""))
    for entry, after in pairwise(entries):
        if entry.name == after.name:
            raise UserError(f"{entry.path} and {after.path} both hold {entry.name}: take one of them away")
    return entries


def _in_folder(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[Entry]:
    real = folder.resolve()
    if real in above:
        raise UserError(f"{folder} is a link to a folder it lies in: take it away")
    with os.scandir(folder) as found:
        items = list(found)
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            yield from _in_folder(Path(item.path), f"{prefix}{item.name}/", (*above, real))
        elif item.is_file() and item.name.endswith(".tar"):
            yield from _in_archive(Path(item.path), f"{prefix}{item.name.removesuffix('.tar')}/")
        elif item.is_file():
            status = item.stat()
            yield Entry(prefix + item.name, item.path, 0, status.st_size, status.st_mtime_ns)


def _in_archive(path: Path, prefix: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        place = Entry(prefix, str(path), 0, 0, os.fstat(file.fileno()).st_mtime_ns)
        yield from _members(file, place, str(path))


def _members(file: BufferedReader, place: Entry, called: str) -> Iterator[Entry]:
    """Files of an archive that starts at `place.offset` of the file on the disk, and of archives in it."""
    left_out = 0
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the file is closed by who opened it)
        while member := archive.next():
            # A million of them would fill the memory; the attribute is documented nowhere, but the usual way.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            parts = PurePosixPath(member.name).parts
            if ".." in parts or parts[:1] == ("/",):
                raise UserError(f"{called} holds {member.name!r}, which leads out of it: do not trust this archive")
            if member.isdir() or any(part.startswith(".") for part in parts):
                continue
            if not member.isreg() or member.issparse():
                left_out += 1
                continue
            name, offset = place.name + "/".join(parts), place.offset + member.offset_data
            if name.endswith(".tar"):
                inner = cast(BufferedReader, archive.extractfile(member))
                folder = place._replace(name=f"{name.removesuffix('.tar')}/", offset=offset)
                yield from _members(inner, folder, f"{called}:{member.name}")
            else:
                yield place._replace(name=name, offset=offset, size=member.size)
        # The reader takes a damaged header, or none at all, for the end; the end is a block of zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut short or damaged at byte {archive.offset:,}")
    except tarfile.TarError as error:
        raise UserError(f"{called} is no whole tar archive ({error}): fetch it again") from error
    if left_out:
        console.print(f"{called}: left out {left_out:,} links and special files", style="yellow", markup=False)
