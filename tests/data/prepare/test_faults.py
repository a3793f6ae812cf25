"""Tests of `prepare` under interruptions: no partial data set at the final path, and bit-identical data sets after resuming."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.prepare import convert, shards
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.data.prepare.verify import verify
from alexnet_jax.errors import UserError
from alexnet_jax.files import wait_for_lock
from tests.data.prepare.conftest import OPTIONS

pytestmark = pytest.mark.usefixtures("eight_images_per_shard")


@pytest.fixture(scope="module")
def photos(sharded_photos):
    return sharded_photos


def file_hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
    """File hashes of an uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "MIN_SHARD_IMAGES", 8)
        hashes = file_hashes(prepare_path(photos, tmp_path_factory.mktemp("expected") / "out", OPTIONS).path)
    assert sorted(hashes) == [
        "manifest.json",
        "mean_image.npy",
        *(f"train-0000{i}.array_record" for i in range(4)),
        "validation-00000.array_record",
        "validation-00001.array_record",
    ]
    return hashes


class Killed(BaseException):
    """Raised to simulate a kill of the process."""


def kill_at(monkeypatch, step):
    """Raise `Killed` at the `step`-th file system operation, before the operation if `step` is odd and after it if even."""
    remaining = {"steps": step}

    def counting(function):
        def counted(*args, **kwargs):
            remaining["steps"] -= 1
            is_last = remaining["steps"] == 0
            if is_last and step % 2:
                raise Killed
            result = function(*args, **kwargs)
            if is_last:
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
    return remaining


def test_resume_after_kill_at_every_step(photos, tmp_path, expected):
    step = 0
    while True:
        step += 1
        out = tmp_path / str(step) / "out"
        remaining = {}
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            remaining = kill_at(patch, step)
            prepare_path(photos, out, OPTIONS)
        if remaining["steps"] > 0:
            break
        if out.exists():
            assert file_hashes(out) == expected, "a data set at its final path must be complete"
        assert file_hashes(prepare_path(photos, out, OPTIONS).path) == expected
        assert os.listdir(out.parent) == ["out"]
    assert step > 70


def test_resume_after_repeated_kills(photos, tmp_path, expected):
    out = tmp_path / "out"
    for _ in range(40):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, 19)
            try:
                prepare_path(photos, out, OPTIONS)
                break
            except Killed:
                assert not out.exists() or file_hashes(out) == expected
    assert file_hashes(out) == expected


SCRIPT = """
import sys
from pathlib import Path
from alexnet_jax.data.prepare import convert
convert.MIN_SHARD_IMAGES = 8
convert.prepare_path(sys.argv[1], Path(sys.argv[2]), convert.PrepareOptions(size=16))
"""


def test_resume_after_sigkill(photos, tmp_path, expected):
    """Kill the process after one shard and after three shards, then let it finish."""
    out = tmp_path / "out"
    for num_shards in (1, 3, None):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, photos, out], stderr=subprocess.PIPE)
        while process.poll() is None and num_shards is not None:
            if len(list(tmp_path.glob(".out.partial/reports/*"))) >= num_shards:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        _, stderr = process.communicate()
    assert b"resuming after" in stderr or process.returncode == 0
    assert process.returncode == 0, stderr
    assert file_hashes(out) == expected
    assert os.listdir(tmp_path) == ["out"]


def test_result_is_independent_of_threads(photos, tmp_path, expected):
    assert file_hashes(prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, threads=1)).path) == expected
    assert file_hashes(prepare_path(photos, tmp_path / "seven" / "out", PrepareOptions(size=16, threads=7)).path) == expected


def test_complete_dataset_is_not_changed(photos, tmp_path, capsys):
    path = prepare_path(photos, tmp_path / "out", OPTIONS).path
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    capsys.readouterr()
    prepare_path(photos, path, OPTIONS)
    assert "is already complete" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    with pytest.raises(UserError, match="exists with different content"):
        prepare_path(photos, path, PrepareOptions(size=8))


def test_finished_shards_are_not_rewritten(photos, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        kill_at(patch, 60)
        with pytest.raises(Killed):
            prepare_path(photos, tmp_path / "out", OPTIONS)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.partial/data/*.array_record")}
    assert len(finished) >= 2
    prepare_path(photos, tmp_path / "out", OPTIONS)
    assert f"resuming after {sum([8, 8, 8, 6, 8, 2][: len(finished)])} images" in capsys.readouterr().err
    assert all((tmp_path / "out" / path.name).stat().st_mtime_ns == time for path, time in finished.items())


@pytest.mark.parametrize("content", [b"", b"x", b"\x01"])
def test_shard_with_a_damaged_report_is_written_again(photos, tmp_path, monkeypatch, expected, content):
    with monkeypatch.context() as patch:
        kill_at(patch, 60)
        with pytest.raises(Killed):
            prepare_path(photos, tmp_path / "out", OPTIONS)
    (tmp_path / ".out.partial" / "reports" / "train-00000").write_bytes(content)
    assert file_hashes(prepare_path(photos, tmp_path / "out", OPTIONS).path) == expected


@pytest.mark.parametrize("change", ["options", "source"])
def test_partial_dataset_of_different_plan_is_discarded(photos, tmp_path, monkeypatch, capsys, expected, change):
    extra = photos / "train" / "cat" / "extra.png"
    if change == "source":
        Image.new("RGB", (9, 9)).save(extra)
    with monkeypatch.context() as patch:
        kill_at(patch, 60)
        with pytest.raises(Killed):
            prepare_path(photos, tmp_path / "out", PrepareOptions(size=8) if change == "options" else OPTIONS)
    extra.unlink(missing_ok=True)
    assert file_hashes(prepare_path(photos, tmp_path / "out", OPTIONS).path) == expected
    assert "starting over" in capsys.readouterr().err


@pytest.mark.parametrize("step", range(1, 12))
def test_resume_after_kill_while_discarding(photos, tmp_path, expected, step):
    for options, kill_step in ((OPTIONS, 60), (PrepareOptions(size=8), step)):
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            kill_at(patch, kill_step)
            prepare_path(photos, tmp_path / "out", options)
    assert file_hashes(prepare_path(photos, tmp_path / "out", OPTIONS).path) == expected


@pytest.mark.parametrize("finished", [True, False])
def test_second_process_waits_for_first(photos, tmp_path, capsys, expected, finished):
    """The second process opens the data set if the first has finished it, and else prepares it."""
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    with ThreadPoolExecutor() as pool:
        with wait_for_lock(partial / "lock", "not locked yet"):
            second = pool.submit(prepare_path, photos, out, OPTIONS)
            printed = ""
            while "another process is preparing" not in printed and not second.done():
                time.sleep(0.01)
                printed += capsys.readouterr().err
            if finished:
                prepare_path(photos, tmp_path / "elsewhere" / "out", OPTIONS).path.rename(out)
                shutil.rmtree(partial)
        assert second.result(timeout=60).path == out
    assert ("already complete" in capsys.readouterr().err) == finished
    assert file_hashes(out) == expected
    assert not partial.exists()


def test_resume_after_full_disk(photos, tmp_path, capsys, expected):
    """Simulate a full disk by a limit on the file size that the third shard exceeds."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"no space left for .*out \(File too large\): free some space and run the same command again"
        ):
            prepare_path(photos, tmp_path / "out", OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out").exists()
    assert file_hashes(prepare_path(photos, tmp_path / "out", OPTIONS).path) == expected


def test_unwritable_folder(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/out: Not a directory"):
        prepare_path(photos, tmp_path / "file" / "out", OPTIONS)


@pytest.mark.parametrize("place", [".out.partial/notes.txt", "out"])
def test_what_the_user_has_at_the_places_to_write_to_is_left_alone(photos, tmp_path, place):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / place).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"partial contains notes.txt, .*: move it|out already exists .*: choose a"):
        prepare_path(photos, tmp_path / "out", OPTIONS)
    assert (tmp_path / place).is_symlink()


def test_max_bad(photos, tmp_path, expected):
    with pytest.raises(UserError, match=r"1 image cannot be read, most recently train/dog/03\.png; .* raise --max-bad"):
        prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, max_bad=0))
    dataset = prepare_path(photos, tmp_path / "out", PrepareOptions(size=16, max_bad=1))
    assert file_hashes(dataset.path) == expected
    assert list(dataset.manifest.skipped) == ["train/dog/03.png"]
    assert dataset.manifest.counts == {"train": [15, 14], "validation": [5, 5]}


def test_shard_without_readable_images_is_omitted(tmp_path):
    for name, images in (("a", 9), ("b", 7)):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "train" / name / f"{i}.png")
    for path in sorted((tmp_path / "photos" / "train" / "a").iterdir())[:8]:
        path.write_bytes(b"not an image")
    dataset = prepare_path(tmp_path / "photos", tmp_path / "out", OPTIONS)
    assert [shard.file for shard in dataset.manifest.shards["train"]] == ["train-00001.array_record"]
    assert dataset.manifest.splits == {"train": 8}
    assert len(dataset.manifest.skipped) == 8
    verify(dataset.path)


def test_no_readable_training_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        (tmp_path / "photos" / "train" / name / "1.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match="none of the training images can be read"):
        prepare_path(tmp_path / "photos", tmp_path / "out")


def test_no_readable_validation_images(photos, tmp_path):
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    for path in (copy / "val").rglob("*.*"):
        path.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"no validation image can be read \(val/\S+: .*\): replace or remove these images"):
        prepare_path(copy, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
