"""Tests of what training prints, logs and advises while a network predicts one class only, and of its confusion matrix."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import alexnet_jax.training.run_logger
from alexnet_jax.configs import config_names
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.training.confusion import Confusion, Confusions
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import StepDecay
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, read_log
from tests.tiny import TINY


def with_std(std, last=None):
    """Return `TINY` with another standard deviation of the initial weights, and a different one of the last layer."""
    layers = [layer.clone(std=std) if isinstance(layer, WeightedLayer) else layer for layer in TINY.layers]
    return replace(TINY, layers=(*layers[:-1], layers[-1].clone(std=std if last is None else last)))


def epoch_lines(output):
    return [line for line in output.splitlines() if line.startswith("epoch ")]


def confusion_matrix(folder):
    """Return the class names and the numbers in confusion.csv."""
    with (folder / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == header[1:]
    return header[1:], np.array([row[1:] for row in rows], int)


def test_one_class_is_named_and_the_end_says_how_to_go_on(options, capsys):
    config = replace(TINY_CONFIG, network=with_std(0.01), epochs=2, learning_rate=0.0)
    folder = train("tiny", config, options).run
    output = capsys.readouterr().err
    (name,) = {line.split("predicts only ")[1] for line in epoch_lines(output)}
    assert name in [f"{each!r}; expected at first with the paper's initial weights" for each in ("above", "below")]
    only = name.split("'")[1]
    assert f"the network predicts only {only!r} (always predicting the most frequent class has 50.0%)" in output
    advice = output.split("the network predicts only")[1].splitlines()[1:]
    assert advice == [
        "  the same command with --epochs 4 continues the training",
        f"  alexnet-jax train source_145 --data {options.data} has initial weights without this plateau",
        f"  alexnet-jax train quickstart --data {options.data} is for small data sets",
    ]
    assert {"source_145", "quickstart"} <= set(config_names())
    assert [line["predicted_classes"] for line in read_log(folder) if "epoch" in line] == [1, 1]
    assert json.loads((folder / "result.json").read_text())["predicted_classes"] == 1
    names, matrix = confusion_matrix(folder)
    expected = np.zeros((2, 2), int)
    expected[:, names.index(only)] = 11
    np.testing.assert_array_equal(matrix, expected)

    assert train("tiny", replace(config, epochs=4), options).run == folder, "as the advice says"
    assert len(epoch_lines(capsys.readouterr().err)) == 2


def test_advice_to_continue_keeps_a_schedule_that_depends_on_the_epochs(options, capsys):
    config = replace(TINY_CONFIG, network=with_std(0.01), epochs=2, schedule=StepDecay((1,)))
    folder = train("tiny", config, replace(options, classes=("below", "above"))).run
    output = capsys.readouterr().err.splitlines()
    assert f"  the same command with --epochs 4 --run {folder} --keep-schedule continues the training" in output
    data = RunDirectory(folder).config["data"]["path"]  # of the selected classes
    assert data != str(options.data)
    assert any(line.startswith("  alexnet-jax train quickstart --data ") and data in line for line in output)


def test_one_class_is_not_expected_with_other_weights_or_after_learning(options, capsys, monkeypatch):
    config = replace(TINY_CONFIG, network=with_std(0.1, last=0.0), epochs=1, learning_rate=0.0)
    train("tiny", config, options)
    output = capsys.readouterr().err
    assert epoch_lines(output)[0].endswith("predicts only 'above'")
    assert "source_145" not in output
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LEARNING_MARGIN", -0.1)  # as if each network had learned
    train("tiny", replace(config, network=with_std(0.01), epochs=2), options)
    first, second = epoch_lines(capsys.readouterr().err)
    assert first.endswith("initial weights"), "nothing was learned before"
    assert second.endswith(("predicts only 'above'", "predicts only 'below'"))


def test_trained_network_predicts_several_classes(trained_run):
    result = json.loads((trained_run / "result.json").read_text())
    assert result["predicted_classes"] == 2
    _, matrix = confusion_matrix(trained_run)
    assert matrix.sum(axis=1).tolist() == [11, 11]
    assert 1 - np.trace(matrix) / matrix.sum() == pytest.approx(result["top1_error"], abs=1e-6)


def test_confusions_equal_numpy(rng):
    labels, predictions = rng.integers(-1, 5, 300), rng.integers(0, 5, 300)
    predictions[labels == 2] = 2
    confusions = Confusions(5)
    for part in (slice(0, 100), slice(100, None)):
        confusions.add(labels[part], predictions[part])
    matrix = np.array([[((labels == a) & (predictions == b)).sum() for b in range(5)] for a in range(5)])
    np.testing.assert_array_equal(confusions.matrix, matrix)
    wrong = matrix - np.diag(np.diag(matrix))
    top = confusions.most_frequent(4)
    assert [each.images for each in top] == sorted(wrong.ravel().tolist(), reverse=True)[:4]
    assert all(each == Confusion(*each[:2], wrong[each[:2]], matrix[each.label].sum()) for each in top)
    assert all(each.label != 2 for each in confusions.most_frequent(100))
    assert confusions.true_classes == confusions.predicted_classes == [0, 1, 2, 3, 4]


def test_confusion_matrix_is_deleted_when_training_continues(options):
    folder = train("tiny", replace(TINY_CONFIG, epochs=1), options).run
    assert (folder / "confusion.csv").exists()
    stopped = train("tiny", TINY_CONFIG, options, should_stop=lambda: True)
    assert not stopped.finished
    assert not (folder / "confusion.csv").exists()


def test_names_are_text_in_spreadsheets():
    assert next(Confusions(2).csv_rows(["=1+1", "b"])) == ["class", "'=1+1", "b"]
