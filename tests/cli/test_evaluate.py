"""Tests of `evaluate`: comparison with NumPy, devices and files."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.cli.evaluate import Evaluate, evaluate
from alexnet_jax.cli.parsing import parse
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.weights.trained_model import load
from tests.cli.bands import CLASSES, COUNTS, create_untrained_run
from tests.cli.numpy_evaluation import numpy_errors, numpy_predictions
from tests.conftest import TINY_CONFIG, cpu_mesh
from tests.dataset_writer import create_dataset


def run_evaluate(*networks, **settings):
    """Return the errors by name and views, the contents of errors.json, and the output folder."""
    file = evaluate(Evaluate(networks=networks, **settings))
    result = json.loads(file.read_text())
    errors = {(line.pop("name"), line.pop("views")): line for line in result["errors"]}
    return errors, result, file.parent


def without_coefficients(line):
    return {key: value for key, value in line.items() if key != "coefficients"}


@pytest.mark.parametrize("name", ["crop", "center", "large"])
def test_errors_match_numpy(name, band_runs, bands, tmp_path):
    views = ("center", "ten", "nine")
    errors, result, folder = run_evaluate(band_runs[name], views=views, split="test", to=tmp_path / "out", batch_size=10)
    for view in views:
        labels, probabilities = numpy_predictions(band_runs[name], bands, "test", view)
        assert without_coefficients(errors[str(band_runs[name]), view]) == numpy_errors(labels, probabilities)
        with (folder / f"predictions-{view}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == [f"test/{index}.jpg" for index in range(len(labels))]
        assert [row["class"] for row in rows] == [CLASSES[label] for label in labels]
        top5 = np.argsort(-probabilities, axis=1)[:, :5]
        assert [[row[f"class_{rank}"] for rank in range(1, 6)] for row in rows] == [[CLASSES[c] for c in top] for top in top5]
        matrix = np.zeros((7, 7), int)
        np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
        with (folder / f"confusion-{view}.csv").open() as file:
            assert list(csv.reader(file)) == [["class", *CLASSES], *([CLASSES[c], *map(str, matrix[c])] for c in range(7))]
        frequent = result["confusions"][view]
        assert sum(each["images"] for each in frequent) == matrix.sum() - np.trace(matrix)
        assert [each["images"] for each in frequent] == sorted((each["images"] for each in frequent), reverse=True)
        assert all(each["of"] == COUNTS["test"][CLASSES.index(each["class"])] for each in frequent)
        written = [[float(row[f"probability_{rank}"]) for rank in range(1, 6)] for row in rows]
        np.testing.assert_allclose(written, np.take_along_axis(probabilities, top5, axis=1), rtol=1e-4)
    network = "large" if name == "large" else "tiny"
    assert result["networks"] == [{"path": str(band_runs[name]), "network": network, "step": 7}]
    assert (result["data"], result["split"], result["coefficients_searched_on"]) == ("bands", "test", None)
    assert {file.name for file in folder.iterdir()} == {
        "errors.json", "classes.csv", "predictions-center.csv", "predictions-ten.csv", "predictions-nine.csv",
        *(f"confusion-{view}.{suffix}" for view in views for suffix in ("csv", "png")),
    }  # fmt: skip


def test_ensemble_averages_probabilities(band_runs, bands, tmp_path):
    """Compare an ensemble of networks with different image sizes with NumPy."""
    errors, _, _ = run_evaluate(*band_runs.values(), split="test", to=tmp_path / "out", batch_size=8)
    assert [view for name, view in errors if name == "mean"] == ["center", "ten"]
    for view in ("center", "ten"):
        labels, probabilities = zip(*(numpy_predictions(run, bands, "test", view) for run in band_runs.values()), strict=True)
        assert without_coefficients(errors["mean", view]) == numpy_errors(labels[0], np.mean(probabilities, axis=0))
        for run, run_probabilities in zip(band_runs.values(), probabilities, strict=True):
            assert without_coefficients(errors[str(run), view]) == numpy_errors(labels[0], run_probabilities)


def test_coefficients_are_searched_on_a_split_of_their_own(band_runs, bands, tmp_path, capsys):
    networks = tuple(band_runs.values())
    settings = {"views": ("center",), "search": "validation"}
    same_split, _, _ = run_evaluate(*networks, split="validation", to=tmp_path / "same", **settings)
    assert "too low" in capsys.readouterr().err
    assert same_split["weighted by validation", "center"]["top5_error"] <= same_split["mean", "center"]["top5_error"]
    other_split, result, folder = run_evaluate(*networks, split="test", to=tmp_path / "other", **settings)
    assert "too low" not in capsys.readouterr().err
    weighted = other_split["weighted by validation", "center"]
    assert weighted["coefficients"] == same_split["weighted by validation", "center"]["coefficients"]
    assert sum(weighted["coefficients"]) == pytest.approx(1)
    labels, probabilities = zip(*(numpy_predictions(run, bands, "test", "center") for run in networks), strict=True)
    mean = np.tensordot(weighted["coefficients"], probabilities, axes=1)
    assert without_coefficients(weighted) == numpy_errors(labels[0], mean)
    assert (result["split"], result["coefficients_searched_on"]) == ("test", "validation")
    with (folder / "predictions-center.csv").open() as file:
        assert [row["class_1"] for row in csv.DictReader(file)] == [CLASSES[c] for c in mean.argmax(axis=1)], (
            "predictions of the weighted mean"
        )
    with (folder / "confusion-center.csv").open() as file:
        right = [int(row[CLASSES[label]]) for label, row in enumerate(csv.DictReader(file))]
    assert right == [((labels[0] == label) & (mean.argmax(axis=1) == label)).sum() for label in range(7)], "of the weighted mean"


def test_prediction_does_not_depend_on_devices(band_runs, bands, monkeypatch):
    """Compare one and four devices; on four, the batch size of 7 is rounded up to 8."""
    model = load(band_runs["crop"])
    one_device = Predictor(model, views="ten", batch_size=7).predict_split(bands, "test")
    monkeypatch.setattr("alexnet_jax.evaluation.predictor.choose_mesh", lambda network, *_: cpu_mesh(network, 2, split=True))
    four_devices = Predictor(model, views="ten", batch_size=7).predict_split(bands, "test")
    np.testing.assert_array_equal(four_devices.labels, one_device.labels)
    np.testing.assert_allclose(four_devices.outputs, one_device.outputs, atol=1e-5)


def test_errors_do_not_depend_on_devices(band_runs, tmp_path):
    """On four devices, the batch size of 6 is rounded up to 8; the last batches of the 23 images have 5 and 7."""
    networks, settings = (band_runs["crop"], band_runs["large"]), {"split": "test", "views": ("center",), "batch_size": 6}
    one, one_result, folder = run_evaluate(*networks, **settings, to=tmp_path / "one", devices=1)
    four, four_result, other_folder = run_evaluate(*networks, **settings, to=tmp_path / "four", devices=4)
    assert {key: line["images"] for key, line in four.items()} == dict.fromkeys(one, 23)
    for key, line in one.items():
        assert without_coefficients(line) == pytest.approx(without_coefficients(four[key]), rel=1e-5)
    for key in ("classes", "confusions"):
        assert one_result[key] == four_result[key]
    texts = [(each / "predictions-center.csv").read_text() for each in (folder, other_folder)]
    tables = [list(csv.reader(text.splitlines())) for text in texts]
    assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]


def test_too_many_devices_are_refused(band_runs, tmp_path):
    with pytest.raises(UserError, match="64 devices requested, 4 available"):
        run_evaluate(band_runs["crop"], to=tmp_path / "out", devices=64)


def test_padding_is_not_counted_and_class_errors_add_up(band_runs, tmp_path):
    errors = {}
    for batch_size in (5, 23):
        errors[batch_size], result, folder = run_evaluate(
            band_runs["crop"], split="test", to=tmp_path / str(batch_size), batch_size=batch_size
        )
        for key, line in errors[batch_size].items():
            assert without_coefficients(line) == pytest.approx(without_coefficients(errors[5][key]))
        assert [line["images"] for line in result["classes"]] == COUNTS["test"]
        with (folder / "classes.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["class"] for row in rows] == CLASSES
        for view in ("center", "ten"):
            num_errors = sum(line["images"] * line["top1_error"][view] for line in result["classes"])
            assert num_errors / 23 == pytest.approx(errors[5][str(band_runs["crop"]), view]["top1_error"], abs=1e-5)
            class_errors = [float(row[f"top1_error_{view}"]) for row in rows]
            assert class_errors == [line["top1_error"][view] for line in result["classes"]]


def test_class_without_images_has_no_error(band_runs, tmp_path):
    errors, result, folder = run_evaluate(band_runs["crop"], split="validation", to=tmp_path / "out")
    assert result["classes"][6] == {"class": "band 6", "images": 0, "top1_error": {"center": None, "ten": None}}
    assert (folder / "classes.csv").read_text().endswith("\nband 6,0,,\n")
    mean = np.mean([line["top1_error"]["center"] for line in result["classes"][:6]])
    assert errors[str(band_runs["crop"]), "center"]["mean_class_error"] == pytest.approx(mean, abs=1e-6)


def test_defaults_reproduce_validation_errors_of_the_run(trained_run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "evaluate", str(trained_run)])
    cli.main()
    out, err = capsys.readouterr()
    expected = json.loads((trained_run / "result.json").read_text())
    file = trained_run / "evaluation" / f"{expected['data']}-validation" / "errors.json"
    assert out == f"{file}\n"
    center, ten = json.loads(file.read_text())["errors"]
    assert (center["views"], ten["views"]) == ("center", "ten")
    for key in ("top1_error", "top5_error", "images"):
        assert center[key] == expected[key]
    assert center["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert f"top-1 error {center['top1_error']:.2%}" in err
    assert "│ above" in err
    assert (file.parent / "confusion-center.csv").read_text() == (trained_run / "confusion.csv").read_text()


def test_networks_may_follow_views():
    settings = parse(Evaluate, "evaluate", ["--views", "ten", "--views", "center", "run1", "run2"])
    assert settings.networks == (Path("run1"), Path("run2"))
    assert settings.views == ("ten", "center")


def test_cifar_images_are_evaluated_on_nine_views(tmp_path, rng):
    with create_dataset(tmp_path / "cifar", ["a", "b"], size=32) as writer:
        for split in ("train", "test"):
            for index in range(8):
                pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), index % 2, f"{index}.jpg"), pixels)
    run = create_untrained_run(open_dataset(tmp_path / "cifar"), tmp_path / "run", TINY_CONFIG)
    errors, result, folder = run_evaluate(run)
    assert [view for _, view in errors] == ["center", "nine"]
    assert result["split"] == "test"
    header, *_ = (folder / "predictions-nine.csv").read_text().splitlines()
    assert header == "image,class,class_1,probability_1,class_2,probability_2"
    assert errors[str(run), "nine"]["top5_error"] is None, "there are two classes"


def test_most_frequent_confusions_are_printed(band_runs, tmp_path, capsys):
    _, result, _ = run_evaluate(band_runs["crop"], split="test", to=tmp_path / "out")
    top = result["confusions"]["ten"]
    output = capsys.readouterr().err
    for number, each in enumerate(top):
        assert (f"│ {each['class']} → {each['predicted']}" in output) == (number < 5)
    assert f"{top[0]['images']} of {top[0]['of']}" in output
