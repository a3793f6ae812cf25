"""An index on disk: the features of each image of a data set, to be searched. `features` fills it.

    index.json      what made it of what, see `About`
    features.npy    float32 [images, features]
    images.jsonl    [name, class] of each, a line an image

The folder appears under its name only when it is complete.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from alexnet_jax.analysis.exact_search import Nearest, nearest
from alexnet_jax.data.records import Encoding
from alexnet_jax.errors import UserError, disk_full_as_user_error

FORMAT = 1
BLOCK_BYTES, BLOCK_ROWS = 1 << 26, 1 << 14  # a block has neither more bytes nor more rows

Features = Float32[np.ndarray, "images features"]
"""What a layer puts out, a row for each image."""


class Indexed(NamedTuple):
    """An image of an index: its name in its source, and its class."""

    name: str
    label: str


@dataclass(frozen=True)
class About:
    """What made an index, of what.

    Attributes:
      images: how many there are.
      features: numbers for each.
      names_bytes: of images.jsonl.
      run: folder of the run of the network.
      step: after which the network was saved.
      parameters: changes with the network, its parameters and what it subtracts.
      layer: whose outputs the features are.
      data: folder of the data set.
      split: of it.
      size: side of its images, pixels.
      encoding: how it holds them.
    """

    images: int = 0
    features: int = 0
    names_bytes: int = 0
    run: str = ""
    step: int = 0
    parameters: str = ""
    layer: str = ""
    data: str = ""
    split: str = "train"
    size: int = 256
    encoding: Encoding = "jpeg"
    format: int = FORMAT


class Index:
    """An index that is there.

    Raises:
      UserError: if it is not, or not whole, or of another version.
    """

    def __init__(self, path: Path):
        self.path = path
        again = "delete it and make it again"
        try:
            values = json.loads((path / "index.json").read_text())
            if values["format"] != FORMAT:
                raise UserError(f"{path} was made by another version of alexnet-jax: {again}")
            self.about = About(**values)
            with (path / "features.npy").open("rb") as file:
                shape = _read_header(file)
                self._start = file.tell()
            if shape != (self.about.images, self.about.features):
                raise ValueError(f"features.npy has the shape {shape}")
            for name, size in (("features.npy", self._start + 4 * shape[0] * shape[1]), ("images.jsonl", self.about.names_bytes)):
                if (there := (path / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {there:,} bytes, not {size:,}")
        except FileNotFoundError as error:
            made = "python -m alexnet_jax index RUN --to INDEX makes one"
            raise UserError(f"{path} is no index, it has no {Path(error.filename).name}: {made}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): {again}") from error

    def search(self, queries: Features, count: int) -> Nearest:
        """The images nearest to each query; memory and exactness are those of `search.nearest`."""
        return nearest(queries, self.blocks(), count)

    def blocks(self) -> Iterator[Features]:
        """The features in blocks of 64 MB at most. They are read into the same memory: a block is gone when the next one comes.

        Read, not mapped: a file that shrinks or cannot be read raises an OSError, where a mapped one ends the process.
        """
        features = self.about.features
        rows = max(1, min(BLOCK_BYTES // (4 * features), BLOCK_ROWS, self.about.images))
        memory = np.empty((rows, features), np.float32)
        with (self.path / "features.npy").open("rb", buffering=0) as file:
            file.seek(self._start)
            for first in range(0, self.about.images, rows):
                block = memory[: self.about.images - first]
                unread = block.data.cast("B")
                while unread:
                    if not (read := file.readinto(unread)):
                        raise UserError(f"{file.name} has become shorter: make the index again")
                    unread = unread[read:]
                yield block

    def images(self, rows: Sequence[int] | Int[np.ndarray, "..."]) -> dict[int, Indexed]:
        """Names and classes of the images of some rows."""
        wanted = set(np.ravel(rows).tolist())
        with (self.path / "images.jsonl").open() as lines:
            return {row: Indexed(*json.loads(line)) for row, line in enumerate(lines) if row in wanted}


class IndexWriter:
    """Receives the images of an index in their order."""

    def __init__(self, features: IO[bytes], images: IO[bytes]):
        self._features, self._images = features, images
        self.written = 0

    def add(self, features: Features, images: Sequence[Indexed]) -> None:
        """The next images and their features, a row for each."""
        self._features.write(np.ascontiguousarray(features).data)
        for image in images:
            self._images.write((json.dumps(image, ensure_ascii=False) + "\n").encode())
        self.written += len(images)


@contextmanager
def new_index(path: Path, about: About) -> Iterator[IndexWriter]:
    """A writer of an index of `about.images` images, which takes its place at `path` only if the block ends well.

    Raises:
      UserError: if `path` exists, the disk has no room, or another process is making the same index.
    """
    if path.exists():
        raise UserError(f"{path} exists: choose another folder for --to, or delete it")
    partial = path.with_name(f".{path.name}.partial")
    with disk_full_as_user_error(f"for {path}"):
        partial.mkdir(parents=True, exist_ok=True)
        with open(partial / "features.npy", "ab") as features:
            try:
                fcntl.flock(features, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
            except BlockingIOError:
                raise UserError(f"another process is making {path}: wait for it") from None
            try:
                features.truncate(0)
                size, free = 4 * about.images * about.features, shutil.disk_usage(partial).free
                if free < 1.05 * size:
                    raise UserError(f"no room for an index of {size / 1e6:,.0f} MB in {path}: {free / 1e6:,.0f} MB are free")
                _write_header(features, (about.images, about.features))
                with open(partial / "images.jsonl", "wb") as images:
                    writer = IndexWriter(features, images)
                    yield writer
                    for file in (features, images):
                        file.flush()
                        os.fsync(file.fileno())
                    assert writer.written == about.images
                    values = {**asdict(about), "names_bytes": images.tell()}
                (partial / "index.json").write_text(json.dumps(values, indent=1) + "\n")
                partial.rename(path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def _write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _read_header(file: IO[bytes]) -> tuple[int, ...]:
    np.lib.format.read_magic(file)
    shape, by_columns, of = np.lib.format.read_array_header_1_0(file)
    if by_columns or of != np.dtype("<f4"):
        raise ValueError(f"features.npy holds {of}")
    return shape
