"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from alexnet_jax.errors import disk_full_as_user_error


@contextmanager
def atomic_text_writer(file: Path) -> Iterator[TextIO]:
    """A text file to write to, which takes its place when everything is in it; what fails before leaves what was there.

    Raises:
      UserError: if the disk has no room for it.
    """
    with _replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as text:
        yield text


def atomic_write(file: Path, content: bytes) -> None:
    """Writes a file, as `atomic_text_writer` does."""
    with _replacing(file) as partial:
        partial.write_bytes(content)


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    partial = file.with_name(f".{file.name}.partial")
    try:
        with disk_full_as_user_error(f"for {file}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
