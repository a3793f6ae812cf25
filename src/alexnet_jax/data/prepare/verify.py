"""Reads a prepared data set from end to end and says what is damaged."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax.console import console, track_progress
from alexnet_jax.data.images import BadImage, decode_jpeg
from alexnet_jax.data.prepare.convert import map_in_threads
from alexnet_jax.data.records import Manifest, Shard, open_dataset, read_manifest, unpack
from alexnet_jax.errors import UserError


def verify(path: Path, threads: int | None = None) -> None:
    """Checks every file's checksum and every record's image and label.

    Raises:
      UserError: if anything is damaged; each damage has been told on a line of its own.
    """
    manifest = read_manifest(path)
    shards = [shard for found in manifest.shards.values() for shard in found]
    complaints = 0
    for found in track_progress(
        map_in_threads(lambda shard: _complaints(path, manifest, shard), shards, threads), "Verifying", len(shards), "files"
    ):
        for complaint in found:
            console.print(complaint, style="red", markup=False)
        complaints += len(found)
    if complaints:
        raise UserError(f"{path} is damaged in {complaints} places: delete it and prepare it again")
    open_dataset(path)
    images = sum(manifest.splits.values())
    console.print(f"{path}: all {images:,} images in {len(shards)} files are whole", markup=False)


def _complaints(path: Path, manifest: Manifest, shard: Shard) -> list[str]:
    """What is wrong with one file."""
    found: list[str] = []
    try:
        with open(path / shard.file, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                found.append("the checksum differs")
        reader = ArrayRecordReader(str(path / shard.file))
        found += _records(reader, manifest, shard)
        reader.close()
    except OSError as error:
        found.append(str(error.strerror))
    except Exception as error:  # the reader's errors have no class of their own
        found.append(_line(error))
    return [f"{shard.file}: {complaint}" for complaint in found]


def _records(reader: ArrayRecordReader, manifest: Manifest, shard: Shard) -> Iterator[str]:
    if reader.num_records() != shard.images:
        yield f"{reader.num_records():,} records, not {shard.images:,}"
    for index in range(reader.num_records()):
        try:
            _check(reader.read([index])[0], manifest)
        except Exception as error:
            yield f"record {index}: {_line(error)}"


def _check(data: bytes, manifest: Manifest) -> None:
    record = unpack(data)
    if manifest.encoding == "jpeg":
        decode_jpeg(record.image, manifest.size)
    elif len(record.image) != 3 * manifest.size**2:
        raise BadImage(f"{record.name} has {len(record.image):,} bytes")
    if not 0 <= record.label < len(manifest.classes):
        raise BadImage(f"{record.name} has the label {record.label}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
