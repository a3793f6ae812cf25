"""Atomic file writes: a file is replaced when its new content is complete, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from alexnet_jax.errors import disk_full_as_user_error


@contextmanager
def atomic_text_writer(file: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing and replace `file` when the block succeeds; if it fails, `file` is unchanged.

    Missing parent folders are created. Newlines are not translated.

    Raises:
      UserError: if the disk is full.
    """
    with _replace_on_success(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        yield text


def atomic_write(file: Path, content: bytes) -> None:
    """Write bytes to a file atomically (see `atomic_text_writer`).

    Raises:
      UserError: if the disk is full.
    """
    with _replace_on_success(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _replace_on_success(file: Path) -> Iterator[Path]:
    temporary = file.with_name(f".{file.name}.partial")
    try:
        with disk_full_as_user_error(f"for {file}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)
