"""Verification of a prepared data set."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax.console import console, track_progress
from alexnet_jax.data.images import InvalidImageError, decode_jpeg
from alexnet_jax.data.manifest import Manifest, Shard, read_manifest
from alexnet_jax.data.prepare.convert import map_in_threads
from alexnet_jax.data.records import UNLABELED, open_dataset, unpack
from alexnet_jax.errors import UserError, one_line


def verify(path: Path, threads: int | None = None) -> None:
    """Verify the checksum of every file and the image and label of every record. Each error is printed on its own line.

    Args:
      path: prepared data set.
      threads: number of threads, each of which reads one file at a time; None uses one per available CPU.

    Raises:
      UserError: if there are errors.
    """
    manifest = read_manifest(path)
    shards = [shard for files in manifest.shards.values() for shard in files]
    num_errors = 0
    for errors in track_progress(
        map_in_threads(lambda shard: _shard_errors(path, manifest, shard), shards, threads), "Verifying", len(shards), "file"
    ):
        for error in errors:
            console.print(error, style="red", markup=False)
        num_errors += len(errors)
    if num_errors:
        raise UserError(f"{path} is damaged (errors: {num_errors}): delete it and prepare it again")
    open_dataset(path)
    images = sum(manifest.splits.values())
    console.print(f"{path}: all {images:,} images in {len(shards)} files are intact", markup=False)


def _shard_errors(path: Path, manifest: Manifest, shard: Shard) -> list[str]:
    """Return the errors of one file."""
    errors: list[str] = []
    try:
        with open(path / shard.file, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                errors.append("checksum mismatch")
        reader = ArrayRecordReader(str(path / shard.file))
        errors += _record_errors(reader, manifest, shard)
        reader.close()
    except OSError as error:
        errors.append(str(error.strerror))
    except Exception as error:  # ArrayRecordReader raises exceptions of several types
        errors.append(one_line(error, 200))
    return [f"{shard.file}: {error}" for error in errors]


def _record_errors(reader: ArrayRecordReader, manifest: Manifest, shard: Shard) -> Iterator[str]:
    unlabeled = [shard for split in manifest.unlabeled for shard in manifest.shards[split]]
    if reader.num_records() != shard.num_images:
        yield f"{reader.num_records():,} records, expected {shard.num_images:,}"
    for index in range(reader.num_records()):
        try:
            _check_record(reader.read(index, index + 1)[0], manifest, shard in unlabeled)
        except Exception as error:
            yield f"record {index}: {one_line(error, 200)}"


def _check_record(data: bytes, manifest: Manifest, unlabeled: bool) -> None:
    record = unpack(data)
    if manifest.encoding == "jpeg":
        decode_jpeg(record.image, manifest.size)
    elif len(record.image) != 3 * manifest.size**2:
        raise InvalidImageError(f"{record.name} has {len(record.image):,} bytes, expected {3 * manifest.size**2:,}")
    if record.label not in ([UNLABELED] if unlabeled else range(len(manifest.classes))):
        expected = UNLABELED if unlabeled else f"0 to {len(manifest.classes) - 1}"
        raise InvalidImageError(f"{record.name} has label {record.label}, expected {expected}")
