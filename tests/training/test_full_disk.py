"""Tests that a full disk causes a one-line error and leaves earlier files intact."""

import errno
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
from tests.conftest import process_environment
from tests.training.test_checkpoint import CONFIG, restore, state

FULL = Path("/dev/full")  # every write to this device fails with ENOSPC
ROOT = Path(__file__).parents[2]

on_linux = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@contextmanager
def small_disk(folder):
    """Mount a file system of two megabytes at the folder; skip the test without permission."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True).returncode:
        pytest.skip("needs permission to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def small_files(folder):
    """Limit the size of every file to 0.5 MB, which requires no permission."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Orbax abandons pending writes, which raise later; pytest replaces the hook by which training.checkpoint ignores these errors.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("limit", [small_disk, small_files])
def test_failed_save_keeps_earlier_checkpoint(limit, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 40})  # simulate a disk that fills up during the write
    monkeypatch.setattr(alexnet_jax.training.checkpoint.shutil, "disk_usage", lambda _: usage)
    with limit(tmp_path):
        checkpoints = Checkpoints(tmp_path, CONFIG)
        checkpoints.save(state(1), {"errors": []})
        checkpoints.save(state(2, width=100_000), {"errors": []})
        with pytest.raises(UserError, match=r"no space left on the disk for a checkpoint in .*; earlier checkpoints are intact"):
            checkpoints.close()
        assert int(restore(tmp_path)[0].step) == 1


@on_linux
def test_log_result_and_events_raise(tmp_path):
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    for name in ("log.jsonl", ".result.json.partial", ".log.jsonl.partial"):
        (run.folder / name).symlink_to(FULL)
    with pytest.raises(UserError, match=r"no space left on the disk for .*/run/log.jsonl$"):
        run.log(step=1, loss=2.0)
    with pytest.raises(UserError, match=r"no space left on the disk for .*/run/result.json$"):
        run.write("result.json", {})
    assert run.result is None
    events = EventWriter(run.folder / "tensorboard", start=0)
    (file,) = (run.folder / "tensorboard").iterdir()
    file.unlink()
    file.symlink_to(FULL)
    with pytest.raises(UserError, match=f"no space left on the disk for {file}"):
        events.write(1, "train", loss=2.0)


@on_linux
def test_log_is_unchanged_if_resuming_fails(tmp_path):
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    run.log(step=1, loss=2.0)
    run.log(step=2, loss=1.0)
    (run.folder / ".log.jsonl.partial").symlink_to(FULL)
    with pytest.raises(UserError, match="no space left"):
        run.resume_log(1, epochs=0)
    assert [line["step"] for line in run.log_lines()] == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_training_exits_with_error_and_resumes_later(photos, tmp_path):
    command = [
        sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--batch-size", "16", "--epochs", "40", "--keep-schedule",
        "--data", str(photos), "--data-dir", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--checkpoint-seconds", "0",
    ]  # fmt: skip
    environment = process_environment()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not saved_steps(tmp_path / "run"):
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    _, output = process.communicate(timeout=600)
    assert process.returncode == 1
    assert re.search(
        "^error: no space left on the disk for a checkpoint in .*; earlier checkpoints are intact$", output, re.MULTILINE
    )
    assert "Traceback" not in output
    last_step = max(saved_steps(tmp_path / "run"))
    resumed = subprocess.run([*command, "--epochs", "1"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0
    assert f"resuming at step {last_step}:" in resumed.stderr or "is finished" in resumed.stderr


def saved_steps(run):
    """Return the steps of the complete checkpoints."""
    return [int(file.name) for file in run.glob("checkpoints/*") if file.name.isdecimal()]


def test_other_os_errors_are_not_converted(tmp_path):
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    (run.folder / "log.jsonl").mkdir()
    with pytest.raises(OSError, match="directory") as error:
        run.log(step=1, loss=2.0)
    assert error.value.errno == errno.EISDIR
