"""Writes what Caffe writes: just enough of protocol buffers for files of weights, old and new."""

import struct

import numpy as np


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, *, legacy: bool = False, packed: bool = True, double: bool = False) -> bytes:
    """A BlobProto: four legacy axes or a shape; floats packed or one by one; floats or doubles."""
    if legacy:
        four = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(number, side) for number, side in enumerate(four, 1))
    else:
        shape = field(7, field(1, b"".join(varint(side) for side in array.shape)))
    if double:
        return field(8, array.astype("<f8").tobytes()) + shape
    if packed:
        return shape + field(5, array.astype("<f4").tobytes())
    return shape + b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in array.ravel())


def caffemodel(arrays: dict[str, np.ndarray], *, first_form: bool = False, **of_blobs: bool) -> bytes:
    """A NetParameter with the layers of `arrays`, "conv1.weight", … , among others without weights."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays))
    out = field(1, b"AlexNet")
    for name in names:
        blobs = [blob(arrays[f"{name}.{kind}"], **of_blobs) for kind in ("weight", "bias")]
        if first_form:  # V1LayerParameter: bottom, top, name, type, blobs
            layer = field(2, b"below") + field(3, b"above") + field(4, name.encode()) + field(5, 4)
            out += field(2, layer + b"".join(field(6, each) for each in blobs))
        else:
            layer = field(1, name.encode()) + field(2, b"Convolution") + field(3, b"below")
            out += field(100, layer + b"".join(field(7, each) for each in blobs))
        without = field(4, b"relu") + field(5, 18) if first_form else field(1, b"relu") + field(2, b"ReLU")
        out += field(2 if first_form else 100, without)
    return out
