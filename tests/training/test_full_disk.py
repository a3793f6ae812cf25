"""A disk that fills up: one clear line, and what was there before is whole."""

import errno
import os
import re
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import alexnet_jax.training.checkpoint
from alexnet_jax.errors import UserError
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.tensorboard import EventWriter
from tests.training.test_checkpoint import CONFIG, restored, state

FULL = Path("/dev/full")  # every write to it fails as on a full disk
ROOT = Path(__file__).parents[2]

on_linux = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@contextmanager
def small_disk(folder):
    """A disk of two megabytes."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def small_files(folder):
    """No file may be larger than half a megabyte, which anybody can have the system see to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Orbax leaves writes behind that complain; what alexnet_jax.training.checkpoint makes of that, pytest puts its own in place of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("too_small", [small_disk, small_files])
def test_a_save_that_fails_halfway_leaves_the_checkpoint_before(too_small, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 40})  # as if the room had gone while the files were written
    monkeypatch.setattr(alexnet_jax.training.checkpoint.shutil, "disk_usage", lambda _: usage)
    with too_small(tmp_path):
        checkpoints = Checkpoints(tmp_path, CONFIG)
        checkpoints.save(state(1), {"errors": []})
        checkpoints.save(state(2, width=100_000), {"errors": []})
        with pytest.raises(UserError, match=r"no room left on the disk for a checkpoint in .*; earlier ones are whole"):
            checkpoints.close()
        assert int(restored(tmp_path)[0].step) == 1


@on_linux
def test_the_log_and_the_result_say_so(tmp_path):
    run = RunDirectory(tmp_path / "run", fresh=False)
    for name in ("log.jsonl", ".result.json.partial", ".log.jsonl.partial"):
        (run.folder / name).symlink_to(FULL)
    with pytest.raises(UserError, match=r"no room left on the disk for .*/run/log.jsonl$"):
        run.log(step=1, loss=2.0)
    with pytest.raises(UserError, match=r"no room left on the disk for .*/run/result.json$"):
        run.write("result.json", {})
    assert run.result is None
    events = EventWriter(run.folder / "tensorboard", start=0)
    (file,) = (run.folder / "tensorboard").iterdir()
    file.unlink()
    file.symlink_to(FULL)
    with pytest.raises(UserError, match=f"no room left on the disk for {file}"):
        events.write(1, "train", loss=2.0)


@on_linux
def test_a_log_that_cannot_be_cut_off_stays(tmp_path):
    run = RunDirectory(tmp_path / "run", fresh=False)
    run.log(step=1, loss=2.0)
    run.log(step=2, loss=1.0)
    (run.folder / ".log.jsonl.partial").symlink_to(FULL)
    with pytest.raises(UserError, match="no room left"):
        run.resume_log(1, epochs=0)
    assert [line["step"] for line in run.log_lines()] == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_training_ends_with_a_line_and_goes_on_when_there_is_room(photos, tmp_path):
    command = [
        sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--batch-size", "16", "--epochs", "40",
        "--data", str(photos), "--data-dir", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--checkpoint-seconds", "0",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not whole(tmp_path / "run"):
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert re.search("^error: no room left on the disk for a checkpoint in .*; earlier ones are whole$", said, re.MULTILINE)
    assert "Traceback" not in said
    saved = max(whole(tmp_path / "run"))
    again = subprocess.run([*command, "--epochs", "1"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert f"from step {saved} in" in again.stderr or "is finished" in again.stderr


def whole(run):
    """Steps of the checkpoints that are there."""
    return [int(file.name) for file in run.glob("checkpoints/*") if file.name.isdecimal()]


def test_other_errors_stay_what_they_are(tmp_path):
    run = RunDirectory(tmp_path / "run", fresh=False)
    (run.folder / "log.jsonl").mkdir()
    with pytest.raises(OSError, match="directory") as error:
        run.log(step=1, loss=2.0)
    assert error.value.errno == errno.EISDIR
