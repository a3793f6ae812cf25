"""End-to-end tests of small training runs: results, resumption and errors of the command line."""

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
import alexnet_jax.training.run_logger
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.train import train_with_report
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.training.checkpoint_reader import read_metadata
from alexnet_jax.training.metrics import EvalMetrics
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import ReduceOnPlateau
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY_CONFIG, StopAfter, assert_train_raises, process_environment, read_log


def rounded(metrics):
    """Return validation metrics with the precision of result.json."""
    assert metrics is not None
    return EvalMetrics(**{name: value and round(value, 6) for name, value in vars(metrics).items()})


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)


def test_training_converges_and_writes_all_files(options):
    folder = train_with_report("tiny", replace(TINY_CONFIG, epochs=6), options)
    result = json.loads((folder / "result.json").read_text())
    assert result["top1_error"] < 0.2
    assert result["top5_error"] is None, "there are two classes"
    assert result["images"] == 22, "padding of the last batch is not counted"
    assert result["steps"] == 60
    assert result["images_per_second"] > 0
    assert {file.name for file in folder.iterdir()} == {
        ".lock", "config.json", "log.jsonl", "checkpoints", "mean_image.npy", "result.json", "curves.png", "kernels.png",
        "report.html", "confusion.csv",
    }  # fmt: skip
    for picture in ("curves.png", "kernels.png"):
        with Image.open(folder / picture) as image:
            assert image.width > 50


def test_bfloat16_converges_in_a_run_folder_of_its_own(options):
    config = replace(TINY_CONFIG, epochs=6, precision="bfloat16")
    folder = train("tiny", config, options).run
    assert json.loads((folder / "result.json").read_text())["top1_error"] < 0.2
    assert json.loads((folder / "config.json").read_text())["precision"] == "bfloat16"
    assert train("tiny", replace(config, epochs=1, precision="float32"), options).run != folder


def test_resumed_bfloat16_run_equals_uninterrupted_run(options):
    """The copy of the parameters in bfloat16 is not in the checkpoints, and is made again."""
    config = replace(TINY_CONFIG, epochs=1, precision="bfloat16")
    uninterrupted = train("tiny", config, options).run
    options = replace(options, runs_dir=options.runs_dir.parent / "interrupted")
    assert train("tiny", config, options, should_stop=StopAfter(5)).step == 5
    resumed = train("tiny", config, options).run
    assert read_log(resumed) == read_log(uninterrupted)
    metadata = [read_metadata(run / "checkpoints" / "10")[0] for run in (uninterrupted, resumed)]
    assert metadata[0]["checksums"] == metadata[1]["checksums"]
    assert len(metadata[0]["checksums"]) == 1 + 2 * 2 * 5, "step, and parameters and momentum of five layers"


def test_resumed_run_equals_uninterrupted_run(options, capsys):
    """Stop a run within an epoch, after the epoch that reduces the learning rate, and within the last validation."""
    reduce_after_two_epochs = ReduceOnPlateau(patience=1, min_delta=1.0, max_reductions=1)
    config = replace(TINY_CONFIG, schedule=reduce_after_two_epochs)
    uninterrupted = train("tiny", config, options).run
    assert [f"{line['rate']:g}" for line in read_log(uninterrupted) if "epoch" in line] == ["0.002", "0.002", "0.0002"]
    interrupted = replace(options, runs_dir=options.runs_dir.parent / "interrupted")
    for calls, step in ((10 + 3 + 5, 15), (5, 20), (3 + 10 + 2, 30)):
        result = train("tiny", config, interrupted, should_stop=StopAfter(calls))
        folder = result.run
        assert (result.finished, result.step, result.metrics) == (False, step, None)
        assert re.search(
            f"Stopped at step {step} of 30; state saved in .*. Run the same command to resume.", capsys.readouterr().err
        )
        assert not (folder / "result.json").exists()
    result = train("tiny", config, interrupted)
    assert (result.run, result.finished, result.step) == (folder, True, 30)
    assert train("tiny", config, interrupted) == replace(result, metrics=rounded(result.metrics))
    assert read_log(folder) == read_log(uninterrupted)
    assert [line["step"] for line in read_log(uninterrupted) if "epoch" not in line] == list(range(1, 31))


def test_run_is_finished_if_its_report_fails(options, monkeypatch, capsys):
    """Check that errors in the report are printed and do not fail the command, except for a full disk."""
    config = replace(TINY_CONFIG, epochs=1)

    def fails(*_, **__):
        raise ValueError("no\nexamples")

    monkeypatch.setattr(alexnet_jax.analysis.report, "find_examples", fails)
    folder = train_with_report("tiny", config, options)
    assert re.search(r"cannot add predictions and retrieval to .*report.html: no examples\n", capsys.readouterr().err)
    assert "Omitted (no examples)" in (folder / "report.html").read_text()
    monkeypatch.setattr(alexnet_jax.analysis.report, "_write_page", fails)
    folder = train_with_report("tiny", config, replace(options, fresh=True))
    assert re.search("cannot write .*report.html: ValueError", capsys.readouterr().err)
    assert (folder / "result.json").exists()

    def disk_full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(alexnet_jax.analysis.report, "_write_page", disk_full)
    with pytest.raises(UserError, match=r"no space left on the disk for .*report.html; the training is finished"):
        train_with_report("tiny", config, replace(options, fresh=True))
    assert (folder / "result.json").exists()


def test_schedule_ends_training(options, capsys):
    config = replace(TINY_CONFIG, epochs=5, schedule=ReduceOnPlateau(patience=1, min_delta=1.0, max_reductions=0))
    folder = train("tiny", config, options).run
    result = json.loads((folder / "result.json").read_text())
    assert (result["epochs"], result["steps"], result["ended_by_schedule"]) == (2, 20, True)
    capsys.readouterr()
    train("tiny", config, options)
    assert "is finished" in capsys.readouterr().err
    (folder / "result.json").unlink()  # simulate a kill before the result was written
    train("tiny", config, options)
    assert json.loads((folder / "result.json").read_text())["top1_error"] == result["top1_error"]


def test_finished_run_is_not_repeated_but_continued_with_more_epochs(options, capsys):
    folder = train("tiny", TINY_CONFIG, options).run
    before = read_log(folder)
    assert train("tiny", TINY_CONFIG, options).run == folder
    assert "is finished" in capsys.readouterr().err
    assert train("tiny", replace(TINY_CONFIG, epochs=4), options).run == folder
    assert read_log(folder)[: len(before)] == before
    assert read_log(folder)[-1]["epoch"] == 4


def test_indivisible_batch_size_raises(options):
    assert_train_raises(
        "batch of 9 images cannot be split evenly over 2", replace(TINY_CONFIG, batch_size=9), replace(options, devices=4)
    )


def test_too_small_images_raise(options):
    augmentation = Augmentation(image_size=16)
    assert_train_raises("images of 16 pixels are too small", replace(TINY_CONFIG, augmentation=augmentation), options)


def test_full_disk_raises(options, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("alexnet_jax.training.checkpoint.shutil.disk_usage", lambda _: usage)
    assert_train_raises("a checkpoint of .* does not fit", TINY_CONFIG, options)


def test_too_many_devices_raise(options):
    assert_train_raises("64 devices requested", TINY_CONFIG, replace(options, devices=64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "pass a config: .*quickstart"),
        (["train", "alexnet"], "no config 'alexnet'; choose one of .*source_145.*two_tower"),
        (["train", "quickstart", "--data", "/nowhere"], "no data set '/nowhere'"),
        (["prepare", "--from", "/nowhere", "--to", "never"], "/nowhere does not exist: pass a folder"),
        (["train", "quickstart", "--without-layer", "conv9"], "quickstart has no inner layer 'conv9' to remove; choose one of"),
        (["data"], "data show DATA"),
        (["data", "show", "/nowhere"], "no data set '/nowhere'"),
        (
            ["train", "finetune", "--data", "synthetic"],
            "finetune needs a trained network to copy conv1, .*fc7 from: pass --init-from RUN",
        ),
        (["schedule"], "pass one config: .*quickstart"),
        (
            ["train", "quickstart", "--milestones", "0"],
            "--milestones must be at least 1, not 0",
        ),
        (["summary"], "pass one network or config: .*two_tower"),
        (["summary", "vgg"], "there is no network or config 'vgg': .*two_tower"),
        (["schedule", "vgg"], "there is no config 'vgg': .*quickstart"),
        (["figures", "/nowhere"], "/nowhere does not exist: pass a run folder"),
        (["index", "/nowhere", "--to", "never"], "/nowhere does not exist: pass a run folder"),
        (["retrieve", "/nowhere", "photo.jpg"], "/nowhere does not exist: build an index"),
        (["evalute"], "unknown command 'evalute'"),
        (["--code", "x.py"], "--code needs a Python file, and a command after it"),
        (["train", "quickstart", "--data", ""], "the value of --data is empty: pass one, or omit it"),
        (["export", "run", "--to="], "the value of --to is empty: pass one, or omit it"),
        (["predict", "run", ""], "an argument is empty: pass one, or omit it"),
        (["index", "run", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["prepare", "--from", "x", "--to", "y", "--size", "0"], "--size must be at least 1 and at most 16384, not 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_user_errors_print_one_line_and_exit_with_1(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    output = capsys.readouterr().err
    assert exit_.value.code == 1
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    assert re.search(message, output)


def test_summary_prints_totals(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "summary", "two_tower"])
    cli.main()
    output = capsys.readouterr().out
    assert all(total in output for total in ("60,965,224", "659,272", "724,406,816"))


@pytest.mark.parametrize("name", config_names())
def test_config_is_valid(name):
    config = load_config(name)
    assert config.epoch_hparams(0) is not None
    assert set(config.init_layers or ()) <= config.network.named_layers.keys()
    assert config.augmentation.image_size >= config.network.input_size


def test_log_ignores_incomplete_last_line(tmp_path):
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    (run.folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    run.resume_log(1, epochs=0)
    run.log(step=2, loss=1.0)
    assert [line["loss"] for line in run.log_lines()] == [2.0, 1.0]


def test_resuming_deletes_log_lines_that_will_be_repeated(tmp_path):
    """Check that the errors of an epoch are removed if the checkpoint of its last step was saved without them."""
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    for line in ({"loss": 2.0}, {"epoch": 1, "loss": 2.5}, {"loss": 1.0}, {"epoch": 2, "loss": 1.5}):
        run.log(step=10 * line.get("epoch", len(run.log_lines()) // 2 + 1), **line)
    run.resume_log(20, epochs=1)
    assert [line["loss"] for line in run.log_lines()] == [2.0, 2.5, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_through_make_saves_and_make_ends_with_the_signal(photos, tmp_path, number):
    """Send SIGINT to make and the training, as a terminal does on Ctrl-C; or SIGTERM to make only, as a job manager does."""
    root = Path(__file__).parents[2]
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "venv" / "installed").touch()
    arguments = f"--data-dir {tmp_path}/data --run {tmp_path}/run --batch-size 16 --epochs 40 --interrupted-exit-code 75"
    command = ["make", "train", f"VENV={tmp_path}/venv", "EXP=quickstart", f"DATA={photos}", f"ARGS={arguments}"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=root, env=process_environment(), start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == -number, "130 or 143 in a shell"
    (step,) = re.findall(r"Stopped at step (\d+) of 200; state saved in", err)
    assert load(tmp_path / "run").step == int(step) >= 10


@pytest.mark.slow
def test_ctrl_c_saves_and_same_command_resumes(photos, tmp_path):
    command = [
        sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--data", str(photos), "--data-dir", str(tmp_path / "data"),
        "--runs-dir", str(tmp_path / "runs"), "--batch-size", "16", "--epochs", "40", "--keep-schedule",
    ]  # fmt: skip
    environment = process_environment()
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Stopped at step" in err
    subprocess.run([*command, "--epochs", "3"], capture_output=True, cwd=root, env=environment, check=True)
    assert json.loads((Path(out.strip()) / "result.json").read_text())["steps"] == 15
