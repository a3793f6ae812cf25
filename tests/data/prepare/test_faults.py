"""Whatever stops the work, nothing half-written carries the final name, and the same command completes it, byte for byte."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from alexnet_jax.data.prepare import convert as prepare_module
from alexnet_jax.data.prepare import shards
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.prepare.shards import Plan, new_dataset, working_on
from alexnet_jax.data.prepare.verify import verify
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError

SMALL = PrepareOptions(size=16)


@pytest.fixture(autouse=True)
def shards_of_eight(monkeypatch):
    monkeypatch.setattr(prepare_module, "SMALLEST_SHARD", 8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """30 pictures for training, 10 for validation: 4 shards and 2. One cannot be read."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, images in (("train", 15), ("val", 5)):
        for name in ("cat", "dog"):
            for i in range(images):
                path = root / split / name / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (18, 20, 3), np.uint8)).save(path)
    (root / "train" / "dog" / "03.png").write_bytes(b"no picture")
    return root


def tree(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The tree that every way to it has to give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module, "SMALLEST_SHARD", 8)
        found = tree(prepare_path(photos, tmp_path_factory.mktemp("whole") / "out", SMALL).path)
    assert sorted(found) == [
        "manifest.json",
        "mean_image.npy",
        *(f"train-0000{i}.array_record" for i in range(4)),
        "validation-00000.array_record",
        "validation-00001.array_record",
    ]
    return found


class Killed(BaseException):
    """The process dies here."""


def dying(monkeypatch, moments):
    """Makes everything that leaves a trace on the disk count down and, at zero, die: half of it before, half after its effect."""
    left = {"moments": moments}

    def counting(function):
        def counted(*args, **kwargs):
            left["moments"] -= 1
            last = left["moments"] == 0
            if last and moments % 2:
                raise Killed
            result = function(*args, **kwargs)
            if last:
                raise Killed
            return result

        return counted

    for owner, name in (
        (Path, "rename"),
        (Path, "mkdir"),
        (Path, "write_text"),
        (os, "fsync"),
        (np, "save"),
        (shards.msgpack, "pack"),
        (shards.shutil, "rmtree"),
        (os, "rmdir"),
        (os, "unlink"),
        (shards.ShardWriter, "write"),
    ):
        monkeypatch.setattr(owner, name, counting(getattr(owner, name)))
    return left


def test_it_may_die_at_any_moment(photos, tmp_path, whole):
    moments = 0
    while True:
        moments += 1
        out = tmp_path / str(moments) / "out"
        left = {}
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            left = dying(patch, moments)
            prepare_path(photos, out, SMALL)
        if left["moments"] > 0:
            break
        if out.exists():
            assert tree(out) == whole, "what carries the name is complete"
        assert tree(prepare_path(photos, out, SMALL).path) == whole
        assert os.listdir(out.parent) == ["out"]
    assert moments > 70


def test_dying_again_and_again_gets_there(photos, tmp_path, whole):
    out = tmp_path / "out"
    for _ in range(40):
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, 19)
            try:
                prepare_path(photos, out, SMALL)
                break
            except Killed:
                assert not out.exists() or tree(out) == whole
    assert tree(out) == whole


SCRIPT = """
import sys
from pathlib import Path
from alexnet_jax.data.prepare import convert as prepare
prepare.SMALLEST_SHARD = 8
prepare.prepare_path(sys.argv[1], Path(sys.argv[2]), prepare.Settings(size=16))
"""


def test_kill_9(photos, tmp_path, whole):
    """Killed when some shards are finished, twice, then left alone."""
    out = tmp_path / "out"
    for stop_at in (1, 3, None):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, photos, out], stderr=subprocess.PIPE)
        while process.poll() is None and stop_at is not None:
            if len(list(tmp_path.glob(".out.partial/reports/*"))) >= stop_at:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        _, said = process.communicate()
    assert b"going on after" in said or process.returncode == 0
    assert process.returncode == 0, said
    assert tree(out) == whole
    assert os.listdir(tmp_path) == ["out"]


def test_the_number_of_threads_changes_nothing(photos, tmp_path, whole):
    assert tree(prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, threads=1)).path) == whole
    assert tree(prepare_path(photos, tmp_path / "more" / "out", PrepareOptions(size=16, threads=7)).path) == whole


def test_the_same_command_again_does_nothing(photos, tmp_path, capsys):
    path = prepare_path(photos, tmp_path / "out", SMALL).path
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    capsys.readouterr()
    prepare_path(photos, path, SMALL)
    assert "is complete already" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    with pytest.raises(UserError, match="exists and is something else"):
        prepare_path(photos, path, PrepareOptions(size=8))


def test_finished_shards_are_not_made_again(photos, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        dying(patch, 60)
        with pytest.raises(Killed):
            prepare_path(photos, tmp_path / "out", SMALL)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.partial/data/*.array_record")}
    assert len(finished) >= 2
    prepare_path(photos, tmp_path / "out", SMALL)
    assert f"going on after {sum([8, 8, 8, 6, 8, 2][: len(finished)])} images" in capsys.readouterr().err
    assert all((tmp_path / "out" / path.name).stat().st_mtime_ns == time for path, time in finished.items())


@pytest.mark.parametrize("change", ["settings", "source"])
def test_work_by_another_plan_is_thrown_away(photos, tmp_path, monkeypatch, capsys, whole, change):
    before = photos / "train" / "cat" / "extra.png"
    if change == "source":
        Image.new("RGB", (9, 9)).save(before)
    with monkeypatch.context() as patch:
        dying(patch, 60)
        with pytest.raises(Killed):
            prepare_path(photos, tmp_path / "out", PrepareOptions(size=8) if change == "settings" else SMALL)
    before.unlink(missing_ok=True)
    assert tree(prepare_path(photos, tmp_path / "out", SMALL).path) == whole
    assert "starting anew" in capsys.readouterr().err


@pytest.mark.parametrize("moment", range(1, 12))
def test_it_may_die_while_work_is_thrown_away(photos, tmp_path, whole, moment):
    for settings, moments in ((SMALL, 60), (PrepareOptions(size=8), moment)):
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            dying(patch, moments)
            prepare_path(photos, tmp_path / "out", settings)
    assert tree(prepare_path(photos, tmp_path / "out", SMALL).path) == whole


def test_two_at_once_are_one_too_many(photos, tmp_path):
    with working_on(tmp_path / "out", Plan(["a"], 8)), pytest.raises(UserError, match="another process is preparing"):
        prepare_path(photos, tmp_path / "out", SMALL)


def test_a_full_disk_is_said_and_the_work_goes_on(photos, tmp_path, capsys, whole):
    """A limit on the size of files stands for the disk: the manifest fits, the third shard does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"no room left for .*out \(File too large\): make some and run this again"):
            prepare_path(photos, tmp_path / "out", SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out").exists()
    assert tree(prepare_path(photos, tmp_path / "out", SMALL).path) == whole


def test_a_folder_that_cannot_be_written_is_said(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/out: Not a directory"):
        prepare_path(photos, tmp_path / "file" / "out", SMALL)


def test_too_many_bad_pictures_are_an_error(photos, tmp_path, whole):
    with pytest.raises(UserError, match=r"1 images cannot be read, the last train/dog/03\.png; .* raise --max-bad"):
        prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, max_bad=0))
    dataset = prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, max_bad=1))
    assert tree(dataset.path) == whole
    assert list(dataset.manifest.skipped) == ["train/dog/03.png"]
    assert dataset.manifest.counts == {"train": [15, 14], "validation": [5, 5]}


def test_a_shard_without_a_readable_picture_is_left_out(tmp_path):
    for name, images in (("a", 8), ("b", 8)):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "train" / name / f"{i}.png")
    for path in (tmp_path / "photos" / "train" / "a").iterdir():
        path.write_bytes(b"")
    dataset = prepare_path(tmp_path / "photos", tmp_path / "out", SMALL)
    assert [shard.file for shard in dataset.manifest.shards["train"]] == ["train-00001.array_record"]
    assert dataset.manifest.splits == {"train": 8}
    assert len(dataset.manifest.skipped) == 8
    verify(dataset.path)


def test_no_readable_picture_is_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        (tmp_path / "photos" / "train" / name / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the training images can be read"):
        prepare_path(tmp_path / "photos", tmp_path / "out")


@pytest.fixture
def prepared(photos, tmp_path):
    return prepare_path(photos, tmp_path / "out", SMALL).path


def test_verify_reads_everything(prepared, capsys):
    verify(prepared)
    assert "all 39 images in 6 files are whole" in capsys.readouterr().err


def test_no_flipped_bit_passes(prepared, capsys):
    """Found by `--verify`, and by whoever reads the record: never other bytes."""
    path = prepared / "train-00001.array_record"
    whole = path.read_bytes()
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    rng = np.random.default_rng(0)
    for index, record in enumerate(records):
        place = whole.index(record) + rng.integers(len(record))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
        with pytest.raises(UserError, match="is damaged in 2 places"):
            verify(prepared)
        said = capsys.readouterr().err
        assert "train-00001.array_record: the checksum differs" in said
        assert f"train-00001.array_record: record {index}: " in said
        for other, expected in enumerate(records):
            reader = ArrayRecordReader(str(path))
            if other == index:
                with pytest.raises((RuntimeError, ValueError)):
                    reader.read([index])
            else:
                assert reader.read([other]) == [expected]
                reader.close()
    path.write_bytes(whole)
    verify(prepared)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "the checksum differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "the checksum differs"),
    ],
    ids=["missing", "empty", "cut short"],
)
def test_damaged_files_are_named(prepared, capsys, damage, message):
    damage(prepared / "validation-00000.array_record")
    with pytest.raises(UserError, match="is damaged in"):
        verify(prepared)
    assert f"validation-00000.array_record: {message}" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"validation-00000\.array_record.*: delete it and prepare it again"):
        open_dataset(prepared)


def test_verify_looks_at_images_and_labels(tmp_path, capsys):
    with new_dataset(tmp_path / "out", ["a", "b"], size=8) as writer:
        writer.write("train", Record(b"no JPEG", 0, "x"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is damaged in 1 places"):
        verify(tmp_path / "out")
    with new_dataset(tmp_path / "raw", ["a", "b"], size=8, encoding="raw") as writer:
        writer.write("train", Record(bytes(192), 1, "whole"), np.zeros((8, 8, 3), np.uint8))
        writer.write("validation", Record(bytes(191), 1, "short"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is damaged in 1 places"):
        verify(tmp_path / "raw")
    assert "validation-00000.array_record: record 0: short has 191 bytes" in capsys.readouterr().err


def test_verify_of_what_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match="is no prepared data set"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to prepare and where to"),
        (["--from", "x"], "say what to prepare and where to"),
        (["--from", "nowhere", "--to", "out"], "error: nowhere is not a folder"),
        (["--from", ".", "--to", "out", "--held-out", "1.5"], "from 0 to 1"),
    ],
)
def test_the_command_ends_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    from alexnet_jax.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "prepare", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_command_prepares_and_verifies(photos, tmp_path, monkeypatch, capsys):
    from alexnet_jax.cli.main import main

    for arguments in (["--from", str(photos), "--to", "out", "--size", "16", "--raw"], ["--verify", "out"]):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", "prepare", *arguments])
        main()
    assert open_dataset(tmp_path / "out").manifest.encoding == "raw"
    assert capsys.readouterr().out == "out\n"
