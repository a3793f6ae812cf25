"""`evaluate`: what it finds equals a plain NumPy computation from the logits of views cut out by hand."""

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
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation, mean_to_subtract
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shards import new_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.parallel import placement
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.run_directory import RunDirectory, run_config
from alexnet_jax.training.step import TrainState
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY, TINY_CONFIG, mesh_of

CLASSES = [f"band {place}" for place in range(7)]
COUNTS = {"train": [12] * 7, "validation": [4, 3, 5, 2, 6, 3, 0], "test": [5, 1, 4, 6, 2, 3, 2]}

# Corners and center of 29 pixels in 32, and of 37 in 64; then flipped. The grid of nine.
PLACES = {
    "center": {29: [(1, 1)], 37: [(13, 13)]},
    "ten": {29: [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)], 37: [(0, 0), (0, 27), (27, 0), (27, 27), (13, 13)]},
    "nine": {side: [(top, left) for top in of for left in of] for side, of in ((29, (0, 1, 3)), (37, (0, 13, 27)))},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Classes of different numbers of images; a class is a bright band, which a few steps half learn."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "bands"
    with new_dataset(path, CLASSES, size=64) as writer:
        for split, counts in COUNTS.items():
            order = rng.permutation(np.repeat(np.arange(7), counts))
            for number, label in enumerate(order.tolist()):
                pixels = rng.integers(0, 150, (64, 64, 3))
                pixels[9 * label : 9 * label + 9] += rng.integers(10, 100)
                pixels = pixels.astype(np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), label, f"{split}/{number}.jpg"), pixels)
    return open_dataset(path)


def untrained(dataset, folder, experiment, std=0.15):
    """A run of random weights, which are as good to compare numbers on, and there sooner."""
    network = experiment.network.with_num_classes(len(dataset.manifest.classes))
    run, config = RunDirectory(folder, fresh=False), run_config(experiment, network, dataset)
    run.write_mean_image(mean_to_subtract(dataset.mean_image, experiment.augmentation))
    rng = np.random.default_rng(experiment.seed)
    shapes = jax.eval_shape(partial(placement.init, network, mesh_of(network, 1, split=False)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(std * rng.normal(size=leaf.shape), jnp.float32), shapes)
    checkpoints = Checkpoints(run.checkpoints, config)
    checkpoints.save(TrainState(jnp.asarray(7, jnp.int32), params, params), {})
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """Three networks: one with the mean image cropped with the image, one with its center, one of larger images."""
    folder = tmp_path_factory.mktemp("runs")
    small = {mean: Augmentation(image_size=32, mean=mean) for mean in ("crop", "center")}
    large = replace(TINY, name="large", input_size=37)
    experiments = {
        "crop": TrainConfig(TINY, augmentation=small["crop"]),
        "center": TrainConfig(TINY, augmentation=small["center"], seed=1),
        "large": TrainConfig(large, augmentation=Augmentation(image_size=64), seed=2),
    }
    return {name: untrained(dataset, folder / name, experiment) for name, experiment in experiments.items()}


def by_hand(run, dataset, split, views):
    """Labels and mean of the softmax over views."""
    trained = load(run)
    size, moves = trained.network.input_size, trained.config["augmentation"]["mean"] == "crop"
    stored = DecodedImages(dataset, split, trained.image_size)
    images = np.stack([stored.pixels(stored.record(place)).copy() for place in range(len(stored))]).astype(np.float32)
    labels = np.array([stored.record(place).label for place in range(len(stored))])
    logits = placement.forward(trained.network, mesh_of(trained.network, 1, split=False))
    middle = (trained.image_size - size) // 2
    fixed = trained.mean_image[middle : middle + size, middle : middle + size]
    total = np.zeros((len(labels), 7))
    cuts = [(place, flipped) for flipped in (False, True)[: 2 if views == "ten" else 1] for place in PLACES[views][size]]
    for (top, left), flipped in cuts:
        view = images[:, top : top + size, left : left + size]
        mean = trained.mean_image[top : top + size, left : left + size]
        if flipped:
            view, mean = view[:, :, ::-1], mean[:, ::-1]
        exponentials = np.exp(np.asarray(jax.jit(logits)(trained.params, view - (mean if moves else fixed), None), np.float64))
        total += exponentials / exponentials.sum(axis=1, keepdims=True)
    return labels, total / len(cuts)


def errors_by_hand(labels, probabilities):
    top5 = [
        label in sorted(range(7), key=lambda c, row=row: -row[c])[:5] for label, row in zip(labels, probabilities, strict=True)
    ]
    wrong = probabilities.argmax(axis=1) != labels
    return {
        "top1_error": pytest.approx(wrong.mean(), abs=1e-6),
        "top5_error": pytest.approx(1 - np.mean(top5), abs=1e-6),
        "loss": pytest.approx(-np.log(probabilities[np.arange(len(labels)), labels]).mean(), rel=1e-4),
        "mean_class_error": pytest.approx(np.mean([wrong[labels == c].mean() for c in set(labels.tolist())]), abs=1e-6),
        "images": len(labels),
    }


def evaluated(*networks, **settings):
    file = evaluate(Evaluate(networks=networks, **settings))
    result = json.loads(file.read_text())
    of = {(line.pop("of"), line.pop("views")): line for line in result["errors"]}
    return of, result, file.parent


def without_coefficients(line):
    return {key: value for key, value in line.items() if key != "coefficients"}


@pytest.mark.parametrize("name", ["crop", "center", "large"])
def test_errors_of_each_views_equal_numpys(name, runs, dataset, tmp_path):
    views = ("center", "ten", "nine")
    of, result, folder = evaluated(runs[name], views=views, split="test", to=tmp_path / "out", batch_size=10)
    for seen in views:
        labels, probabilities = by_hand(runs[name], dataset, "test", seen)
        assert without_coefficients(of[str(runs[name]), seen]) == errors_by_hand(labels, probabilities)
        with (folder / f"predictions-{seen}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == [f"test/{number}.jpg" for number in range(len(labels))]
        assert [row["class"] for row in rows] == [CLASSES[label] for label in labels]
        best = np.argsort(-probabilities, axis=1)[:, :5]
        assert [[row[f"class_{place}"] for place in range(1, 6)] for row in rows] == [[CLASSES[c] for c in of] for of in best]
        found = [[float(row[f"probability_{place}"]) for place in range(1, 6)] for row in rows]
        np.testing.assert_allclose(found, np.take_along_axis(probabilities, best, axis=1), rtol=1e-4)
    network = "large" if name == "large" else "tiny"
    assert result["networks"] == [{"path": str(runs[name]), "network": network, "step": 7}]
    assert (result["data"], result["split"], result["coefficients_searched_on"]) == ("bands", "test", None)
    assert {file.name for file in folder.iterdir()} == {
        "errors.json", "classes.csv", "predictions-center.csv", "predictions-ten.csv", "predictions-nine.csv",
    }  # fmt: skip


def test_an_ensemble_is_the_mean_of_what_its_networks_see(runs, dataset, tmp_path):
    """Whatever the size of their images."""
    of, _, _ = evaluated(*runs.values(), split="test", to=tmp_path / "out", batch_size=8)
    assert [seen for name, seen in of if name == "mean"] == ["center", "ten"]
    for seen in ("center", "ten"):
        labels, rows = zip(*(by_hand(run, dataset, "test", seen) for run in runs.values()), strict=True)
        assert without_coefficients(of["mean", seen]) == errors_by_hand(labels[0], np.mean(rows, axis=0))
        for run, alone in zip(runs.values(), rows, strict=True):
            assert without_coefficients(of[str(run), seen]) == errors_by_hand(labels[0], alone)


def test_coefficients_are_searched_on_one_split_and_applied_to_another(runs, dataset, tmp_path, capsys):
    networks = tuple(runs.values())
    settings = {"views": ("center",), "search": "validation"}
    there, _, _ = evaluated(*networks, split="validation", to=tmp_path / "there", **settings)
    assert "too small" in capsys.readouterr().err
    assert there["weighted by validation", "center"]["top5_error"] <= there["mean", "center"]["top5_error"]
    elsewhere, result, folder = evaluated(*networks, split="test", to=tmp_path / "elsewhere", **settings)
    assert "too small" not in capsys.readouterr().err
    weighted = elsewhere["weighted by validation", "center"]
    assert weighted["coefficients"] == there["weighted by validation", "center"]["coefficients"]
    assert sum(weighted["coefficients"]) == pytest.approx(1)
    labels, rows = zip(*(by_hand(run, dataset, "test", "center") for run in networks), strict=True)
    mean = np.tensordot(weighted["coefficients"], rows, axes=1)
    assert without_coefficients(weighted) == errors_by_hand(labels[0], mean)
    assert (result["split"], result["coefficients_searched_on"]) == ("test", "validation")
    with (folder / "predictions-center.csv").open() as file:
        assert [row["class_1"] for row in csv.DictReader(file)] == [CLASSES[c] for c in mean.argmax(axis=1)], (
            "the weighted mean's"
        )


def test_devices_make_no_difference(runs, dataset, monkeypatch):
    """Two towers on two devices each, and batches that devices cannot share: they are rounded up."""
    trained = load(runs["crop"])
    alone = Predictor(trained, views="ten", batch_size=7).split(dataset, "test")
    monkeypatch.setattr("alexnet_jax.evaluation.predictor.choose_mesh", lambda network, *_: mesh_of(network, 2, split=True))
    shared = Predictor(trained, views="ten", batch_size=7).split(dataset, "test")
    np.testing.assert_array_equal(shared.labels, alone.labels)
    np.testing.assert_allclose(shared.rows, alone.rows, atol=1e-5)


def test_padding_counts_nowhere_and_classes_add_up(runs, tmp_path):
    of = {}
    for batch_size in (5, 23):
        of[batch_size], result, folder = evaluated(
            runs["crop"], split="test", to=tmp_path / str(batch_size), batch_size=batch_size
        )
        for key, line in of[batch_size].items():
            assert without_coefficients(line) == pytest.approx(without_coefficients(of[5][key]))
        assert [line["images"] for line in result["classes"]] == COUNTS["test"]
        with (folder / "classes.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["class"] for row in rows] == CLASSES
        for seen in ("center", "ten"):
            wrong = sum(line["images"] * line["top1_error"][seen] for line in result["classes"])
            assert wrong / 23 == pytest.approx(of[5][str(runs["crop"]), seen]["top1_error"], abs=1e-5)
            errors = [float(row[f"top1_error_{seen}"]) for row in rows]
            assert errors == [line["top1_error"][seen] for line in result["classes"]]


def test_a_class_without_images_has_no_error(runs, tmp_path):
    of, result, folder = evaluated(runs["crop"], split="validation", to=tmp_path / "out")
    assert result["classes"][6] == {"class": "band 6", "images": 0, "top1_error": {"center": None, "ten": None}}
    assert (folder / "classes.csv").read_text().endswith("\nband 6,0,,\n")
    mean = np.mean([line["top1_error"]["center"] for line in result["classes"][:6]])
    assert of[str(runs["crop"]), "center"]["mean_class_error"] == pytest.approx(mean, abs=1e-6)


def test_without_settings_it_is_what_the_run_was_trained_and_measured_on(trained_run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "evaluate", str(trained_run)])
    cli.main()
    out, err = capsys.readouterr()
    measured = json.loads((trained_run / "result.json").read_text())
    file = trained_run / "evaluation" / f"{measured['data']}-validation" / "errors.json"
    assert out == f"{file}\n"
    center, ten = json.loads(file.read_text())["errors"]
    assert (center["views"], ten["views"]) == ("center", "ten")
    for key in ("top1_error", "top5_error", "images"):
        assert center[key] == measured[key]
    assert center["loss"] == pytest.approx(measured["loss"], rel=1e-4)
    assert f"top-1 error {center['top1_error']:.2%}" in err
    assert "│ above" in err


def test_images_of_cifar_are_seen_nine_times(tmp_path, rng):
    with new_dataset(tmp_path / "cifar", ["a", "b"], size=32) as writer:
        for split in ("train", "test"):
            for number in range(8):
                pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), number % 2, f"{number}.jpg"), pixels)
    run = untrained(open_dataset(tmp_path / "cifar"), tmp_path / "run", TINY_CONFIG)
    of, result, folder = evaluated(run)
    assert [seen for _, seen in of] == ["center", "nine"]
    assert result["split"] == "test"
    header, *_ = (folder / "predictions-nine.csv").read_text().splitlines()
    assert header == "image,class,class_1,probability_1,class_2,probability_2"
    assert of[str(run), "nine"]["top5_error"] == 0, "of two classes"


def test_mistakes_get_one_line_and_nothing_is_written(runs, dataset, tmp_path, monkeypatch, capsys):
    run = str(runs["crop"])

    def refused(message, *arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", "evaluate", *arguments, "--to", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = capsys.readouterr()
        assert exit_.value.code == 1
        assert said.out == ""
        assert re.fullmatch(f"error: {message}\n", said.err.splitlines(keepends=True)[-1])
        assert "Traceback" not in said.err
        assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("out/.*"))

    refused("name a run or a checkpoint: .*")
    refused("/nowhere is neither the folder of a run that has checkpoints nor one of them, .*", "/nowhere")
    refused(r"/.*/bands has no split 'tset'; it has: train, validation, test", run, "--split", "tset")
    refused(".*has no split 'tset'.*", run, run, "--search", "tset")
    refused("--search is for the mean of several networks.*", run, "--search", "validation")
    refused("no data set '/nowhere'.*", run, "--data", "/nowhere")
    refused("0 images cannot be a batch.*", run, "--batch-size", "0")

    def other(name, classes, size):
        with new_dataset(tmp_path / name, classes, size=size) as writer:
            for split in ("train", "validation"):
                pixels = np.zeros((size, size, 3), np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), 0, "black.jpg"), pixels)
        return str(tmp_path / name)

    refused(".*of 48 pixels, and .*/crop at step 7 needs 32: .* --size 32", run, "--data", other("small", CLASSES, 48))
    gone = untrained(open_dataset(Path(other("gone", CLASSES, 64))), tmp_path / "begun", TINY_CONFIG)
    shutil.rmtree(tmp_path / "gone")
    refused(".*/gone does not exist: pass a data set with --data", str(gone))
    few = other("few", CLASSES[:5], 64)
    refused("5 classes, not 7: .*/few is not for .*/crop at step 7; choose another --data", run, "--data", few)
    renamed = other("renamed", [*CLASSES[:3], "stripe", *CLASSES[4:]], 64)
    refused("class 3 is 'stripe', not 'band 3': .*", run, "--data", renamed)
    stripes = untrained(open_dataset(tmp_path / "renamed"), tmp_path / "stripes", TINY_CONFIG)
    refused("class 3 is 'stripe', not 'band 3': .* make no ensemble", run, str(stripes))

    damaged = shutil.copytree(runs["crop"], tmp_path / "damaged")
    shutil.rmtree(damaged / "checkpoints" / "7" / "state")
    refused("the checkpoint .*/damaged/checkpoints/7 cannot be read: .*", str(damaged))
    (damaged / "mean_image.npy").unlink()
    shutil.copytree(runs["crop"] / "checkpoints" / "7", damaged / "checkpoints" / "7", dirs_exist_ok=True)
    refused(".*mean_image.npy cannot be read .*", str(damaged))
    no_number = untrained(dataset, tmp_path / "diverged", TrainConfig(TINY, augmentation=Augmentation(image_size=32)), np.nan)
    refused(".*diverged at step 7 gives no numbers, so its training has diverged: .*", run, str(no_number))
