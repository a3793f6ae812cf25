"""Minimal parser of the protocol buffer wire format, enough for Caffe's weights. Fields are identified by number only."""

from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def parse_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message in order, as field number and value: an integer, or the bytes of any other type.

    Raises:
      ValueError: if the bytes are not a protocol buffer message, or it is truncated.
    """
    offset = 0
    while offset < len(message):
        key, offset = _parse_varint(message, offset)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (VARINT, FIXED64, BYTES, FIXED32):
            raise ValueError("it is not a protocol buffer")
        if wire_type == VARINT:
            value, offset = _parse_varint(message, offset)
            yield number, value
            continue
        if wire_type == BYTES:
            size, offset = _parse_varint(message, offset)
        else:
            size = 8 if wire_type == FIXED64 else 4
        if offset + size > len(message):
            raise ValueError("the file is truncated")
        yield number, message[offset : offset + size]
        offset += size


def parse_varints(value: int | memoryview) -> Iterator[int]:
    """Yield the integers in a value of a repeated field, which holds one integer, or several if it is packed."""
    if isinstance(value, int):
        yield value
        return
    offset = 0
    while offset < len(value):
        number, offset = _parse_varint(value, offset)
        yield number


def parse_floats(values: list[memoryview], dtype: str) -> np.ndarray:
    """Return all values of a repeated field of fixed-size numbers, packed or not, as one array.

    Args:
      values: values of the field, from `parse_fields`.
      dtype: NumPy type of the numbers, with byte order.

    Raises:
      ValueError: if the number of bytes is not a multiple of the size of a number.
    """
    return np.frombuffer(values[0] if len(values) == 1 else b"".join(values), dtype)


def _parse_varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Return a base-128 varint, least significant group first, and the offset of the byte after it."""
    value = 0
    for shift in range(0, 70, 7):
        if offset == len(message):
            raise ValueError("the file is truncated")
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("it is not a protocol buffer")
