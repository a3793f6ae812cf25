"""Minimal writer of TensorBoard scalars.

An event file consists of TFRecords of protocol buffers; only the fields that scalars need are implemented. tensorboardX is not
used: it writes events in a background thread, which ends if the disk is full; ten events later, training waits for it forever
(version 2.6.5). Importing it also imports PyTorch, if installed, which takes seconds.
"""

import struct
import time
from pathlib import Path

from alexnet_jax.data.sources.tfrecord import masked_crc32c
from alexnet_jax.errors import disk_full_as_user_error


class EventWriter:
    """Writer of a new event file.

    TensorBoard shows all event files of a folder as one run.

    Args:
      folder: folder of the run's event files; created if missing.
      start: number of completed steps; TensorBoard then discards events of later steps in earlier files, because these steps
        are repeated.
    """

    def __init__(self, folder: Path, *, start: int):
        folder.mkdir(exist_ok=True)
        self._file = folder / f"events.out.tfevents.{time.time():017.6f}"
        self._write(0, _bytes_field(3, b"brain.Event:2"))
        self._write(start + 1, _bytes_field(7, _int_field(1, 1)))  # session log with status START

    def write(self, step: int, group: str, **values: int | float) -> None:
        """Write scalars with the tags "group/name".

        Raises:
          UserError: if the disk is full.
        """
        scalars = (
            _bytes_field(1, f"{group}/{name}".encode()) + b"\x15" + struct.pack("<f", value) for name, value in values.items()
        )
        self._write(step, _bytes_field(5, b"".join(_bytes_field(1, scalar) for scalar in scalars)))

    def _write(self, step: int, content: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + _int_field(2, step) + content
        with disk_full_as_user_error(f"for {self._file}"), self._file.open("ab") as file:
            file.write(record(event))


def record(data: bytes) -> bytes:
    """Encode data as a TFRecord: length, masked CRC of the length, data, masked CRC of the data."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _int_field(field: int, value: int) -> bytes:
    """Encode an integer field of a protocol buffer."""
    return _varint(field << 3) + _varint(value)


def _bytes_field(field: int, value: bytes) -> bytes:
    """Encode a string or message field of a protocol buffer."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Encode an integer as a varint: groups of seven bits, lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
