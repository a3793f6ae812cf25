"""Tests of data sets prepared by TensorFlow Datasets as a source."""

import json
import shutil

import pytest

from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from tests.data.sources.archives import open_source
from tests.data.sources.shard_files import LABELED, write_tfds


def test_tfds_by_name_and_latest_version(tmp_path, monkeypatch):
    folder = write_tfds(tmp_path, LABELED)
    older = folder.with_name("0.9.0")
    older.mkdir()
    for file in folder.iterdir():
        (older / file.name).write_bytes(file.read_bytes().replace(b'"1.0.0"', b'"0.9.0"'))
    for source in (find_source("tfds:tiny", ValidationSplit(), str(tmp_path)), open_source(tmp_path / "tiny")):
        assert source.description == "tfds:tiny/1.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert open_source("tfds:tiny:0.9.0").description == "tfds:tiny/0.9.0"
    with pytest.raises(UserError, match=r"other is not prepared in .*: run tfds build other --data_dir=.* as --tfds-dir$"):
        open_source("tfds:other")
    with pytest.raises(UserError, match=r"--tfds-dir /nowhere is not a folder"):
        find_source("tfds:tiny", ValidationSplit(), "/nowhere")


def read_to_the_end(source):
    for split, count in source.num_images.items():
        for index in range(count):
            source.read(split, index)


def test_tfds_errors(tmp_path):
    folder = write_tfds(tmp_path / "a")
    file = folder / "tiny-train.tfrecord-00001-of-00002"
    content = file.read_bytes()
    file.write_bytes(content[:-5])
    with pytest.raises(
        UserError, match=r"00001-of-00002 is not a complete TFRecord file \(truncated or damaged at byte [\d,]+\)"
    ):
        read_to_the_end(open_source(folder))
    file.write_bytes(content[:500] + bytes([content[500] ^ 4]) + content[501:])
    with pytest.raises(UserError, match=r"00001-of-00002 is damaged at record 0 \(checksum mismatch\): build the data set again"):
        read_to_the_end(open_source(folder))
    file.write_bytes(content + content)
    with pytest.raises(UserError, match=r"has 12 records, but dataset_info.json 6"):
        read_to_the_end(open_source(folder))
    file.unlink()
    with pytest.raises(UserError, match=r"is incomplete \(tiny-train.tfrecord-00001-of-00002 is missing\)"):
        open_source(folder)
    (folder / "label.labels.txt").write_text("a\nb\n")
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"label.labels.txt has 2 different names for 3 classes"):
        open_source(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "dataset_info.json",
            {"fileFormat": "riegeli"},
            r"in the format riegeli, expected tfrecord or array_record: run tfds convert",
        ),
        ("features.json", {"featuresDict": {"features": {"text": {}}}}, r"has no image and label features, only text"),
        ("features.json", {"featuresDict": None}, r"is not a data set of TensorFlow Datasets that can be read \("),
        ("dataset_info.json", {"splits": []}, r"has no labeled training images: choose a different data set"),
    ],
)
def test_tfds_metadata_errors(tmp_path, file, change, message):
    folder = write_tfds(tmp_path, LABELED)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        open_source(folder)
    assert "\n" not in str(error.value)


def test_damaged_array_record_of_tfds(tmp_path):
    folder = write_tfds(tmp_path, LABELED, file_format="array_record")
    file = folder / "tiny-train.array_record-00000-of-00002"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"tiny/1.0.0 is damaged at train image 0 \(.*\): build it again"):
        read_to_the_end(open_source(folder))
    shutil.copy(folder / "tiny-train.array_record-00001-of-00002", file)
    with pytest.raises(UserError, match=r"is damaged at train image 0 \(.*00000-of-00002 has 6 records, expected 7\)"):
        read_to_the_end(open_source(folder))
