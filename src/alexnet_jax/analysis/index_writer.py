"""Writer of an on-disk index, see `index` for its files.

The folder is written under a temporary name and renamed once it is complete.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from alexnet_jax.analysis.exact_search import squared_norms
from alexnet_jax.analysis.index import Features, IndexedImage, IndexMetadata
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.files import lock_file, write_errors

_OTHER_FILES = ("squared_norms.npy", "images.jsonl", "line_ends.npy")


class IndexFiles(NamedTuple):
    """Files of an index, open for writing, the arrays positioned after their headers."""

    features: IO[bytes]
    squared_norms: IO[bytes]
    images: IO[bytes]
    line_ends: IO[bytes]


class IndexWriter:
    """Writer that appends images to an index."""

    def __init__(self, files: IndexFiles):
        self._files = files
        self.num_written = 0

    def add(self, features: Features, images: Sequence[IndexedImage]) -> None:
        """Append images to the index."""
        self._files.features.write(np.ascontiguousarray(features).data)
        self._files.squared_norms.write(squared_norms(features).data)
        for image in images:
            self._files.images.write((json.dumps(image, ensure_ascii=False) + "\n").encode())
            self._files.line_ends.write(np.int64(self._files.images.tell()).tobytes())
        self.num_written += len(images)


@contextmanager
def create_index(path: Path, metadata: IndexMetadata) -> Iterator[IndexWriter]:
    """Context manager that creates an index and yields its writer.

    The index is written to a temporary folder, which is renamed to `path` on exit, or deleted if an exception is raised.

    Args:
      path: folder to create.
      metadata: metadata of the index; exactly `metadata.images` images must be added.

    Raises:
      UserError: if `path` exists, the disk is full, or another process is building the same index.
    """
    if path.exists():
        raise UserError(f"{path} exists: pass another folder as --to, or delete it")
    partial = path.with_name(f".{path.name}.partial")
    with disk_full_as_user_error(f"for {path}"):
        with write_errors(path):
            partial.mkdir(parents=True, exist_ok=True)
        message = f"another process is building {path}: wait until it is finished"
        with lock_file(partial / "features.npy", message) as features:
            try:
                features.truncate(0)
                size, free = 4 * metadata.images * metadata.features, shutil.disk_usage(partial).free
                if free < 1.05 * size:
                    raise UserError(
                        f"not enough disk space for {path} ({size / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free): free space"
                    )
                with ExitStack() as stack:
                    others = [stack.enter_context(open(partial / name, "wb")) for name in _OTHER_FILES]
                    files = IndexFiles(features, *others)
                    _write_header(files.features, "<f4", metadata.images, metadata.features)
                    _write_header(files.squared_norms, "<f8", metadata.images)
                    _write_header(files.line_ends, "<i8", metadata.images)
                    writer = IndexWriter(files)
                    yield writer
                    for file in files:
                        file.flush()
                        os.fsync(file.fileno())
                    assert writer.num_written == metadata.images
                    values = {**asdict(metadata), "features_bytes": features.tell(), "names_bytes": files.images.tell()}
                (partial / "index.json").write_text(json.dumps(values, indent=1) + "\n")
                partial.rename(path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def _write_header(file: IO[bytes], dtype: str, *shape: int) -> None:
    header: dict[str, Any] = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
