"""Atomic file writes, in which a file is replaced when its new content is complete or not at all, and file locks."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from alexnet_jax.console import console
from alexnet_jax.errors import UserError, describe_os_error, disk_full_as_user_error


@contextmanager
def atomic_text_writer(file: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing and replace `file` when the block succeeds; if it fails, `file` is unchanged.

    Missing parent folders are created. Newlines are not translated.

    Raises:
      UserError: if the disk is full, or the file cannot be created or replaced.
    """
    with _replace_on_success(file) as temporary:
        with write_errors(file):
            text = temporary.open("w", encoding="utf-8", newline="")
        with text:
            yield text


def atomic_write(file: Path, content: bytes) -> None:
    """Write bytes to a file atomically (see `atomic_text_writer`).

    Raises:
      UserError: if the disk is full, or the file cannot be created or replaced.
    """
    with _replace_on_success(file) as temporary, write_errors(file):
        temporary.write_bytes(content)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file atomically (see `atomic_text_writer`).

    Raises:
      UserError: if the disk is full, or the file cannot be created or replaced.
    """
    atomic_write(file, (json.dumps(content, indent=1) + "\n").encode())


@contextmanager
def _replace_on_success(file: Path) -> Iterator[Path]:
    temporary = file.with_name(f".{file.name}.partial")
    with disk_full_as_user_error(f"for {file}"):
        with write_errors(file):
            lock = wait_for_lock(temporary, f"another process is writing {file}: waiting for it to finish", required=False)
        with lock:  # of the temporary file itself: after it is renamed, the next process creates another one
            try:
                yield temporary
                with write_errors(file):
                    temporary.rename(file)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Convert errors of the system to `UserError`.

    Args:
      file: file or folder to name, instead of a temporary one.

    Raises:
      UserError: if the disk is full, or the system refuses the operation.
    """
    try:
        with disk_full_as_user_error(f"for {file}"):
            yield
    except OSError as error:
        raise UserError(describe_os_error(error, file)) from error


def check_png(option: str, file: Path) -> None:
    """Check that the name of a picture to write ends in .png.

    Raises:
      UserError: if it does not.
    """
    if file.suffix != ".png":
        raise UserError(f"{file} must end in .png: pass the name of a PNG file as {option}")


def expanded(path: str | Path) -> Path:
    """Return a path with ~ expanded. A ~NAME that is no user is left as it is, where pathlib raises an error."""
    return Path(os.path.expanduser(path))


def resolved(path: str | Path) -> Path:
    """Return an absolute path without symbolic links. A loop of links is left as it is, where pathlib raises an error."""
    return Path(os.path.realpath(path))


def is_same_file(a: str | Path, b: str | Path) -> bool:
    """Return whether two paths name the same existing file or folder."""
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


def lock_file(file: Path, message: str) -> IO[bytes]:
    """Create and lock a file; the lock is released when the returned file is closed or the process ends.

    Args:
      file: lock file, which is left in place.
      message: message of the error if another process, or this one, holds the lock.

    Raises:
      UserError: if the file is locked.
      OSError: if it cannot be created.
    """
    lock = file.open("ab")
    if not _try_lock(lock):
        lock.close()
        raise UserError(message)
    return lock


def wait_for_lock(file: Path, message: str, *, required: bool = True) -> IO[bytes]:
    """Create and lock a file that its earlier owner may delete or rename, as `lock_file` does, but wait until it is free.

    Args:
      file: lock file; missing parent folders are created.
      message: message to print if another process holds the lock.
      required: whether it is an error that the file system has no locks; if not, the file is only created there.

    Raises:
      OSError: if the file cannot be created.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder was deleted just now
            lock = file.open("ab")
            try:
                if not _try_lock(lock):
                    console.print(message, style="yellow", markup=False)
                    fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                if required:
                    lock.close()
                    raise
            if file.exists() and os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                return lock
            lock.close()


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # for example, because a network file system has no locks
        raise OSError(error.errno, error.strerror, file.name) from error
    return True
