"""Photos that are named on the command line: files, folders and archives."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from alexnet_jax.console import console, count, track_progress
from alexnet_jax.data.sources import file_tree, layout
from alexnet_jax.data.sources.file_table import Entry
from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded
from alexnet_jax.text import file_name_text

Decoded = TypeVar("Decoded")

MAX_PRINTED_NAMES = 5
"""Maximum number of files of a folder that are named because they are no photos."""


def photo_files(path: Path) -> list[Entry]:
    """Return the photo, or the photos of a folder or archive; `name` is the path to print.

    Raises:
      UserError: if the path does not exist, or there is no image in the folder or archive.
    """
    path = expanded(path)
    if path.is_file() and not file_tree.is_archive(path.name):
        status = path.stat()
        return [Entry(file_name_text(str(path)), str(path), 0, status.st_size, status.st_mtime_ns)]
    if not (path.is_file() or path.is_dir()):  # opening a named pipe would wait forever
        problem = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"{path} {problem}: pass a photo, or a folder of photos")
    listing = file_tree.list_files(path)
    files, no_images = layout.images_and_others(listing.files)
    images = [entry._replace(name=f"{file_name_text(str(path))}/{entry.name}") for entry in files]
    if not images:
        raise UserError(f"{path} contains no image: pass a photo, or a folder of photos")
    if others := [*no_images.names(), *listing.left_out]:
        names = ", ".join([*others[:MAX_PRINTED_NAMES], *["…"] * (len(others) > MAX_PRINTED_NAMES)])
        console.print(f"{path}: {count(len(others), 'file')} left out, hidden, empty or of an unsupported format: {names}")
    return images


def read_photos(
    files: Sequence[Entry], decode: Callable[[bytes, str], Decoded], batch_size: int, description: str
) -> Iterator[tuple[list[str], list[Decoded]]]:
    """Yield the names and the decoded contents of the photos that can be read, in batches; print the reason for each other one.

    Args:
      files: photos.
      decode: function of the content and the name of a photo.
      batch_size: number of files of a batch.
      description: label of the progress bar, which is shown if there are several batches.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    for batch in batches if len(batches) < 2 else track_progress(batches, description, len(batches), "batch"):
        names: list[str] = []
        photos: list[Decoded] = []
        for file in batch:
            try:
                photos.append(decode(file_tree.read(file), file.name))
                names.append(file.name)
            except UserError as error:
                console.print(str(error), style="yellow")
        yield names, photos


def check_all_read(files: int, read: int) -> None:
    """Check that all photos were read; each of the others has been named before.

    Raises:
      UserError: if there are fewer.
    """
    if read < files:
        raise UserError(f"{files - read} of {count(files, 'photo')} cannot be read, see above")
