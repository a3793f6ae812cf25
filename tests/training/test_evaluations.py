"""Tests of trainings that evaluate some epochs only, or a part of the evaluation split."""

import hashlib
import io
import json
from contextlib import redirect_stderr
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import alexnet_jax.analysis.report
import alexnet_jax.training.loop
from alexnet_jax.cli.train import train_with_report
from alexnet_jax.data.pipeline.batches import random_part
from alexnet_jax.errors import UserError
from alexnet_jax.training.checkpoint_reader import read_metadata
from alexnet_jax.training.config import Options
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import ReduceOnPlateau, StepDecay
from alexnet_jax.training.train import train
from alexnet_jax.training.validation import validate
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY_CONFIG, StopAfter, assert_train_raises, read_log

# Reduce the learning rate after epoch 4, the second one that is evaluated: no error decreases by 1.
SOMETIMES = replace(
    TINY_CONFIG, epochs=5, evaluate_every=2, evaluate_images=9, schedule=ReduceOnPlateau(patience=2, min_delta=1.0)
)


def epoch_lines(folder):
    return [line for line in read_log(folder) if "epoch" in line]


@pytest.fixture(scope="module")
def sometimes(photos, tmp_path_factory):
    """Result of an uninterrupted training with `SOMETIMES`, and what it prints."""
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path_factory.mktemp("runs"), devices=2)
    with redirect_stderr(io.StringIO()) as printed:
        return train("tiny", SOMETIMES, options), printed.getvalue()


def test_only_some_epochs_are_evaluated_on_a_part_and_the_result_on_all_images(sometimes):
    folder, output = sometimes[0].run, sometimes[1]
    lines = epoch_lines(folder)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line.get("images") for line in lines] == [None, 9, None, 9, None]
    assert ["top1_error" in line for line in lines] == [False, True, False, True, False]
    assert all(line["training_error"] < 0.6 for line in lines)
    assert [f"{line['rate']:g}" for line in lines] == ["0.002"] * 4 + ["0.0002"]
    result = json.loads((folder / "result.json").read_text())
    assert (result["images"], result["epochs"], result["steps"]) == (22, 5, 50)
    errors = {10 * line["epoch"]: line["top1_error"] for line in lines if "top1_error" in line}
    best = max(step for step, error in errors.items() if error == min(errors.values()))
    assert result["best"] == {"step": best, "top1_error": pytest.approx(errors[best], abs=1e-6)}
    assert load(folder, best=True).step == best
    printed = [line for line in output.splitlines() if line.startswith(("epoch ", "evaluating"))]
    assert printed[0].startswith(f"epoch 1/5  training top-1 error {lines[0]['training_error']:.1%}")
    assert printed[1].startswith(f"epoch 2/5  9 of 22 validation images: loss {lines[1]['loss']:.3f}  top-1 error ")
    assert printed[-1] == "evaluating the final parameters on all 22 validation images"


def test_resumed_run_equals_uninterrupted_run(sometimes, options):
    """Stop within an evaluation of a part, within an epoch, and within the evaluation of all images at the end."""
    uninterrupted = sometimes[0]
    for calls, step in ((20 + 1, 20), (2 + 10 + 3, 33), (7 + 2 + 10 + 2, 50)):
        stopped = train("tiny", SOMETIMES, options, should_stop=StopAfter(calls))
        assert (stopped.finished, stopped.step) == (False, step)
        assert not (stopped.run / "result.json").exists()
    resumed = train("tiny", SOMETIMES, options)
    assert resumed.finished
    assert resumed.metrics == uninterrupted.metrics
    assert read_log(resumed.run) == read_log(uninterrupted.run)
    results = [json.loads((result.run / "result.json").read_text()) for result in (uninterrupted, resumed)]
    assert results[0]["best"] == results[1]["best"]
    metadata = [read_metadata(result.run / "checkpoints" / "50")[0] for result in (uninterrupted, resumed)]
    for key in ("checksums", "errors", "best_step"):
        assert metadata[0][key] == metadata[1][key]
    assert [error is None for error in metadata[0]["errors"]] == [True, False, True, False, True]


def test_evaluations_do_not_change_a_training_with_a_fixed_schedule(options):
    config = replace(TINY_CONFIG, epochs=2, schedule=StepDecay((1,)))
    every = train("tiny", config, options)
    once = train("tiny", replace(config, evaluate_every=2, evaluate_images=22), options)
    checksums = [read_metadata(result.run / "checkpoints" / "20")[0]["checksums"] for result in (every, once)]
    assert checksums[0] == checksums[1]
    assert every.metrics == once.metrics
    assert epoch_lines(every.run)[1] == epoch_lines(once.run)[1], "a part of all 22 images is the whole split"


def test_run_without_evaluated_epochs_has_a_result_and_a_report(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.analysis.report, "_examples_or_reason", lambda _: "omitted here, to save time")
    folder = train_with_report("tiny", replace(TINY_CONFIG, epochs=1, evaluate_every=3), options)
    result = json.loads((folder / "result.json").read_text())
    assert result["images"] == 22
    assert result["best"] == {"step": None, "top1_error": None}
    row = (folder / "report.html").read_text().split("<summary>Errors after each epoch</summary>")[1].split("</table>")[0]
    assert "<tr><td>1<td>10<td>0.002<td>—<td>—<td>—<td>—<td>" in row
    assert (folder / "curves.png").exists()
    with pytest.raises(UserError, match="no best checkpoint"):
        load(folder, best=True)


def test_settings_of_earlier_runs_are_the_defaults(options):
    """Continue a run whose config.json lacks settings of later versions; its folder has the name that it had then."""
    config = replace(TINY_CONFIG, epochs=1)
    folder = train("tiny", config, options).run
    record = RunDirectory(folder).config
    added = ("evaluate_every", "evaluate_images", "gradient_dtype")
    assert [record.pop(name) for name in added] == [1, None, "float32"]
    (folder / "config.json").write_text(json.dumps(record))
    settings = read_metadata(folder / "checkpoints" / "10")[0]["config"]
    for name in ("epochs", *added):
        del settings[name]
    del settings["data"]["path"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
    assert folder.name.endswith(f"-seed0-{digest}")
    assert train("tiny", replace(config, epochs=2), options).run == folder
    assert train("tiny", replace(config, evaluate_images=5), options).run != folder
    with_run = replace(options, run=folder)
    message = r"other settings \(evaluate_every was 1, is 2\).*--change-settings"
    assert_train_raises(message, replace(config, evaluate_every=2), with_run)


def test_non_finite_loss_on_the_whole_split_is_a_divergence(options, monkeypatch):
    """A part may have a finite loss when the whole split has not."""

    def validate_whole_as_nan(context, params, num_images=None, **arguments):
        validation = validate(context, params, num_images, **arguments)
        assert validation is not None
        metrics = validation.metrics if num_images else replace(validation.metrics, loss=float("nan"))
        return validation._replace(metrics=metrics)

    monkeypatch.setattr(alexnet_jax.training.loop, "validate", validate_whole_as_nan)
    config = replace(TINY_CONFIG, epochs=1, evaluate_images=9)
    assert_train_raises("the validation loss is nan after step 10: choose a lower --learning-rate", config, options)


def test_plateau_with_a_longer_interval_is_refused_before_anything_is_written(options):
    config = replace(TINY_CONFIG, schedule=ReduceOnPlateau(patience=2), evaluate_every=3)
    assert_train_raises("--evaluate-every 3 is more than --patience 2", config, options)
    assert not options.runs_dir.exists()


def test_random_parts_are_nested_and_ascending():
    parts = [random_part(1000, size) for size in (1, 10, 500, 1000, 2000)]
    assert [len(part) for part in parts] == [1, 10, 500, 1000, 1000]
    for smaller, larger in pairwise(parts):
        assert (np.diff(larger) > 0).all()
        assert set(smaller.tolist()) <= set(larger.tolist())
    assert 400 < parts[2].mean() < 600
