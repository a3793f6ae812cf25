"""Tests of TFDS as a source, with a fake of the library, and with the library itself if ALEXNET_JAX_TFDS is set."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import UserError
from tests.data.sources.archives import (
    WNIDS,
    open_source,
    png_image,
)


class FakeBuilder:
    data_path = "/data/tiny/1.0.0"
    prepared = True
    format = "array_record"

    def __init__(self):
        features = {"image": SimpleNamespace(shape=(None, None, 3)), "label": SimpleNamespace(names=WNIDS)}
        self.splits = {
            "train": [{"image": png_image(i), "label": i % 3, "file_name": f"{i}.JPEG"} for i in range(6)],
            "validation": [{"image": png_image(9), "label": 1, "id": b"nine"}],
            "test": [{"image": png_image(9), "label": -1}],
        }
        info = {split: SimpleNamespace(shard_lengths=[len(records)], num_bytes=1) for split, records in self.splits.items()}
        self.info = SimpleNamespace(
            file_format=SimpleNamespace(value=self.format), features=features, splits=info, full_name="tiny/1.0.0"
        )

    def is_prepared(self):
        return self.prepared

    def as_data_source(self, split, decoders):
        assert decoders == {"image": "undecoded"}
        return self.splits[split]


@pytest.fixture
def tfds_builder(monkeypatch):
    module = ModuleType("tensorflow_datasets")
    builder = FakeBuilder()

    def create_builder(name, data_dir):
        if name != "tiny":
            raise ValueError(f"Dataset {name} not found.\nAvailable: …")
        return builder

    vars(module).update(builder=create_builder, decode=SimpleNamespace(SkipDecoding=lambda: "undecoded"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return builder


def test_tfds_source(tfds_builder, tmp_path):
    source = open_source("tfds:tiny")
    assert source.classes == WNIDS
    assert source.num_images == {"train": 6, "validation": 1}
    assert (source.left_out, source.num_left_out) == ({"test (1 images)": "without labels"}, 1)
    assert (source.size, source.raw) == (256, False)
    assert source.read("validation", 0) == ("validation/nine", 1, png_image(9))
    dataset = prepare_path("tfds:tiny", tmp_path / "out", PrepareOptions(size=8))
    assert dataset.manifest.splits == {"train": 6, "validation": 1}
    assert dataset.manifest.source == "tfds:tiny/1.0.0"


def test_tfds_errors(tfds_builder, monkeypatch):
    with pytest.raises(UserError, match=r"has no data set nonesuch \(Dataset nonesuch not found\.\): check the name$"):
        open_source("tfds:nonesuch")
    tfds_builder.info.file_format.value = "tfrecord"
    with pytest.raises(UserError, match=r"not in ArrayRecord format: run .* --file_format=array_record --overwrite"):
        open_source("tfds:tiny")
    tfds_builder.prepared = False
    with pytest.raises(
        UserError, match=r"not prepared in /data/tiny/1\.0\.0: run tfds build tiny --data_dir=/tmp --file_format=array"
    ):
        find_source("tfds:tiny", ValidationSplit(), "/tmp")
    with pytest.raises(UserError, match=r"or pass the folder in which it is prepared as --tfds-dir$"):
        open_source("tfds:tiny")
    with pytest.raises(UserError, match=r"--tfds-dir /nowhere is not a folder"):
        find_source("tfds:tiny", ValidationSplit(), "/nowhere")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'alexnet-jax\[tfds\]'"):
        open_source("tfds:tiny")


@pytest.mark.skipif("ALEXNET_JAX_TFDS" not in os.environ, reason="needs a data set of TFDS: set ALEXNET_JAX_TFDS=NAME:DIRECTORY")
def test_tfds_with_the_real_library(tmp_path):
    name, data_dir = os.environ["ALEXNET_JAX_TFDS"].split(":", 1)
    source = find_source(f"tfds:{name}", ValidationSplit(), data_dir)
    record = source.read("train", 0)
    assert isinstance(record.data, bytes)
    assert 0 <= record.label < len(source.classes)
