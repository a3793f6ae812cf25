"""Photos that are named on the command line: files, folders and archives."""

from itertools import compress
from operator import not_
from pathlib import Path

from alexnet_jax.console import console, count
from alexnet_jax.data.sources import file_tree, layout
from alexnet_jax.data.sources.file_tree import Entry
from alexnet_jax.errors import UserError
from alexnet_jax.text import file_name_text

MAX_PRINTED_NAMES = 5
"""Maximum number of files of a folder that are named because they are no photos."""


def photo_files(path: Path) -> list[Entry]:
    """Return the photo, or the photos of a folder or archive; `name` is the path to print.

    Raises:
      UserError: if the path does not exist, or there is no image in the folder or archive.
    """
    path = path.expanduser()
    if path.is_file() and not file_tree.is_archive(path.name):
        status = path.stat()
        return [Entry(file_name_text(str(path)), str(path), 0, status.st_size, status.st_mtime_ns)]
    if not path.exists():
        raise UserError(f"{path} does not exist: pass a photo, or a folder of photos")
    listing = file_tree.list_files(path)
    is_image = [layout.is_image(entry) for entry in listing.files]
    images = [entry._replace(name=f"{file_name_text(str(path))}/{entry.name}") for entry in compress(listing.files, is_image)]
    if not images:
        raise UserError(f"{path} contains no image: pass a photo, or a folder of photos")
    others = [entry.name for entry in compress(listing.files, map(not_, is_image))] + list(listing.left_out)
    if others:
        more = ", …" if len(others) > MAX_PRINTED_NAMES else ""
        names = ", ".join(name for name in others[:MAX_PRINTED_NAMES]) + more
        console.print(f"{path}: {count(len(others), 'file')} left out, hidden, empty or of an unsupported format: {names}")
    return images


def check_all_read(files: int, read: int) -> None:
    """Check that all photos were read; each of the others has been named before.

    Args:
      files: number of photos.
      read: number of photos that were read.

    Raises:
      UserError: if there are fewer.
    """
    if read < files:
        raise UserError(f"{files - read} of {count(files, 'photo')} cannot be read, see above")
