"""Tests of the files that commands write: errors in one line, whole files or none, and no file of the user overwritten."""

import errno
import fcntl
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis.plots import draw_kernels
from alexnet_jax.errors import UserError
from alexnet_jax.files import atomic_text_writer, atomic_write
from alexnet_jax.weights.trained_model import initialize, load, save
from tests.conftest import TINY_CONFIG, assert_train_raises
from tests.tiny import TINY

FULL = Path("/dev/full")  # every write to this device fails with ENOSPC
LONG = "n" * 300


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(initialize(TINY, classes=["a", "b"], image_size=32), file)
    return file


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    """Working folder with a network, a file, a folder with the name of a network, and one with the name of a module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(model.read_bytes())
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "module.py").mkdir()
    return tmp_path


COMMANDS = {
    "file as folder": ("export tiny.safetensors --to file/x.safetensors", "cannot access file/x.safetensors .Not a directory.: "),
    "folder as file": ("export tiny.safetensors --to folder.safetensors", "cannot access folder.safetensors .Is a directory.: "),
    "folder as module": (
        "export tiny.safetensors --to module.safetensors --layout pytorch",
        "module.py exists and is not a module of an earlier export: ",
    ),
    "long name to write": (f"export tiny.safetensors --to {LONG}.safetensors", f"cannot access {LONG}.safetensors .File name"),
    "long name to read": (f"summary {LONG}", f"cannot access {LONG} .File name too long.: choose a different path"),
    "exported file": (
        "export tiny.safetensors --to ../X/tiny.safetensors --layout pytorch",
        "tiny.safetensors is the file to export: choose a different --to",
    ),
    "imported file": (
        "import tiny.safetensors --to tiny.safetensors",
        "tiny.safetensors is a file to import: choose a different",
    ),
    "loop of links": ("predict tiny.safetensors loop", "loop does not exist: pass a photo"),
    "network in a loop of links": ("summary loop", "there is no network or config 'loop': "),
    "photo with a tilde": ("predict tiny.safetensors ~x.jpg", "~x.jpg does not exist: pass a photo"),
    "unknown user": ("export ~nobody-here/x --to y.safetensors", "nobody-here/x does not exist: pass a run folder"),
    "imported shard": ("import . --to tiny.safetensors", "tiny.safetensors is a file to import: choose a different --to"),
    "picture": ("retrieve tiny.safetensors x.jpg --picture photo.jpg", "photo.jpg must end in .png: pass the name of a PNG file"),
    "contact sheet": ("data show . --to photo.jpg", "photo.jpg must end in .png: pass the name of a PNG file as --to"),
}


def test_home_folder_is_expanded_in_all_paths(folder, run_command, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "home").mkdir()
    run_command("export", "~/../tiny.safetensors", "--to=~/x.safetensors")
    assert load(folder / "home" / "x.safetensors").classes == ["a", "b"]
    assert not (folder / "~").exists()


@pytest.mark.parametrize(("command", "message"), COMMANDS.values(), ids=COMMANDS)
def test_impossible_files_are_refused_in_one_line(folder, run_command, command, message):
    before = {file.name: file.lstat().st_mtime_ns for file in folder.iterdir()}
    error = run_command(*command.replace("X", folder.name).split(), code=1).err
    assert re.fullmatch(f"error: [^\\n]*{message}[^\\n]*\\n", error), error
    assert "Errno" not in error
    assert "partial" not in error
    assert {file.name: file.lstat().st_mtime_ns for file in folder.iterdir()} == before
    assert load(folder / "tiny.safetensors").classes == ["a", "b"]


def test_picture_does_not_replace_a_photo(trained_run, tmp_path, run_command):
    photo, link = tmp_path / "photo.png", tmp_path / "link.png"
    Image.new("RGB", (40, 40)).save(photo)
    link.symlink_to(photo)
    before = photo.read_bytes()
    run_command("index", trained_run, "--to", tmp_path / "index")
    error = run_command("retrieve", tmp_path / "index", tmp_path, "--picture", link, code=1).err
    assert re.search("link.png is one of the photos: choose a different --picture", error)
    assert photo.read_bytes() == before


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_figure_is_unchanged_if_the_disk_is_full(tmp_path):
    file = tmp_path / "kernels.png"
    file.write_bytes(b"earlier")
    (tmp_path / ".kernels.png.partial").symlink_to(FULL)
    with pytest.raises(UserError, match=r"no space left on the disk for .*/kernels.png"):
        draw_kernels(np.ones((1, 3, 3, 3, 4), np.float32), file)
    assert file.read_bytes() == b"earlier"


def test_folder_that_is_not_writable(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".x.json.partial"))

    monkeypatch.setattr(Path, "write_bytes", denied)
    with pytest.raises(UserError, match=r"cannot access \S+/x.json \(Permission denied\): .*, or change its permissions"):
        atomic_write(tmp_path / "x.json", b"")


@pytest.mark.parametrize("locks", [True, False])
def test_two_writers_of_a_file_take_turns(tmp_path, monkeypatch, capsys, locks):
    file = tmp_path / "x.txt"
    if not locks:  # as on some network file systems

        def fails(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", fails)
    with ThreadPoolExecutor() as pool, atomic_text_writer(file) as text:
        text.write("a" * 100_000)
        second = pool.submit(atomic_write, file, b"b" * 10) if locks else None
        printed = ""
        while second and "another process is writing" not in printed and not second.done():
            time.sleep(0.001)
            printed += capsys.readouterr().err
        assert not file.exists()
        text.write("a" * 100_000)
    assert file.read_text() == ("b" * 10 if locks else "a" * 200_000)
    assert list(tmp_path.iterdir()) == [file]


def test_run_among_the_classes_is_refused(options, photos):
    message = "train/above/run is inside .*photos, where it would be read as a class: choose a different --run, or"
    assert_train_raises(message, TINY_CONFIG, replace(options, run=photos / "train" / "above" / "run"))
    assert not (photos / "train" / "above" / "run").exists()
