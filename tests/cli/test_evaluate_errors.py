"""Tests of the error messages of `evaluate`."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.training.config import TrainConfig
from tests.cli.bands import CLASSES, create_untrained_run
from tests.conftest import TINY, TINY_CONFIG
from tests.dataset_writer import create_dataset


def test_user_errors_print_one_line_and_write_nothing(band_runs, bands, tmp_path, monkeypatch, capsys):
    run = str(band_runs["crop"])

    def assert_fails(message, *arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", "evaluate", *arguments, "--to", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        output = capsys.readouterr()
        assert exit_.value.code == 1
        assert output.out == ""
        assert re.fullmatch(f"error: {message}\n", output.err.splitlines(keepends=True)[-1])
        assert "Traceback" not in output.err
        assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("out/.*"))

    assert_fails("pass one or more run folders or checkpoints: .*")
    assert_fails("/nowhere does not exist: pass a run folder or a checkpoint folder, .*", "/nowhere")
    assert_fails(r"/.*/bands has no split 'tset': choose one of train, validation, test", run, "--split", "tset")
    assert_fails(".*has no split 'tset'.*", run, str(band_runs["large"]), "--search", "tset")
    assert_fails("a network is named twice: pass each one once", run, run)
    assert_fails("--search requires at least two networks.*", run, "--search", "validation")
    assert_fails("no data set '/nowhere'.*", run, "--data", "/nowhere")
    assert_fails("--batch-size must be at least 1, not 0", run, "--batch-size", "0")

    def create_other_dataset(name, classes, size):
        with create_dataset(tmp_path / name, classes, size=size) as writer:
            for split in ("train", "validation"):
                pixels = np.zeros((size, size, 3), np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), 0, "black.jpg"), pixels)
        return str(tmp_path / name)

    assert_fails(
        ".*of 48 pixels, but .*/crop at step 7 needs 32: .* --size 32", run, "--data", create_other_dataset("small", CLASSES, 48)
    )
    missing_data = Path(create_other_dataset("gone", CLASSES, 64))
    missing_data_run = create_untrained_run(open_dataset(missing_data), tmp_path / "untrained", TINY_CONFIG)
    shutil.rmtree(tmp_path / "gone")
    assert_fails(".*/gone does not exist: pass a data set with --data", str(missing_data_run))
    few = create_other_dataset("few", CLASSES[:5], 64)
    assert_fails(
        r"/.*/few does not match .*/crop at step 7 \(5 classes instead of 7\): pass a different --data", run, "--data", few
    )
    renamed = create_other_dataset("renamed", [*CLASSES[:3], "stripe", *CLASSES[4:]], 64)
    assert_fails(r"/.*/renamed does not match .* \(class 3 is 'stripe' instead of 'band 3'\): .*", run, "--data", renamed)
    stripes = create_untrained_run(open_dataset(tmp_path / "renamed"), tmp_path / "stripes", TINY_CONFIG)
    assert_fails(
        r"cannot average .* \(class 3 is 'stripe' instead of 'band 3'\): pass networks with the same classes", run, str(stripes)
    )

    damaged = shutil.copytree(band_runs["crop"], tmp_path / "damaged")
    shutil.rmtree(damaged / "checkpoints" / "7" / "state")
    assert_fails(r"cannot read the checkpoint .*/damaged/checkpoints/7 \(.*\): pass a different checkpoint", str(damaged))
    (damaged / "mean_image.npy").unlink()
    shutil.copytree(band_runs["crop"] / "checkpoints" / "7", damaged / "checkpoints" / "7", dirs_exist_ok=True)
    assert_fails("cannot read .*mean_image.npy .*", str(damaged))
    config = TrainConfig(TINY, augmentation=Augmentation(image_size=32))
    diverged = create_untrained_run(bands, tmp_path / "diverged", config, np.nan)
    message = r".*\.bias in .*diverged at step 7 has 8 values that are infinite or NaN: use weights of an earlier step"
    assert_fails(message, run, str(diverged))
