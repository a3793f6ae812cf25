"""Tests of checkpoints: damaged files, retention and metadata."""

import errno
import json
import os
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.training import checkpoint as checkpoint_module
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.checkpoint_reader import _read_error, first_sentence
from alexnet_jax.training.step import TrainState
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, read_log

CONFIG = {"network": ["tiny"], "data": {"checksum": "1"}, "seed": 0}


def state(step, width=20):
    kernel = jnp.asarray(np.random.default_rng(step).normal(size=(2, 50, width)), jnp.float32)
    return TrainState(jnp.asarray(step, jnp.int32), {"fc": {"kernel": kernel}}, {"fc": {"kernel": kernel + 1}})


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))


def save(folder, steps, best_step=None):
    checkpoints = Checkpoints(folder, CONFIG)
    for step in steps:
        checkpoints.save(state(step), {"errors": [0.5] * step}, best_step=best_step)
    checkpoints.close()


def restore(folder):
    checkpoints = Checkpoints(folder, CONFIG)
    restored = checkpoints.restore(LIKE)
    checkpoints.close()
    assert restored is not None
    return restored


def list_files(folder):
    return [file for file in folder.rglob("*") if file.is_file()]


def files_in(folder):
    return {file.relative_to(folder): file.read_bytes() for file in list_files(folder)}


def largest_file(folder):
    """Return the largest file of the state, which contains the arrays."""
    return max(list_files(folder / "state"), key=lambda file: file.stat().st_size)


def flip_bit(file, position):
    """Flip a bit of a file; `position` is a fraction of its length."""
    data = bytearray(file.read_bytes())
    data[int(position * len(data))] ^= 1
    file.write_bytes(data)


def replace_text(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def truncate(*files):
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = {
    "all files truncated": lambda checkpoint: truncate(*list_files(checkpoint)),
    "all files empty": lambda checkpoint: [file.write_bytes(b"") for file in list_files(checkpoint)],
    "arrays truncated": lambda checkpoint: truncate(largest_file(checkpoint)),
    "bit flipped at 20 %": lambda checkpoint: flip_bit(largest_file(checkpoint), 0.2),
    "bit flipped at 50 %": lambda checkpoint: flip_bit(largest_file(checkpoint), 0.5),
    "bit flipped at 80 %": lambda checkpoint: flip_bit(largest_file(checkpoint), 0.8),
    "arrays missing": lambda checkpoint: largest_file(checkpoint).unlink(),
    "state missing": lambda checkpoint: shutil.rmtree(checkpoint / "state"),
    "metadata missing": lambda checkpoint: shutil.rmtree(checkpoint / "metadata"),
    "metadata truncated": lambda checkpoint: truncate(*list_files(checkpoint / "metadata")),
    "metadata edited": lambda checkpoint: replace_text(checkpoint / "metadata" / "metadata", "0.5", "0.25"),
    "empty folder": lambda checkpoint: [shutil.rmtree(checkpoint), checkpoint.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_checkpoint_falls_back_to_the_one_before(damage, tmp_path, capsys):
    run, tmp_path = tmp_path, tmp_path / "checkpoints"
    save(tmp_path, (1, 2, 3))
    damage(tmp_path / "3")
    damaged = files_in(tmp_path / "3")
    restored, metadata = restore(tmp_path)
    assert metadata["errors"] == [0.5, 0.5]
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))
    output = capsys.readouterr().err
    assert re.fullmatch(
        r"cannot read the checkpoint of step 3 \(.{10,100}\)\nmoved the damaged checkpoint to .*damaged/3\n", output
    )
    assert files_in(run / "damaged" / "3") == damaged
    save(tmp_path, (3,))  # repeat the step, as a resumed run does
    assert int(restore(tmp_path)[0].step) == 3
    assert capsys.readouterr().err == ""


def test_nothing_is_deleted_if_no_checkpoint_can_be_read(tmp_path):
    save(tmp_path, (1, 2))
    for step in ("1", "2"):
        flip_bit(largest_file(tmp_path / step), 0.5)
    with pytest.raises(UserError, match=r"cannot read any checkpoint in .*: pass --fresh to start over"):
        restore(tmp_path)
    assert {"1", "2"} <= set(os.listdir(tmp_path))


SYSTEM_ERRORS = {
    "permission": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "failing disk": OSError(errno.EIO, os.strerror(errno.EIO)),
    "open files, in TensorStore's words": ValueError(
        f"RESOURCE_EXHAUSTED: Error opening local file: {os.strerror(errno.EMFILE)}"
    ),
    "memory": MemoryError(),
    "memory of the system, in TensorStore's words": ValueError(f"Error: {os.strerror(errno.ENOMEM)} [errno 12]"),
}


@pytest.mark.parametrize("error", SYSTEM_ERRORS.values(), ids=SYSTEM_ERRORS.keys())
@pytest.mark.parametrize("nested", [False, True])
def test_errors_of_the_system_are_not_taken_for_damage(error, nested, tmp_path, monkeypatch):
    save(tmp_path / "checkpoints", (1, 2))
    before = files_in(tmp_path)

    def fails(*_, **__):
        if nested:
            raise ValueError("cannot restore") from error
        raise error

    monkeypatch.setattr(checkpoint_module, "read_arrays", fails)
    with pytest.raises(UserError, match=r"cannot read .*checkpoints/2 \(.*\): it may be intact, so nothing was changed"):
        restore(tmp_path / "checkpoints")
    assert files_in(tmp_path) == before


def test_file_that_cannot_be_opened_stops_and_changes_nothing(tmp_path):
    save(tmp_path / "checkpoints", (1, 2))
    before = files_in(tmp_path)
    file = largest_file(tmp_path / "checkpoints" / "2")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(file.name)  # opening a link to itself fails with ELOOP
    with pytest.raises(UserError, match="nothing was changed"):
        restore(tmp_path / "checkpoints")
    file.unlink()
    (tmp_path / "elsewhere").rename(file)
    assert files_in(tmp_path) == before
    assert int(restore(tmp_path / "checkpoints")[0].step) == 2


def test_first_checkpoint_that_cannot_be_read_back_is_an_error(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ValueError("not there")

    monkeypatch.setattr(checkpoint_module, "read_arrays", fails)
    checkpoints = Checkpoints(tmp_path, CONFIG)
    with pytest.raises(
        UserError, match=r"the first checkpoint in .* cannot be read back \(not there\): choose a different --run"
    ):
        checkpoints.save(state(1), {})
    checkpoints.close()


def test_keeps_latest_and_best_checkpoints(tmp_path):
    save(tmp_path, range(1, 4), best_step=2)
    save(tmp_path, range(4, 7), best_step=2)
    assert sorted(os.listdir(tmp_path)) == ["2", "5", "6"]


def test_held_state_is_saved_before_the_next_checkpoint_or_at_the_end(tmp_path):
    """A held state survives the donation of its arrays to the next step, and is discarded for a later one."""
    donate = jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, CONFIG)
    saved = []
    for step, keep in [(1, "save"), (2, "hold"), (3, "hold"), (4, "save"), (5, "hold"), (5, "save"), (6, "hold"), (7, "hold")]:
        arrays = state(step)
        getattr(checkpoints, keep)(arrays, {"errors": []}, best_step=step)
        donate(arrays)
        saved.append(checkpoints._manager.latest_step())
    assert saved == [1, 1, 1, 4, 4, 5, 5, 5]
    checkpoints.close()
    assert sorted(os.listdir(tmp_path)) == ["5", "7"]
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path)[0], state(7))


@pytest.mark.parametrize("held", [2, 3])
def test_held_state_of_a_diverged_step_is_discarded(held, tmp_path):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    checkpoints.save(state(1), {"errors": []})
    checkpoints.hold(state(held), {"errors": []})
    assert checkpoints.delete_from(3) == min(held, 2) - (held == 3)
    checkpoints.close()
    assert sorted(os.listdir(tmp_path)) == (["1", "2"] if held == 2 else ["1"])


def test_checkpoint_metadata(options):
    """Check the metadata of a training run's checkpoints, and that the best checkpoint is kept."""
    options = replace(options, checkpoint_seconds=1e9)
    folder = train("tiny", replace(TINY_CONFIG, epochs=4), options).run
    errors = [line["top1_error"] for line in read_log(folder) if "epoch" in line]
    best = max(epoch for epoch, error in enumerate(errors, 1) if error == min(errors))
    result = json.loads((folder / "result.json").read_text())
    assert result["best"] == {"step": 10 * best, "top1_error": pytest.approx(min(errors), abs=1e-6)}
    assert {str(10 * best), "40"} <= set(os.listdir(folder / "checkpoints"))
    (file,) = (folder / "checkpoints" / "40" / "metadata").rglob("metadata")
    metadata = json.loads(file.read_text())
    assert metadata["versions"]["jax"] == jax.__version__
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in metadata["config"]} == metadata["config"]
    assert metadata["errors"] == pytest.approx(errors, abs=1e-6)


def test_reason_is_not_cut_inside_a_path(tmp_path):
    checkpoint = tmp_path / "St. John's photos. 2" / "checkpoints" / "10"
    error = FileNotFoundError(f"Metadata file {checkpoint}/metadata does not exist. This is because of {checkpoint}.")
    assert first_sentence(error, checkpoint) == "Metadata file metadata does not exist"
    assert "pass a different checkpoint" in str(_read_error(checkpoint, error))
