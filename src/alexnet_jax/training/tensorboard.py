"""The log for TensorBoard: event files, which are TFRecords of protocol buffers.

Of either only what numbers need is here. The libraries that write such files do it in a thread of their own: a full disk ends
the thread, and training would wait for it for ever.
"""

import struct
import time
from pathlib import Path

from alexnet_jax.errors import disk_full_as_user_error


class EventWriter:
    """A new event file. TensorBoard shows those of a folder as one training.

    Args:
      folder: of this training's event files.
      start: steps taken before; what earlier files tell of later ones, which are taken again, is no longer shown.
    """

    def __init__(self, folder: Path, *, start: int):
        folder.mkdir(exist_ok=True)
        self._file = folder / f"events.out.tfevents.{time.time():017.6f}"
        self._write(0, _bytes(3, b"brain.Event:2"))
        self._write(start + 1, _bytes(7, _number(1, 1)))  # a session that starts

    def write(self, step: int, group: str, **values: int | float) -> None:
        """Writes numbers, each under its name in a group."""
        tagged = (_bytes(1, f"{group}/{name}".encode()) + b"\x15" + struct.pack("<f", value) for name, value in values.items())
        self._write(step, _bytes(5, b"".join(_bytes(1, value) for value in tagged)))

    def _write(self, step: int, what: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + _number(2, step) + what
        with disk_full_as_user_error(f"for {self._file}"), self._file.open("ab") as file:
            file.write(record(event))


def record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked(crc32c(length)) + data + _masked(crc32c(data))


def crc32c(data: bytes) -> int:
    """The CRC of iSCSI (RFC 3720), bit by bit: an event has a hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _number(field: int, value: int) -> bytes:
    """A field of a protocol buffer, an integer."""
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    """A field of a protocol buffer, a string or a message."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
