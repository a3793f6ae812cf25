"""Tests of `evaluate`: comparison with NumPy, options and error messages."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.cli.evaluate import Evaluate, evaluate
from alexnet_jax.cli.parsing import parse
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation, resize_mean_image
from alexnet_jax.data.prepare.shards import create_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.parallel import placement
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.run_config import RunConfig
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step import TrainState
from alexnet_jax.weights.trained_model import load
from tests.cli.numpy_evaluation import numpy_errors, numpy_predictions
from tests.conftest import TINY, TINY_CONFIG, cpu_mesh

CLASSES = [f"band {label}" for label in range(7)]
COUNTS = {"train": [12] * 7, "validation": [4, 3, 5, 2, 6, 3, 0], "test": [5, 1, 4, 6, 2, 3, 2]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Data set with different numbers of images per class; the position of a bright band depends on the class."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "bands"
    with create_dataset(path, CLASSES, size=64) as writer:
        for split, counts in COUNTS.items():
            order = rng.permutation(np.repeat(np.arange(7), counts))
            for index, label in enumerate(order.tolist()):
                pixels = rng.integers(0, 150, (64, 64, 3))
                pixels[9 * label : 9 * label + 9] += rng.integers(10, 100)
                pixels = pixels.astype(np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), label, f"{split}/{index}.jpg"), pixels)
    return open_dataset(path)


def create_untrained_run(dataset, folder, config, std=0.15):
    """Write a run folder with a checkpoint of random parameters, and return the folder."""
    network = config.network.with_num_classes(len(dataset.manifest.classes))
    run, record = RunDirectory(folder), RunConfig.of_training(config, network, dataset).to_json()
    run.write_mean_image(resize_mean_image(dataset.mean_image, config.augmentation))
    rng = np.random.default_rng(config.seed)
    shapes = jax.eval_shape(partial(placement.init, network, cpu_mesh(network, 1, split=False)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(std * rng.normal(size=leaf.shape), jnp.float32), shapes)
    checkpoints = Checkpoints(run.checkpoints, record)
    checkpoints.save(TrainState(jnp.asarray(7, jnp.int32), params, params), {})
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """Runs that subtract the matching crop or the center crop of the mean image, and a run with larger images."""
    folder = tmp_path_factory.mktemp("runs")
    small = {mean: Augmentation(image_size=32, mean=mean) for mean in ("crop", "center")}
    large = replace(TINY, name="large", input_size=37)
    configs = {
        "crop": TrainConfig(TINY, augmentation=small["crop"]),
        "center": TrainConfig(TINY, augmentation=small["center"], seed=1),
        "large": TrainConfig(large, augmentation=Augmentation(image_size=64), seed=2),
    }
    return {name: create_untrained_run(dataset, folder / name, config) for name, config in configs.items()}


def run_evaluate(*networks, **settings):
    """Return the errors by name and views, the contents of errors.json, and the output folder."""
    file = evaluate(Evaluate(networks=networks, **settings))
    result = json.loads(file.read_text())
    errors = {(line.pop("name"), line.pop("views")): line for line in result["errors"]}
    return errors, result, file.parent


def without_coefficients(line):
    return {key: value for key, value in line.items() if key != "coefficients"}


@pytest.mark.parametrize("name", ["crop", "center", "large"])
def test_errors_match_numpy(name, runs, dataset, tmp_path):
    views = ("center", "ten", "nine")
    errors, result, folder = run_evaluate(runs[name], views=views, split="test", to=tmp_path / "out", batch_size=10)
    for view in views:
        labels, probabilities = numpy_predictions(runs[name], dataset, "test", view)
        assert without_coefficients(errors[str(runs[name]), view]) == numpy_errors(labels, probabilities)
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
    assert result["networks"] == [{"path": str(runs[name]), "network": network, "step": 7}]
    assert (result["data"], result["split"], result["coefficients_searched_on"]) == ("bands", "test", None)
    assert {file.name for file in folder.iterdir()} == {
        "errors.json", "classes.csv", "predictions-center.csv", "predictions-ten.csv", "predictions-nine.csv",
        *(f"confusion-{view}.{suffix}" for view in views for suffix in ("csv", "png")),
    }  # fmt: skip


def test_ensemble_averages_probabilities(runs, dataset, tmp_path):
    """Compare an ensemble of networks with different image sizes with NumPy."""
    errors, _, _ = run_evaluate(*runs.values(), split="test", to=tmp_path / "out", batch_size=8)
    assert [view for name, view in errors if name == "mean"] == ["center", "ten"]
    for view in ("center", "ten"):
        labels, probabilities = zip(*(numpy_predictions(run, dataset, "test", view) for run in runs.values()), strict=True)
        assert without_coefficients(errors["mean", view]) == numpy_errors(labels[0], np.mean(probabilities, axis=0))
        for run, run_probabilities in zip(runs.values(), probabilities, strict=True):
            assert without_coefficients(errors[str(run), view]) == numpy_errors(labels[0], run_probabilities)


def test_coefficients_are_searched_on_a_split_of_their_own(runs, dataset, tmp_path, capsys):
    networks = tuple(runs.values())
    settings = {"views": ("center",), "search": "validation"}
    same_split, _, _ = run_evaluate(*networks, split="validation", to=tmp_path / "same", **settings)
    assert "too low" in capsys.readouterr().err
    assert same_split["weighted by validation", "center"]["top5_error"] <= same_split["mean", "center"]["top5_error"]
    other_split, result, folder = run_evaluate(*networks, split="test", to=tmp_path / "other", **settings)
    assert "too low" not in capsys.readouterr().err
    weighted = other_split["weighted by validation", "center"]
    assert weighted["coefficients"] == same_split["weighted by validation", "center"]["coefficients"]
    assert sum(weighted["coefficients"]) == pytest.approx(1)
    labels, probabilities = zip(*(numpy_predictions(run, dataset, "test", "center") for run in networks), strict=True)
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


def test_prediction_does_not_depend_on_devices(runs, dataset, monkeypatch):
    """Compare one and four devices; on four, the batch size of 7 is rounded up to 8."""
    model = load(runs["crop"])
    one_device = Predictor(model, views="ten", batch_size=7).predict_split(dataset, "test")
    monkeypatch.setattr("alexnet_jax.evaluation.predictor.choose_mesh", lambda network, *_: cpu_mesh(network, 2, split=True))
    four_devices = Predictor(model, views="ten", batch_size=7).predict_split(dataset, "test")
    np.testing.assert_array_equal(four_devices.labels, one_device.labels)
    np.testing.assert_allclose(four_devices.outputs, one_device.outputs, atol=1e-5)


def test_errors_do_not_depend_on_devices(runs, tmp_path):
    """On four devices, the batch size of 6 is rounded up to 8; the last batches of the 23 images have 5 and 7."""
    networks, settings = (runs["crop"], runs["large"]), {"split": "test", "views": ("center",), "batch_size": 6}
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


def test_too_many_devices_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match="64 devices requested, 4 available"):
        run_evaluate(runs["crop"], to=tmp_path / "out", devices=64)


def test_padding_is_not_counted_and_class_errors_add_up(runs, tmp_path):
    errors = {}
    for batch_size in (5, 23):
        errors[batch_size], result, folder = run_evaluate(
            runs["crop"], split="test", to=tmp_path / str(batch_size), batch_size=batch_size
        )
        for key, line in errors[batch_size].items():
            assert without_coefficients(line) == pytest.approx(without_coefficients(errors[5][key]))
        assert [line["images"] for line in result["classes"]] == COUNTS["test"]
        with (folder / "classes.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["class"] for row in rows] == CLASSES
        for view in ("center", "ten"):
            num_errors = sum(line["images"] * line["top1_error"][view] for line in result["classes"])
            assert num_errors / 23 == pytest.approx(errors[5][str(runs["crop"]), view]["top1_error"], abs=1e-5)
            class_errors = [float(row[f"top1_error_{view}"]) for row in rows]
            assert class_errors == [line["top1_error"][view] for line in result["classes"]]


def test_class_without_images_has_no_error(runs, tmp_path):
    errors, result, folder = run_evaluate(runs["crop"], split="validation", to=tmp_path / "out")
    assert result["classes"][6] == {"class": "band 6", "images": 0, "top1_error": {"center": None, "ten": None}}
    assert (folder / "classes.csv").read_text().endswith("\nband 6,0,,\n")
    mean = np.mean([line["top1_error"]["center"] for line in result["classes"][:6]])
    assert errors[str(runs["crop"]), "center"]["mean_class_error"] == pytest.approx(mean, abs=1e-6)


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


def test_most_frequent_confusions_are_printed(runs, tmp_path, capsys):
    _, result, _ = run_evaluate(runs["crop"], split="test", to=tmp_path / "out")
    top = result["confusions"]["ten"]
    output = capsys.readouterr().err
    for number, each in enumerate(top):
        assert (f"│ {each['class']} → {each['predicted']}" in output) == (number < 5)
    assert f"{top[0]['images']} of {top[0]['of']}" in output


def test_user_errors_print_one_line_and_write_nothing(runs, dataset, tmp_path, monkeypatch, capsys):
    run = str(runs["crop"])

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
    assert_fails(".*has no split 'tset'.*", run, run, "--search", "tset")
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

    damaged = shutil.copytree(runs["crop"], tmp_path / "damaged")
    shutil.rmtree(damaged / "checkpoints" / "7" / "state")
    assert_fails(r"cannot read the checkpoint .*/damaged/checkpoints/7 \(.*\): pass a different checkpoint", str(damaged))
    (damaged / "mean_image.npy").unlink()
    shutil.copytree(runs["crop"] / "checkpoints" / "7", damaged / "checkpoints" / "7", dirs_exist_ok=True)
    assert_fails("cannot read .*mean_image.npy .*", str(damaged))
    config = TrainConfig(TINY, augmentation=Augmentation(image_size=32))
    diverged = create_untrained_run(dataset, tmp_path / "diverged", config, np.nan)
    message = r".*\.bias in .*diverged at step 7 has 8 values that are infinite or NaN: use weights of an earlier step"
    assert_fails(message, run, str(diverged))
