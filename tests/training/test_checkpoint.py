"""Checkpoints that are damaged, and which of them stay."""

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
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.loop import train
from alexnet_jax.training.step import TrainState
from tests.conftest import TINY_CONFIG, log

CONFIG = {"network": ["tiny"], "seed": 0}


def state(step, width=20):
    kernel = jnp.asarray(np.random.default_rng(step).normal(size=(2, 50, width)), jnp.float32)
    return TrainState(jnp.asarray(step, jnp.int32), {"fc": {"kernel": kernel}}, {"fc": {"kernel": kernel + 1}})


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))


def save(folder, steps, best=None):
    checkpoints = Checkpoints(folder, CONFIG)
    for step in steps:
        checkpoints.save(state(step), {"errors": [0.5] * step}, best=best)
    checkpoints.close()


def restored(folder):
    checkpoints = Checkpoints(folder, CONFIG)
    found = checkpoints.restore(LIKE)
    checkpoints.close()
    assert found is not None
    return found


def files(folder):
    return [file for file in folder.rglob("*") if file.is_file()]


def largest(folder):
    """The file with the numbers."""
    return max(files(folder / "state"), key=lambda file: file.stat().st_size)


def flip(file, place):
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)


def halve(*halved):
    for file in halved:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = {
    "all files cut off": lambda newest: halve(*files(newest)),
    "all files empty": lambda newest: [file.write_bytes(b"") for file in files(newest)],
    "numbers cut off": lambda newest: halve(largest(newest)),
    "a bit flipped early": lambda newest: flip(largest(newest), 0.2),
    "a bit flipped in the middle": lambda newest: flip(largest(newest), 0.5),
    "a bit flipped late": lambda newest: flip(largest(newest), 0.8),
    "numbers gone": lambda newest: largest(newest).unlink(),
    "state gone": lambda newest: shutil.rmtree(newest / "state"),
    "configuration gone": lambda newest: shutil.rmtree(newest / "about"),
    "configuration cut off": lambda newest: halve(*files(newest / "about")),
    "all gone but the folder": lambda newest: [shutil.rmtree(newest), newest.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, tmp_path, capsys):
    save(tmp_path, (1, 2, 3))
    damage(tmp_path / "3")
    found, about = restored(tmp_path)
    assert about["errors"] == [0.5, 0.5]
    jax.tree.map(np.testing.assert_array_equal, found, state(2))
    said = capsys.readouterr().err
    assert re.fullmatch("the checkpoint of step 3 cannot be read: .{10,100}\n", said)
    save(tmp_path, (3,))  # its step is taken again, and saved again
    assert int(restored(tmp_path)[0].step) == 3
    assert capsys.readouterr().err == ""


def test_where_none_can_be_read_nothing_is_deleted(tmp_path):
    save(tmp_path, (1, 2))
    for step in ("1", "2"):
        flip(largest(tmp_path / step), 0.5)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: --fresh starts over"):
        restored(tmp_path)
    assert {"1", "2"} <= set(os.listdir(tmp_path))


def test_the_latest_and_the_best_stay(tmp_path):
    save(tmp_path, range(1, 4), best=2)
    save(tmp_path, range(4, 7), best=2)
    assert sorted(os.listdir(tmp_path)) == ["2", "5", "6"]


def test_a_checkpoint_says_what_it_is_of(options):
    """And a training keeps its best beside its last."""
    options = replace(options, checkpoint_seconds=1e9)
    folder = train("tiny", replace(TINY_CONFIG, epochs=4), options)
    errors = [line["top1_error"] for line in log(folder) if "epoch" in line]
    best = max(epoch for epoch, error in enumerate(errors, 1) if error == min(errors))
    result = json.loads((folder / "result.json").read_text())
    assert result["best"] == {"step": 10 * best, "top1_error": pytest.approx(min(errors), abs=1e-6)}
    assert {str(10 * best), "40"} <= set(os.listdir(folder / "checkpoints"))
    (about,) = (folder / "checkpoints" / "40" / "about").rglob("metadata")
    saved = json.loads(about.read_text())
    assert saved["versions"]["jax"] == jax.__version__
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in saved["config"]} == saved["config"]
    assert saved["errors"] == pytest.approx(errors, abs=1e-6)
