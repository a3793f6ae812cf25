"""Tests of Parquet files as a source."""

import sys

import pytest

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.errors import UserError
from tests.data.sources.archives import WNIDS, open_source
from tests.data.sources.shard_files import PICTURES, parquet_table, write_parquet


def test_parquet_without_metadata(tmp_path):
    pa = pytest.importorskip("pyarrow")
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    images = PICTURES["train"]
    contents = pa.array([data for _, _, data in images], pa.binary())
    for number, labels in enumerate(([label for label, _, _ in images], ["abc"[label] for label, _, _ in images])):
        write_table(pa.table({"image": contents, "label": labels}), tmp_path / f"{number}.parquet")
        source = open_source(tmp_path / f"{number}.parquet", held_out=0.0)
        assert source.classes == [["0", "1", "2"], ["a", "b", "c"]][number]
        assert [source.read("train", i)[1:] for i in range(13)] == [(label, data) for label, _, data in images]


def test_images_without_content_are_skipped(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [(label, name, None if i == 0 else data) for i, (label, name, data) in enumerate(PICTURES["train"])]
    source = write_parquet(tmp_path / "source", {"train": rows, "validation": PICTURES["validation"]})
    dataset = prepare_path(str(source), tmp_path / "out", PrepareOptions(size=16))
    assert dataset.manifest.skipped == {
        "train/0": f"train/{WNIDS[0]}/{rows[0][1]} has no content in train-00000-of-00002.parquet"
    }
    assert dataset.manifest.splits == {"train": 12, "validation": 3}


def test_parquet_errors(tmp_path, monkeypatch):
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    root = write_parquet(tmp_path / "a")
    file = root / "data" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r"train-00001-of-00002.parquet is not a complete Parquet file \(.*\): download it again$"
    ):
        open_source(root)
    write_table(parquet_table(PICTURES["train"], names=["a", "b", "c"]), file)
    with pytest.raises(UserError, match=r"has other columns or classes than"):
        open_source(root)
    write_table(parquet_table(PICTURES["train"]).rename_columns(["image", "caption"]), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"has the columns image, caption, expected image and label"):
        open_source(tmp_path / "b.parquet")
    source = open_source(write_parquet(tmp_path / "c"))
    damaged = (tmp_path / "c" / "data" / "validation-00000-of-00002.parquet").read_bytes()
    (tmp_path / "c" / "data" / "validation-00000-of-00002.parquet").write_bytes(damaged[:100])
    with pytest.raises(UserError, match=r"is not a complete Parquet file"):
        source.read("validation", 0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"need pyarrow: run pip install 'alexnet-jax\[parquet\]'"):
        open_source(root)
