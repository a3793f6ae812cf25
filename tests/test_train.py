"""Whole runs, small: from a folder of images to a result, stopped and gone on with, and with bad input."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_jax.__main__ as cli
import alexnet_jax.train
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.experiment import Experiment, load_experiment
from alexnet_jax.run import Run
from alexnet_jax.schedule import Cuts, LayerRate, Plateau
from alexnet_jax.step import make_train_step
from alexnet_jax.train import Options, train
from tests.conftest import TINY

TINY_EXPERIMENT = Experiment(TINY, epochs=3, batch_size=8, learning_rate=0.002, augmentation=Augmentation(image_size=32))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that a few steps can tell apart: one is bright above, the other below."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    rng = np.random.default_rng(0)
    for split, images in (("train", 40), ("validation", 11)):
        for name in ("above", "below"):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 100, (64, 64, 3))
                pixels[slice(0, 32) if name == "above" else slice(32, 64)] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture
def options(photos, tmp_path):
    return Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path / "runs", devices=2)


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(alexnet_jax.train, "LOG_EVERY", 1)


def log(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def test_a_run_learns_and_leaves_all_that_is_promised(options):
    folder = train("tiny", replace(TINY_EXPERIMENT, epochs=6), options)
    result = json.loads((folder / "result.json").read_text())
    assert result["top1_error"] < 0.2
    assert result["top5_error"] == 0
    assert result["images"] == 22, "padding of the last batch counts nowhere"
    assert result["steps"] == 60
    assert result["images_per_second"] > 0
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "log.jsonl", "checkpoints", "result.json", "curves.png", "kernels.png",
    }  # fmt: skip
    for picture in ("curves.png", "kernels.png"):
        with Image.open(folder / picture) as image:
            assert image.width > 50


def test_bfloat16_learns_too_and_is_another_run(options):
    experiment = replace(TINY_EXPERIMENT, epochs=6, precision="bfloat16")
    folder = train("tiny", experiment, options)
    assert json.loads((folder / "result.json").read_text())["top1_error"] < 0.2
    assert json.loads((folder / "config.json").read_text())["precision"] == "bfloat16"
    assert train("tiny", replace(experiment, epochs=1, precision="float32"), options) != folder


class Stop:
    """Stands in for Ctrl-C after a number of steps."""

    def __init__(self, steps):
        self._left = steps

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def asked(self):
        self._left -= 1
        return self._left == 0


def test_stopping_changes_nothing(options, monkeypatch):
    """In the middle of an epoch, with an error measured that the schedule needs, and at the end of one, with a cut due."""
    cut_after_two_epochs = Plateau(patience=1, smallest=1.0, cuts=1)
    experiment = replace(TINY_EXPERIMENT, schedule=cut_after_two_epochs)
    whole = train("tiny", experiment, options)
    assert [f"{line['rate']:g}" for line in log(whole) if "epoch" in line] == ["0.002", "0.002", "0.0002"]
    pieces = replace(options, runs_dir=options.runs_dir.parent / "pieces")
    for steps in (15, 5):
        monkeypatch.setattr(alexnet_jax.train, "Interrupt", lambda steps=steps: Stop(steps))
        folder = train("tiny", experiment, pieces)
        assert not (folder / "result.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(alexnet_jax.train, "LOG_EVERY", 1)
    assert train("tiny", experiment, pieces) == folder
    assert log(folder) == log(whole)
    assert [line["step"] for line in log(whole) if "epoch" not in line] == list(range(1, 31))


def test_the_schedule_ends_training(options, capsys):
    experiment = replace(TINY_EXPERIMENT, epochs=5, schedule=Plateau(patience=1, smallest=1.0, cuts=0))
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
    folder = train("tiny", TINY_EXPERIMENT, options)
    before = log(folder)
    assert train("tiny", TINY_EXPERIMENT, options) == folder
    assert "is finished" in capsys.readouterr().err
    assert train("tiny", replace(TINY_EXPERIMENT, epochs=4), options) == folder
    assert log(folder)[: len(before)] == before
    assert log(folder)[-1]["epoch"] == 4


def test_one_device_reads_what_two_have_written(options):
    folder = train("tiny", TINY_EXPERIMENT, replace(options, placement="split"))
    again = train("tiny", replace(TINY_EXPERIMENT, epochs=4), replace(options, placement="single", devices=1))
    assert again == folder
    assert log(folder)[-1]["epoch"] == 4


def test_a_damaged_checkpoint_gives_way_to_the_one_before(options, capsys):
    folder = train("tiny", TINY_EXPERIMENT, replace(options, checkpoint_seconds=0.0))
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert len(steps) == 2
    for file in (folder / "checkpoints" / str(steps[-1])).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    train("tiny", replace(TINY_EXPERIMENT, epochs=4), options)
    said = capsys.readouterr().err
    assert f"the checkpoint of step {steps[-1]} cannot be read" in said
    assert f"from step {steps[-2]}" in said


def test_fresh_deletes_nothing_but_a_run(options, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    refused("is no run folder", TINY_EXPERIMENT, replace(options, run=tmp_path / "letters", fresh=True))
    assert (tmp_path / "letters" / "dear.txt").exists()


def refused(message, experiment, options):
    with pytest.raises(UserError, match=message):
        train("tiny", experiment, options)


def test_a_checkpoint_of_another_network_is_refused(options):
    folder = train("tiny", replace(TINY_EXPERIMENT, epochs=1), options)
    layers = (*TINY.layers[:-3], TINY.layers[-1])
    other = replace(TINY_EXPERIMENT, network=replace(TINY, layers=layers))
    refused("a checkpoint of another network", other, replace(options, run=folder))


def test_a_batch_that_devices_cannot_share_is_refused(options):
    refused("batch of 9 images cannot be divided among 2", replace(TINY_EXPERIMENT, batch_size=9), replace(options, devices=4))


def test_images_too_small_for_the_network_are_refused(options):
    augmentation = Augmentation(image_size=16)
    refused("images of 16 pixels are too small", replace(TINY_EXPERIMENT, augmentation=augmentation), options)


def test_a_loss_that_explodes_is_named_by_its_step(options):
    refused(
        r"the loss is (nan|inf) at step [23]: choose a lower --learning-rate.*there is no checkpoint yet",
        replace(TINY_EXPERIMENT, learning_rate=1e30),
        options,
    )


def test_a_loss_that_explodes_later_leaves_the_last_good_checkpoint(options, capsys):
    """Saved after every step, so that one checkpoint is written before its loss is known."""
    exploding = (LayerRate("fc7", after=1, weights=1e38),)
    experiment = replace(TINY_EXPERIMENT, layer_rates=exploding)
    saving = replace(options, checkpoint_seconds=0.0)
    for _ in range(2):  # the same command comes to the same end, from the checkpoint that is left
        refused("the loss is (nan|inf) at step 12: .*the last good checkpoint, of step 10, is kept", experiment, saving)
        folder = next((options.runs_dir / "tiny").iterdir())
        assert "10" in os.listdir(folder / "checkpoints")
        assert "11" not in os.listdir(folder / "checkpoints")
    assert "from step 10" in capsys.readouterr().err


@pytest.fixture
def steps(monkeypatch):
    """The jitted steps that trainings make, and what happens in order: steps taken, losses read."""
    made, events = [], []

    def make(*arguments, **settings):
        jitted = make_train_step(*arguments, **settings)
        made.append(jitted)

        def step(state, *rest):
            events.append("step")
            return jitted(state, *rest)

        return step

    tell = alexnet_jax.train.Training._tell_loss
    monkeypatch.setattr(alexnet_jax.train, "make_train_step", make)
    monkeypatch.setattr(
        alexnet_jax.train.Training, "_tell_loss", lambda self, step, loss: (events.append(step), tell(self, step, loss))
    )
    return made, events


def test_a_loss_is_read_when_the_next_step_is_under_way(options, steps):
    train("tiny", replace(TINY_EXPERIMENT, epochs=1), options)
    assert steps[1] == [
        "step",
        "step",
        1,
        "step",
        2,
        "step",
        3,
        "step",
        4,
        "step",
        5,
        "step",
        6,
        "step",
        7,
        "step",
        8,
        "step",
        9,
        10,
    ]


def test_one_program_serves_the_whole_training(options, steps, monkeypatch):
    """Through a cut, a layer frozen, colours gone, and a stop."""
    experiment = replace(
        TINY_EXPERIMENT, schedule=Cuts((1,)), layer_rates=(LayerRate("conv1", after=2, weights=0.0),), color_epochs=1
    )
    monkeypatch.setattr(alexnet_jax.train, "Interrupt", lambda: Stop(15))
    train("tiny", experiment, options)
    train("tiny", experiment, options)
    assert [step._cache_size() for step in steps[0]] == [1, 1]


def test_a_transfer_that_slips_in_ends_training(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.train, "put_batch", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train("tiny", TINY_EXPERIMENT, options)


def test_a_full_disk_is_said(options, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("alexnet_jax.checkpoint.shutil.disk_usage", lambda _: usage)
    refused("no room for a checkpoint", TINY_EXPERIMENT, options)


def test_more_devices_than_there_are_is_refused(options):
    refused("64 devices are asked for", TINY_EXPERIMENT, replace(options, devices=64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "name an experiment: .*quickstart"),
        (["train", "alexnet"], "no experiment 'alexnet'; there are: .*source_145.*two_tower"),
        (["train", "quickstart", "--data", "/nowhere"], "there is no data set '/nowhere'"),
        (["prepare", "--from", "/nowhere", "--to", "never"], "/nowhere is not a folder"),
        (["train", "quickstart", "--images-per-crop", "0"], "one image per crop or more"),
        (["data"], "data show DATA"),
        (["data", "show", "/nowhere"], "there is no data set '/nowhere'"),
        (["schedule"], "name an experiment: .*quickstart"),
        (["train", "quickstart", "cuts", "--after", "0"], "after epoch 1 or later"),
        (["summary", "vgg"], "name a network: .*two_tower"),
        (["evalute"], "there is no command 'evalute'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_an_exit_code(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err
    assert exit_.value.code == 1
    assert said.count("\n") == 1
    assert re.search(message, said)


def test_the_summary_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "summary", "two_tower"])
    cli.main()
    said = capsys.readouterr().out
    assert all(total in said for total in ("60,965,224", "659,272", "724,406,816"))


@pytest.mark.parametrize("name", ["quickstart", "two_tower", "source_145", "one_gpu", "sixth_conv"])
def test_every_experiment_loads(name):
    experiment = load_experiment(name)
    assert experiment.network.name == name
    assert experiment.augmentation.image_size >= experiment.network.input_size


def test_the_log_survives_a_cut_off_line(tmp_path):
    run = Run(tmp_path / "run", fresh=False)
    (run.folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    run.resume_log(1)
    run.log(step=2, loss=1.0)
    assert [line["loss"] for line in run.log_lines()] == [2.0, 1.0]


@pytest.mark.slow
def test_control_c_saves_and_the_same_command_goes_on(photos, tmp_path):
    """The command line, in a process of its own."""
    command = [
        sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--data", str(photos), "--data-dir", str(tmp_path / "data"),
        "--runs-dir", str(tmp_path / "runs"), "--batch-size", "16", "--epochs", "40",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    root = Path(__file__).parents[1]
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
