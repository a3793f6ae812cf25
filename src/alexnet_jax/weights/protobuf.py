"""The wire format of protocol buffers, as far as Caffe's weights need it: fields by number, nothing of what they are called."""

from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a field is written."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a message in their order: number, and an integer or the bytes.

    Raises:
      ValueError: if it is no message, or not all of one.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
            raise ValueError("it is no protocol buffer")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        else:
            size = 8 if kind == FIXED64 else 4
        if at + size > len(message):
            raise ValueError("it ends before it should")
        yield number, message[at : at + size]
        at += size


def varints(packed: int | memoryview) -> Iterator[int]:
    """The integers of a repeated field, packed or one of them."""
    if isinstance(packed, int):
        yield packed
        return
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def numbers(values: list[memoryview], dtype: str) -> np.ndarray:
    """The numbers of a repeated field, packed or one by one.

    Raises:
      ValueError: if the bytes are not a whole number of them.
    """
    return np.frombuffer(values[0] if len(values) == 1 else b"".join(values), dtype)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError("it ends before it should")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no protocol buffer")
