"""Tests of `prepare --verify`, and of the messages of the command."""

import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax.data.prepare.verify import verify
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError
from tests.dataset_writer import create_dataset


def test_verify_intact_dataset(prepared, capsys):
    verify(prepared)
    assert "all 39 images in 6 files are intact" in capsys.readouterr().err


def test_verify_detects_bit_flips(prepared, capsys):
    """Check that `verify` reports a flipped bit, and that reading the damaged record raises an error."""
    path = prepared / "train-00001.array_record"
    content = path.read_bytes()
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    rng = np.random.default_rng(0)
    for index, record in enumerate(records):
        offset = content.index(record) + rng.integers(len(record))
        path.write_bytes(content[:offset] + bytes([content[offset] ^ (1 << rng.integers(8))]) + content[offset + 1 :])
        with pytest.raises(UserError, match=r"is damaged \(errors: 2\)"):
            verify(prepared)
        messages = capsys.readouterr().err
        assert "train-00001.array_record: checksum mismatch" in messages
        assert f"train-00001.array_record: record {index}: " in messages
        for other, expected_record in enumerate(records):
            reader = ArrayRecordReader(str(path))
            if other == index:
                with pytest.raises((RuntimeError, ValueError)):
                    reader.read([index])
            else:
                assert reader.read([other]) == [expected_record]
                reader.close()
    path.write_bytes(content)
    verify(prepared)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "checksum mismatch"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "checksum mismatch"),
    ],
    ids=["missing", "empty", "cut short"],
)
def test_verify_names_damaged_files(prepared, capsys, damage, message):
    damage(prepared / "validation-00000.array_record")
    with pytest.raises(UserError, match=r"is damaged \("):
        verify(prepared)
    assert f"validation-00000.array_record: {message}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"validation-00000\.array_record.*: delete it and prepare it again"):
        open_dataset(prepared)


def test_verify_checks_images_and_labels(tmp_path, capsys):
    with create_dataset(tmp_path / "out", ["a", "b"], size=8) as writer:
        writer.write("train", Record(b"not a JPEG", 0, "x"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"is damaged \(errors: 1\)"):
        verify(tmp_path / "out")
    with create_dataset(tmp_path / "raw", ["a", "b"], size=8, encoding="raw") as writer:
        writer.write("train", Record(bytes(192), 1, "valid"), np.zeros((8, 8, 3), np.uint8))
        writer.write("validation", Record(bytes(191), 1, "short"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"is damaged \(errors: 1\)"):
        verify(tmp_path / "raw")
    assert "validation-00000.array_record: record 0: short has 191 bytes, expected 192" in capsys.readouterr().err


def test_verify_folder_without_dataset(tmp_path):
    with pytest.raises(UserError, match="is not a prepared data set"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --from SOURCE --to data/NAME"),
        (["--from", "x"], "pass --from SOURCE --to data/NAME"),
        (["--from", "nowhere", "--to", "out"], "error: nowhere does not exist"),
        (["--from", ".", "--to", "out", "--held-out", "1.5"], "less than 1"),
    ],
)
def test_cli_errors(tmp_path, monkeypatch, capsys, arguments, message):
    from alexnet_jax.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "prepare", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 1
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1


def test_cli_prepare_and_verify(sharded_photos, tmp_path, monkeypatch, capsys):
    from alexnet_jax.cli.main import main

    for arguments in (["--from", str(sharded_photos), "--to", "out", "--size", "16", "--raw"], ["--verify", "out"]):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", "prepare", *arguments])
        main()
    assert open_dataset(tmp_path / "out").manifest.encoding == "raw"
    assert capsys.readouterr().out == "out\n"
