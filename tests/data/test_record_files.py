"""Tests of random access to records in several files, and of unpacking an image without a copy."""

import pickle

import numpy as np
import pytest

from alexnet_jax.data.manifest import Manifest
from alexnet_jax.data.pipeline.augment import Crop
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shard_writer import ShardWriter
from alexnet_jax.data.record_files import RecordFiles, unpack_image
from alexnet_jax.data.records import Dataset, Record, open_dataset, pack, unpack
from alexnet_jax.errors import UserError


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536])
@pytest.mark.parametrize("label", [-1, 0, 127, 128, 21840])
def test_unpack_image_equals_unpack(size, label):
    record = Record(bytes(range(256)) * (size // 256) + bytes(size % 256), label, "n01440764/ä.jpg")
    image, unpacked = unpack_image(pack(record))
    assert (bytes(image), unpacked) == (record.image, label)
    assert unpack(pack(record)) == record


@pytest.mark.parametrize("data", [b"", b"\x83", pack(Record(b"12", 0, "a"))[:-3], b"\x82" + pack(Record(b"12", 0, "a"))[1:]])
def test_damaged_record(data):
    with pytest.raises(ValueError, match=r"not a record|incomplete"):
        unpack_image(data)


@pytest.mark.parametrize("name", ["manifest.json", "mean_image.npy"])
def test_error_of_the_system_is_no_damage_of_a_data_set(dataset, name):
    np.save(dataset.path / "mean_image.npy", np.zeros((1, 1, 3), np.float32))
    (dataset.path / "manifest.json").write_text(dataset.manifest.to_json())
    open_dataset(dataset.path)
    (dataset.path / name).unlink()
    (dataset.path / name).mkdir()
    with pytest.raises(IsADirectoryError):  # and no advice to delete it
        open_dataset(dataset.path)


@pytest.fixture
def dataset(tmp_path):
    """Return a data set of 10 raw images of one pixel, in files of 3, 1 and 6 images."""
    shards = []
    for count in (3, 1, 6):
        first = sum(shard.num_images for shard in shards)
        writer = ShardWriter(tmp_path, "train", len(shards), 1, with_statistics=False)
        for i in range(first, first + count):
            writer.write(Record(bytes([i] * 3), i % 2, str(i)), np.zeros((1, 1, 3), np.uint8))
        shards.append(writer.finish().shard)
    identity = np.eye(3).tolist()
    manifest = Manifest("set", 1, ["a", "b"], {"train": 10}, [1.0] * 3, identity, encoding="raw", shards={"train": shards})
    return Dataset(tmp_path, manifest)


def test_records_of_several_files(dataset):
    records = RecordFiles(dataset.shards("train"), [3, 1, 6])
    copy = pickle.loads(pickle.dumps(records))
    order = [9, 0, 3, 4, 2, 8, 1, 5, 7, 6]
    for files in (records, copy):
        assert len(files) == 10
        assert [unpack(files[i]).name for i in order] == list(map(str, order))
    assert [records.path_of(i)[-14] for i in (0, 2, 3, 4, 9)] == ["0", "0", "1", "2", "2"]


def test_missing_file_is_named(dataset):
    (dataset.path / "train-00001.array_record").unlink()
    images = DecodedImages(dataset, "train", 1)
    crop = Crop(np.zeros((1, 2), np.int32), np.zeros(1, bool))
    assert images.crops([2], crop, 1)[0].tolist() == [[[[2, 2, 2]]]]
    with pytest.raises(UserError, match=r"train-00001\.array_record is damaged at image 3 .*: list the damaged files"):
        images.crops([3], crop, 1)
