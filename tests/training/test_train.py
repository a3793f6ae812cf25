"""Whole runs, small: from a folder of images to a result, stopped and gone on with, and with bad input."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import alexnet_jax.analysis.report
import alexnet_jax.training.loop
import alexnet_jax.training.run_logger
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.train import train_with_report
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.training.loop import train
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import ReduceOnPlateau
from tests.conftest import TINY, TINY_CONFIG, Stop, log, refused


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)


def test_a_run_learns_and_leaves_all_that_is_promised(options):
    folder = train_with_report("tiny", replace(TINY_CONFIG, epochs=6), options)
    result = json.loads((folder / "result.json").read_text())
    assert result["top1_error"] < 0.2
    assert result["top5_error"] == 0
    assert result["images"] == 22, "padding of the last batch counts nowhere"
    assert result["steps"] == 60
    assert result["images_per_second"] > 0
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "log.jsonl", "checkpoints", "mean_image.npy", "result.json", "curves.png", "kernels.png", "report.html",
    }  # fmt: skip
    for picture in ("curves.png", "kernels.png"):
        with Image.open(folder / picture) as image:
            assert image.width > 50


def test_bfloat16_learns_too_and_is_another_run(options):
    experiment = replace(TINY_CONFIG, epochs=6, precision="bfloat16")
    folder = train("tiny", experiment, options)
    assert json.loads((folder / "result.json").read_text())["top1_error"] < 0.2
    assert json.loads((folder / "config.json").read_text())["precision"] == "bfloat16"
    assert train("tiny", replace(experiment, epochs=1, precision="float32"), options) != folder


def test_stopping_changes_nothing(options, monkeypatch, capsys):
    """In the middle of an epoch, with an error measured that the schedule needs; at the end of one, with a cut due; in the
    middle of an evaluation, the last."""
    cut_after_two_epochs = ReduceOnPlateau(patience=1, min_delta=1.0, max_reductions=1)
    experiment = replace(TINY_CONFIG, schedule=cut_after_two_epochs)
    whole = train("tiny", experiment, options)
    assert [f"{line['rate']:g}" for line in log(whole) if "epoch" in line] == ["0.002", "0.002", "0.0002"]
    pieces = replace(options, runs_dir=options.runs_dir.parent / "pieces")
    for looks, step in ((10 + 3 + 5, 15), (5, 20), (10 + 2, 30)):
        monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda looks=looks: Stop(looks))
        folder = train("tiny", experiment, pieces)
        assert f"stopped at step {step} of 30; the same command goes on" in capsys.readouterr().err
        assert not (folder / "result.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)
    assert train("tiny", experiment, pieces) == folder
    assert log(folder) == log(whole)
    assert [line["step"] for line in log(whole) if "epoch" not in line] == list(range(1, 31))


def test_a_page_that_cannot_be_written_does_not_undo_the_training(options, monkeypatch, capsys):
    """Whatever is the matter, the run is finished; only a disk that is full ends the command with an error."""
    experiment = replace(TINY_CONFIG, epochs=1)

    def fails(*_, **__):
        raise ValueError("no\nlook")

    monkeypatch.setattr(alexnet_jax.analysis.report, "find_examples", fails)
    folder = train_with_report("tiny", experiment, options)
    assert re.search(r"no predictions and no retrieval in .*report.html: no look\n", capsys.readouterr().err)
    assert "Left out: no look" in (folder / "report.html").read_text()
    monkeypatch.setattr(alexnet_jax.analysis.report, "_write_page", fails)
    folder = train_with_report("tiny", experiment, replace(options, fresh=True))
    assert re.search("cannot write .*report.html: ValueError", capsys.readouterr().err)
    assert (folder / "result.json").exists()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(alexnet_jax.analysis.report, "_write_page", full)
    with pytest.raises(UserError, match=r"no room left on the disk for .*report.html; the training is finished"):
        train_with_report("tiny", experiment, replace(options, fresh=True))
    assert (folder / "result.json").exists()


def test_the_schedule_ends_training(options, capsys):
    experiment = replace(TINY_CONFIG, epochs=5, schedule=ReduceOnPlateau(patience=1, min_delta=1.0, max_reductions=0))
    folder = train("tiny", experiment, options)
    result = json.loads((folder / "result.json").read_text())
    assert (result["epochs"], result["steps"], result["ended_by_schedule"]) == (2, 20, True)
    capsys.readouterr()
    train("tiny", experiment, options)
    assert "is finished" in capsys.readouterr().err
    (folder / "result.json").unlink()  # as if the process had died before it was written
    train("tiny", experiment, options)
    assert json.loads((folder / "result.json").read_text())["top1_error"] == result["top1_error"]


def test_a_finished_run_is_not_repeated_but_prolonged(options, capsys):
    folder = train("tiny", TINY_CONFIG, options)
    before = log(folder)
    assert train("tiny", TINY_CONFIG, options) == folder
    assert "is finished" in capsys.readouterr().err
    assert train("tiny", replace(TINY_CONFIG, epochs=4), options) == folder
    assert log(folder)[: len(before)] == before
    assert log(folder)[-1]["epoch"] == 4


def test_fresh_starts_over_whatever_became_of_the_run(options):
    """Ended before it began, or while it was deleted."""
    options = replace(options, run=options.runs_dir / "run", fresh=True)
    experiment = replace(TINY_CONFIG, epochs=1)
    RunDirectory(options.run, fresh=False)
    folder = train("tiny", experiment, options)
    before = log(folder)
    (options.runs_dir / "run.deleted" / "checkpoints").mkdir(parents=True)
    assert log(train("tiny", experiment, options)) == before
    assert [file.name for file in options.runs_dir.iterdir()] == ["run"]


def test_fresh_deletes_nothing_but_a_run(options, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    refused("is no run folder", TINY_CONFIG, replace(options, run=tmp_path / "letters", fresh=True))
    assert (tmp_path / "letters" / "dear.txt").exists()


def test_a_checkpoint_of_another_network_is_refused(options):
    folder = train("tiny", replace(TINY_CONFIG, epochs=1), options)
    layers = (*TINY.layers[:-3], TINY.layers[-1])
    other = replace(TINY_CONFIG, network=replace(TINY, layers=layers))
    refused("a checkpoint of another network", other, replace(options, run=folder))


def test_a_batch_that_devices_cannot_share_is_refused(options):
    refused("batch of 9 images cannot be split evenly over 2", replace(TINY_CONFIG, batch_size=9), replace(options, devices=4))


def test_images_too_small_for_the_network_are_refused(options):
    augmentation = Augmentation(image_size=16)
    refused("images of 16 pixels are too small", replace(TINY_CONFIG, augmentation=augmentation), options)


def test_a_full_disk_is_said(options, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("alexnet_jax.training.checkpoint.shutil.disk_usage", lambda _: usage)
    refused("no room for a checkpoint", TINY_CONFIG, options)


def test_more_devices_than_there_are_is_refused(options):
    refused("64 devices are asked for", TINY_CONFIG, replace(options, devices=64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "name a config: .*quickstart"),
        (["train", "alexnet"], "no config 'alexnet'; choose one of .*source_145.*two_tower"),
        (["train", "quickstart", "--data", "/nowhere"], "no data set '/nowhere'"),
        (["prepare", "--from", "/nowhere", "--to", "never"], "/nowhere is not a folder"),
        (["train", "quickstart", "--images-per-crop", "0"], "one image per crop or more"),
        (["data"], "data show DATA"),
        (["data", "show", "/nowhere"], "no data set '/nowhere'"),
        (
            ["train", "finetune", "--data", "synthetic"],
            "finetune copies conv1, .*fc7 from a trained network: name it with --init-from RUN",
        ),
        (["schedule"], "name a config: .*quickstart"),
        (["train", "quickstart", "step-decay", "--milestones", "0"], "after epoch 1 or later"),
        (["summary", "vgg"], "name a network: .*two_tower"),
        (["figures", "/nowhere"], "/nowhere is neither the folder of a run"),
        (["index", "/nowhere", "--to", "never"], "/nowhere is neither the folder of a run"),
        (["retrieve", "/nowhere", "photo.jpg"], "/nowhere is no index, it has no index.json"),
        (["evalute"], "unknown command 'evalute'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_an_exit_code(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err
    assert exit_.value.code == 1
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    assert re.search(message, said)


def test_the_summary_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "summary", "two_tower"])
    cli.main()
    said = capsys.readouterr().out
    assert all(total in said for total in ("60,965,224", "659,272", "724,406,816"))


@pytest.mark.parametrize("name", config_names())
def test_every_experiment_loads(name):
    experiment = load_config(name)
    assert experiment.epoch_hparams([]) is not None
    assert set(experiment.init_layers or ()) <= experiment.network.named_layers.keys()
    assert experiment.augmentation.image_size >= experiment.network.input_size


def test_the_log_survives_a_cut_off_line(tmp_path):
    run = RunDirectory(tmp_path / "run", fresh=False)
    (run.folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    run.resume_log(1, epochs=0)
    run.log(step=2, loss=1.0)
    assert [line["loss"] for line in run.log_lines()] == [2.0, 1.0]


def test_what_comes_again_is_cut_off_the_log(tmp_path):
    """An epoch's errors come again if the checkpoint of its last step was saved without them."""
    run = RunDirectory(tmp_path / "run", fresh=False)
    for line in ({"loss": 2.0}, {"epoch": 1, "loss": 2.5}, {"loss": 1.0}, {"epoch": 2, "loss": 1.5}):
        run.log(step=10 * line.get("epoch", len(run.log_lines()) // 2 + 1), **line)
    run.resume_log(20, epochs=1)
    assert [line["loss"] for line in run.log_lines()] == [2.0, 2.5, 1.0]


@pytest.mark.slow
def test_control_c_saves_and_the_same_command_goes_on(photos, tmp_path):
    """The command line, in a process of its own."""
    command = [
        sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--data", str(photos), "--data-dir", str(tmp_path / "data"),
        "--runs-dir", str(tmp_path / "runs"), "--batch-size", "16", "--epochs", "40",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "stopped at step" in err
    subprocess.run([*command, "--epochs", "3"], capture_output=True, cwd=root, env=environment, check=True)
    assert json.loads((Path(out.strip()) / "result.json").read_text())["steps"] == 15
