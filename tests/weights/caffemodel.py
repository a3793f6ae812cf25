"""Writer of Caffe's weight files, with a minimal protocol buffer encoder."""

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
    """Return an array as a serialized BlobProto.

    Args:
      array: values.
      legacy: store the shape as num, channels, height and width instead of a BlobShape.
      packed: store the floats as one packed field instead of one field per value.
      double: store doubles instead of floats.
    """
    if legacy:
        legacy_shape = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(number, side) for number, side in enumerate(legacy_shape, 1))
    else:
        shape = field(7, field(1, b"".join(varint(side) for side in array.shape)))
    if double:
        return field(8, array.astype("<f8").tobytes()) + shape
    if packed:
        return shape + field(5, array.astype("<f4").tobytes())
    return shape + b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in array.ravel())


def caffemodel(arrays: dict[str, np.ndarray], *, network: str = "AlexNet", v1: bool = False, **blob_options: bool) -> bytes:
    """Return a serialized NetParameter with the arrays of a state dict, and a layer without weights after each layer.

    Args:
      arrays: arrays by name, "conv1.weight", "conv1.bias", …
      network: name of the network in the file.
      v1: write V1LayerParameter instead of LayerParameter.
      **blob_options: options of `blob`.
    """
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays))
    out = field(1, network.encode())
    for name in names:
        blobs = [blob(arrays[f"{name}.{kind}"], **blob_options) for kind in ("weight", "bias")]
        if v1:  # fields of V1LayerParameter: bottom, top, name, type, blobs
            layer = field(2, b"below") + field(3, b"above") + field(4, name.encode()) + field(5, 4)
            out += field(2, layer + b"".join(field(6, each) for each in blobs))
        else:
            layer = field(1, name.encode()) + field(2, b"Convolution") + field(3, b"below")
            out += field(100, layer + b"".join(field(7, each) for each in blobs))
        relu = field(4, b"relu") + field(5, 18) if v1 else field(1, b"relu") + field(2, b"ReLU")
        out += field(2 if v1 else 100, relu)
    return out
