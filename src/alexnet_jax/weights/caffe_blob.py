"""Arrays in Caffe's files: the BlobProto message."""

import numpy as np

from alexnet_jax.protobuf import parse_fields, parse_floats, parse_varints

_LEGACY_SHAPE = (1, 2, 3, 4)  # fields of Caffe's BlobProto: num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1  # of BlobShape


def parse_blob(message: memoryview) -> np.ndarray:
    """Parse a BlobProto message of Caffe into an array.

    Raises:
      ValueError: if the message is damaged, or its values do not match its shape.
    """
    shape, legacy_shape = None, [1, 1, 1, 1]
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in parse_fields(message):
        if number == _SHAPE and isinstance(value, memoryview):
            shape = [size for shape_field, dim in parse_fields(value) if shape_field == _DIM for size in parse_varints(dim)]
        elif number in _LEGACY_SHAPE and isinstance(value, int):
            legacy_shape[_LEGACY_SHAPE.index(number)] = value
        elif number in (_DATA, _DOUBLE_DATA) and isinstance(value, memoryview):
            (floats if number == _DATA else doubles).append(value)
    data = parse_floats(doubles, "<f8") if doubles else parse_floats(floats, "<f4")
    return data.reshape(legacy_shape if shape is None else shape)
