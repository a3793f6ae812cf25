"""Reader of TFRecord files of tf.train.Example messages, without TensorFlow.

A file is a sequence of records: the number of bytes (8 bytes, little endian) and its checksum (4 bytes), the bytes, and their
checksum. A checksum is a masked CRC-32C. A file has no index, so it is searched for the starts of its records when one of them is
first read.
"""

import bisect
import struct
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from alexnet_jax.errors import UserError
from alexnet_jax.protobuf import parse_fields, parse_varints

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # CRC-32C, with the bits reversed
_MASK_DELTA = 0xA282EAD8
_LANE_BYTES = 64
_MIN_LANES = 64  # for fewer, a loop over the bytes is faster
_FEATURES, _FEATURE, _KEY, _VALUE, _BYTES_LIST, _INT64_LIST, _ITEM = 1, 1, 1, 2, 1, 3, 1  # fields of tf.train.Example


class TfrecordFiles:
    """Random access to the records of several files with the given numbers of records, by any number of threads."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]):
        self._paths, self._sizes, self._ends = paths, sizes, list(accumulate(sizes))
        self._offsets: dict[int, array[int]] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """Return a record.

        Raises:
          UserError: if the file is damaged, or has a different number of records than expected.
        """
        number = bisect.bisect_right(self._ends, index)
        record = index - (self._ends[number] - self._sizes[number])
        path = self._paths[number]
        try:
            # Two threads may search a file at the same time; they find the same.
            if number not in self._offsets:
                self._offsets[number] = _record_offsets(path, self._sizes[number])
            start, end = self._offsets[number][record : record + 2]
            with open(path, "rb") as file:
                file.seek(start + _HEADER.size)
                data = file.read(end - start - _HEADER.size)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        content, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
        if len(checksum) < _CHECKSUM.size or masked_crc32c(content) != _CHECKSUM.unpack(checksum)[0]:
            raise UserError(f"{path} is damaged at record {record:,} (checksum mismatch): build the data set again")
        return content


def _record_offsets(path: Path, expected: int) -> "array[int]":
    """Return the offset of each record of a file, and of the end of the last one."""
    offsets, size = array("Q", [0]), path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        while offsets[-1] < size:
            header = file.read(_HEADER.size)
            length, checksum = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, -1)
            end = offsets[-1] + _HEADER.size + length + _CHECKSUM.size
            if masked_crc32c(header[:8]) != checksum or end > size:
                problem = f"truncated or damaged at byte {offsets[-1]:,}"
                raise UserError(f"{path} is not a complete TFRecord file ({problem}): build the data set again")
            offsets.append(end)
            file.seek(end)
    if len(offsets) - 1 != expected:
        raise UserError(f"{path} has {len(offsets) - 1:,} records, but dataset_info.json {expected:,}: build the data set again")
    return offsets


def parse_example(record: bytes) -> dict[str, list[bytes] | list[int]]:
    """Return the values of the features of a tf.train.Example, except floating-point numbers.

    Raises:
      ValueError: if the bytes are not such a message.
    """
    example: dict[str, list[bytes] | list[int]] = {}
    for feature in (entry for features in _messages(record, _FEATURES) for entry in _messages(features, _FEATURE)):
        key = b"".join(map(bytes, _messages(feature, _KEY)))
        for value in _messages(feature, _VALUE):
            strings = [bytes(item) for values in _messages(value, _BYTES_LIST) for item in _messages(values, _ITEM)]
            numbers = [
                number - (number >> 63 << 64)
                for values in _messages(value, _INT64_LIST)
                for field, item in parse_fields(values)
                if field == _ITEM
                for number in parse_varints(item)
            ]
            example[key.decode()] = strings or numbers
    return example


def _messages(message: bytes | memoryview, number: int) -> list[memoryview]:
    fields = parse_fields(memoryview(message))
    return [value for field, value in fields if field == number and isinstance(value, memoryview)]


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of TFRecord: CRC-32C, rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes.

    The checksum is a linear function, so lanes of 64 bytes are processed side by side. Then neighbors are joined: the checksum of
    the left one, after as many zeros as the right one has bytes, plus that of the right one.

    Examples:
      >>> hex(crc32c(b"123456789"))
      '0xe3069283'
    """
    if len(data) < _MIN_LANES * _LANE_BYTES:
        crc, integers = 0xFFFFFFFF, _byte_integers()
        for byte in data:
            crc = integers[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    table = _byte_table()
    lanes = 1 << (-(-len(data) // _LANE_BYTES) - 1).bit_length()
    padded = np.zeros(lanes * _LANE_BYTES, np.uint8)  # zeros before the data do not change a CRC that begins with 0
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[-len(data) :][:4] ^= 0xFF  # the same as to begin with 0xFFFFFFFF
    crcs = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lanes, _LANE_BYTES).T):
        crcs = table[(crcs ^ column) & 0xFF] ^ (crcs >> 8)
    level = 0
    while len(crcs) > 1:
        crcs = _apply(_zeros_table(level), crcs[::2]) ^ crcs[1::2]
        level += 1
    return int(crcs[0]) ^ 0xFFFFFFFF


@cache
def _byte_table() -> UInt32[np.ndarray, "256"]:
    """Return the CRC of each byte."""
    crcs = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crcs = np.where(crcs & 1, crcs >> 1 ^ np.uint32(_POLYNOMIAL), crcs >> 1)
    return crcs


@cache
def _byte_integers() -> list[int]:
    """Return the values of `_byte_table` as integers, which are faster one at a time."""
    return _byte_table().tolist()


@cache
def _zeros_table(level: int) -> UInt32[np.ndarray, "4 256"]:
    """Return the CRC after 64 * 2**level zero bytes, for each value of each of the four bytes of the CRC before them."""
    if level:
        half = _zeros_table(level - 1)
        return _apply(half, half)
    crcs = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    for _ in range(_LANE_BYTES):
        crcs = _byte_table()[crcs & 0xFF] ^ (crcs >> 8)
    return crcs


def _apply(table: UInt32[np.ndarray, "4 256"], crcs: UInt32[np.ndarray, "..."]) -> UInt32[np.ndarray, "..."]:
    """Apply a linear function, given by its values for each byte, to CRCs."""
    return table[0][crcs & 0xFF] ^ table[1][crcs >> 8 & 0xFF] ^ table[2][crcs >> 16 & 0xFF] ^ table[3][crcs >> 24]
