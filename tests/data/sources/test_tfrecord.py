"""Tests of the checksum of TFRecord files and of the parser of their records."""

import numpy as np
import pytest

from alexnet_jax.data.sources.tfrecord import crc32c, masked_crc32c, parse_example
from tests.data.sources.shard_files import example, masked_crc


def test_published_checksums():
    """Check the examples of RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@pytest.mark.parametrize("size", [1, 8, 63, 64, 65, 4095, 4096, 4097, 8192, 8193, 20_000])
def test_checksum_of_any_size(size, rng):
    data = rng.bytes(size)
    assert masked_crc32c(data).to_bytes(4, "little") == masked_crc(data)


def test_examples_are_parsed():
    assert parse_example(example(image=b"\x00\xff", label=-1, count=300)) == {
        "image": [b"\x00\xff"],
        "label": [-1],
        "count": [300],
    }
    assert parse_example(b"") == {}
    for damaged in (b"\x0a\xff", example(image=b"abc")[:-1], np.random.default_rng(0).bytes(100)):
        with pytest.raises(ValueError, match=r"truncated|not a valid"):
            parse_example(damaged)
