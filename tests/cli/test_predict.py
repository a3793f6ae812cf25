"""Tests of `predict`: comparison with the Python API, formats, and files that cannot be read."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.cli.predict import TopClasses, _print_csv, _print_ilsvrc
from alexnet_jax.console import PlainConsole
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.ensemble import Ensemble
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.weights.trained_model import initialize, load, save
from tests.tiny import TINY

CLASSES = ["=1+1", "[red]dog", "owl", "cat", "emu", "ant"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two networks with the same classes, whose images have different sizes."""
    folder = tmp_path_factory.mktemp("networks")
    sizes = {"small": (TINY, 32), "large": (replace(TINY, input_size=37), 64)}
    for seed, (name, (network, size)) in enumerate(sizes.items()):
        save(initialize(network, classes=CLASSES, image_size=size, seed=seed), folder / f"{name}.safetensors")
    return [folder / f"{name}.safetensors" for name in sizes]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder with three photos of different shapes, one in a subfolder, and files that are no photos."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in {"a.png": (50, 40, 3), "b.png": (64, 64, 3), "more/c.png": (100, 70, 3)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.png").write_bytes((folder / "a.png").read_bytes())
    return folder


@pytest.fixture
def predict(run_command):
    """Return `run_command` for predict."""
    return partial(run_command, "predict")


@pytest.mark.parametrize("views", ["center", "ten"])
def test_mean_of_two_networks_as_json(networks, photos, predict, views):
    files = [photos / "a.png", photos / "b.png", photos / "more" / "c.png"]
    mean = np.mean([Predictor(load(network), views=views)(files) for network in networks], axis=0)
    output = json.loads(predict(*networks, photos, "--format", "json", "--views", views, "--top", 3).out)
    assert [row["image"] for row in output] == [str(file) for file in files]
    for row, probabilities in zip(output, mean, strict=True):
        expected = sorted(zip(probabilities, CLASSES, strict=True), reverse=True)[:3]
        assert [item["class"] for item in row["classes"]] == [name for _, name in expected]
        assert [item["probability"] for item in row["classes"]] == pytest.approx([p for p, _ in expected], abs=2e-6)


def test_predictions_do_not_depend_on_devices(networks, photos, predict):
    arguments = (networks[0], photos, "--format", "json", "--batch-size", 2)
    outputs = [json.loads(predict(*arguments, "--devices", devices).out) for devices in (1, 4)]
    assert [row["image"] for row in outputs[0]] == [row["image"] for row in outputs[1]]
    for one, four in zip(*outputs, strict=True):
        assert [item["class"] for item in one["classes"]] == [item["class"] for item in four["classes"]]
        probabilities = [[item["probability"] for item in row["classes"]] for row in (one, four)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-6)


def test_csv_has_one_row_per_photo(networks, photos, predict):
    output = predict(networks[0], photos / "b.png", photos / "a.png", "--format", "csv", "--batch-size", 1)
    header, *rows = csv.reader(output.out.splitlines())
    assert header == ["image", *(f"{column}_{rank}" for rank in range(1, 6) for column in ("class", "probability"))]
    assert [row[0] for row in rows] == [str(photos / "b.png"), str(photos / "a.png")]
    assert {name for row in rows for name in row[1::2]} <= {"'=1+1", *CLASSES[1:]}, "no formula for a spreadsheet"


def test_table_prints_names_as_they_are(networks, photos, predict):
    lines = predict(networks[0], photos / "a.png", "--top", 6).out.splitlines()
    assert sum("a.png" in line for line in lines) == 1
    for name in CLASSES:
        assert sum(f" {name} " in line and "%" in line for line in lines) == 1, name


def test_photos_in_an_archive(networks, photos, predict, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    folder = json.loads(predict(networks[0], photos, "--format", "json").out)
    archived = json.loads(predict(networks[0], tmp_path / "photos.tar", "--format", "json").out)
    assert [row["classes"] for row in archived] == [row["classes"] for row in folder]
    assert archived[2]["image"] == f"{tmp_path}/photos.tar/photos/more/c.png"


def test_files_that_are_left_out_are_counted(networks, photos, predict):
    message = f"{photos}: 2 files left out, hidden, empty or of an unsupported format: notes.txt, .hidden.png"
    assert message in predict(networks[0], photos).err


def test_options_may_follow_the_network(networks, photos, predict):
    photo = photos / "a.png"
    expected = predict(*networks, photo, "--views", "ten").out
    for arguments in ((networks[0], "--views", "ten", networks[1], photo), ("--views", "ten", *networks, photo)):
        assert predict(*arguments).out == expected


def test_damaged_photos_are_named_and_the_others_predicted(networks, photos, predict, tmp_path):
    (tmp_path / "cut.png").write_bytes((photos / "a.png").read_bytes()[:500])
    output = predict(networks[0], tmp_path / "cut.png", photos / "a.png", "--format", "json", code=1)
    assert [row["image"] for row in json.loads(output.out)] == [str(photos / "a.png")]
    assert f"{tmp_path}/cut.png cannot be read as an image" in output.err
    assert "error: 1 of 2 photos cannot be read" in output.err
    assert not predict(networks[0], tmp_path / "cut.png", code=1).out


def test_named_pipe_is_refused_instead_of_waiting_for_it(networks, predict, tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    error = predict(networks[0], tmp_path / "pipe.tar", code=1).err
    assert error == f"error: {tmp_path}/pipe.tar is no regular file: pass a photo, or a folder of photos\n"


@pytest.fixture
def fault_after_two_photos(monkeypatch):
    """Let the third batch fail."""
    batches = []

    def predict(ensemble, images):
        batches.append(images)
        if len(batches) == 3:
            raise UserError("the third batch is damaged")
        return original(ensemble, images)

    original = Ensemble.__call__
    monkeypatch.setattr(Ensemble, "__call__", predict)


@pytest.mark.parametrize("format", ["csv", "json", "table"])
def test_predictions_before_a_fault_are_printed(networks, photos, predict, format, fault_after_two_photos):
    output = predict(networks[0], photos, "--format", format, "--batch-size", 1, code=1)
    assert output.err.endswith("error: the third batch is damaged\n")
    names = [str(photos / "a.png"), str(photos / "b.png")]
    if format == "json":
        assert [row["image"] for row in json.loads(output.out)] == names
    elif format == "csv":
        assert [row[0] for row in csv.reader(output.out.splitlines())] == ["image", *names]
    else:
        assert [name in output.out for name in ("a.png", "b.png", "c.png")] == [True, True, False]


def test_json_has_the_layout_of_one_dump(networks, photos, predict):
    text = predict(networks[0], photos, "--format", "json", "--batch-size", 2).out
    assert text == json.dumps(json.loads(text), indent=1) + "\n"


def test_csv_rows_are_printed_before_later_predictions_are_made(capsys):
    printed = []

    def predictions():
        for name in ("first", "second", "third"):
            printed.append(capsys.readouterr().out.count("\n"))
            yield TopClasses(name, [1, 0], [0.75, 0.25])

    _print_csv(["cat", "dog"], predictions())
    assert printed == [0, 2, 1], "the header and the first row, then the second one"


def test_contest_rows_are_sorted_by_name_and_printed_once_their_turn_comes(capsys):
    names, printed = ["b/1.png", "a/0.png", "a/3.png", "c/2.png"], []

    def predictions():
        for label, name in enumerate(names):
            printed.append(capsys.readouterr().out)
            yield TopClasses(name, [label], [1.0])

    _print_ilsvrc([10, 20, 30, 40], names, predictions())
    assert printed == ["", "", "20\n10\n", ""]
    assert capsys.readouterr().out == "40\n30\n"


def test_progress_bar_on_a_terminal_leaves_stdout_alone(networks, photos, predict, monkeypatch):
    arguments, stderr = (networks[0], photos, "--format", "csv", "--batch-size", 1), io.StringIO()
    expected = predict(*arguments).out
    monkeypatch.setattr("alexnet_jax.console.console", PlainConsole(file=stderr, force_terminal=True, width=80))
    assert predict(*arguments).out == expected
    assert "predicting" in stderr.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass a trained network, then one or more photos"),
        (["{network}"], "pass a trained network, then one or more photos"),
        (["{network}", "{network}"], "pass a trained network, then one or more photos"),
        (["{photos}/a.png", "{photos}"], "a.png is not a .safetensors file"),
        (["{network}", "{photos}/d.png"], "d.png does not exist"),
        (["{network}", "{photos}/empty"], "empty contains no image"),
        (["{network}", "{photos}", "--top", "0"], "--top must be at least 1, not 0"),
        (["{network}", "{photos}", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
    ],
)
def test_invalid_arguments(networks, photos, predict, arguments, message):
    (photos / "empty").mkdir(exist_ok=True)
    arguments = [argument.format(network=networks[0], photos=photos) for argument in arguments]
    assert message in predict(*arguments, code=1).err


@pytest.mark.slow
def test_prediction_imports_neither_the_data_loader_nor_the_optimizer():
    """Check what determines the time to a first prediction: these imports take a third of a second."""
    code = "import sys, alexnet_jax.cli.predict; print(*{'grain', 'optax', 'orbax', 'matplotlib', 'pandas'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"
