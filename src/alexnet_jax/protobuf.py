"""Minimal parser of the protocol buffer wire format, sufficient for Caffe weights and for images of TensorFlow Datasets.

Fields are identified by number only, since no schema is read.
"""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of fields."""


def parse_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a message, in order.

    The value of a varint field is an integer; the value of any other field is its raw bytes.

    Raises:
      ValueError: if the bytes are not a valid protocol buffer message, or are truncated.
    """
    offset = 0
    while offset < len(message):
        key, offset = _parse_varint(message, offset)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (VARINT, FIXED64, BYTES, FIXED32):
            raise ValueError("not a valid protocol buffer message")
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
    """Yield the integers in one value of a repeated field: a single integer, or several if the field is packed."""
    if isinstance(value, int):
        yield value
        return
    offset = 0
    while offset < len(value):
        number, offset = _parse_varint(value, offset)
        yield number


def _parse_varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Decode the base-128 varint at `offset`, least significant group first; return its value and the offset of the next byte."""
    value = 0
    for shift in range(0, 70, 7):
        if offset == len(message):
            raise ValueError("the file is truncated")
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("not a valid protocol buffer message")
