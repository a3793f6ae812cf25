"""Tests of training initialized with layers of a trained network."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

import alexnet_jax.cli.train
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.export import Export, export
from alexnet_jax.cli.import_weights import Import, import_file
from alexnet_jax.cli.train import train_with_report as train
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dense
from alexnet_jax.parallel import placement
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.initialization import select_initial_layers
from alexnet_jax.training.schedule import LayerRate
from alexnet_jax.weights.trained_model import load, save
from tests.conftest import TINY, TINY_CONFIG, StopAfter, cpu_mesh, read_log

# A linear bottleneck before the last layer, as in the network for the Fall 2011 release.
NARROW = replace(
    TINY,
    name="narrow",
    layers=(*TINY.layers[:-1], Dense(4, name="bottleneck", reads="all", std=0.2), Dense(7, name="fc7", reads="all", std=0.2)),
)


@pytest.fixture(scope="module")
def source(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=folder, devices=2)
    return train("narrow", replace(TINY_CONFIG, network=NARROW, epochs=1), options)


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source, tmp_path / "source")


def init_from(path, **changes) -> TrainConfig:
    return replace(TINY_CONFIG, init_from=path, epochs=2, **changes)


def train_one_step(config, options, monkeypatch):
    """Return the initial parameters of a run, after one step with learning rates of zero."""
    frozen = tuple(LayerRate(name, after=0, weights=0.0, biases=0.0) for name in ("conv1", "conv2", "conv3", "fc6", "fc7"))
    monkeypatch.setattr(alexnet_jax.cli.train, "StopOnSignal", lambda: StopAfter(1))
    run = train("tiny", replace(config, layer_rates=frozen), options)
    monkeypatch.undo()
    assert load(run).step == 1
    return load(run).params


def assert_train_raises(message, config, options):
    with pytest.raises(UserError, match=message):
        train("tiny", config, options)


def equal(params, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("devices", [1, 4])
def test_matching_layers_are_copied_and_others_initialized(source, options, monkeypatch, capsys, devices):
    params = train_one_step(init_from(source), replace(options, devices=devices), monkeypatch)
    network, trained = TINY.with_num_classes(2), load(source).params
    initial = jax.device_get(placement.init(network, cpu_mesh(network, 1, split=False), jax.random.key(0)))
    for name in ("conv1", "conv2", "conv3", "fc6"):
        assert equal(params[name], trained[name])
        assert not equal(params[name], initial[name])
    assert equal(params["fc7"], initial["fc7"])
    expected = f"copied conv1, conv2, conv3, fc6 from {source} at step 10; newly initialized: fc7"
    shapes = "kernel of shape 2×16×1 instead of 2×4×1, towers first"
    assert f"{expected} ({shapes}); not used: bottleneck\n" in capsys.readouterr().err


def test_only_requested_layers_are_copied(source, options, monkeypatch, capsys):
    params = train_one_step(init_from(source, init_layers=("conv1", "conv2")), options, monkeypatch)
    trained = load(source).params
    assert [equal(params[name], trained[name]) for name in ("conv1", "conv2", "conv3", "fc6")] == [True, True, False, False]
    output = capsys.readouterr().err
    assert "copied conv1, conv2 from" in output
    skipped = "conv3 (not in --init-layers), fc6 (not in --init-layers), fc7 (kernel of shape"
    assert f"newly initialized: {skipped}" in output


@pytest.mark.parametrize("kind", ["checkpoint", "file", "imported file"])
def test_every_kind_of_trained_network_is_accepted(source, options, tmp_path, monkeypatch, kind):
    path = tmp_path / "source.safetensors"
    if kind == "checkpoint":
        path = source / "checkpoints" / "10"
    elif kind == "file":
        save(load(source), path)
    else:
        state_dict = export(Export(source, tmp_path / "pytorch.safetensors", layout="pytorch"))
        assert_train_raises(r"convert it with alexnet-jax import .*pytorch.safetensors", init_from(state_dict), options)
        import_file(Import(state_dict, path))
    params, trained = train_one_step(init_from(path), options, monkeypatch), load(source).params
    assert all(equal(params[name], trained[name]) for name in ("conv1", "conv2", "conv3", "fc6"))


def test_reasons_name_shapes_and_missing_layers(source):
    wide = replace(NARROW, layers=(TINY.layers[0].clone(features=10), *TINY.layers[1:-1], Dense(2, name="fc8", reads="all")))
    layers = select_initial_layers(init_from(source), wide, ["above", "below"], load(source), None)
    assert layers is not None
    assert "conv1 (kernel of shape 2×5×5×3×5 instead of 2×5×5×3×4, towers first)" in layers.summary
    assert "fc8 (narrow has no such layer); not used: bottleneck, fc7" in layers.summary
    with pytest.raises(
        UserError, match=r"cannot copy layer conv1 .* \(kernel of shape 2×5×5×3×5 instead of .*\); layers that match"
    ):
        select_initial_layers(init_from(source, init_layers=("conv1",)), wide, ["above", "below"], load(source), None)
    with pytest.raises(UserError, match=r"cannot copy layer conv9 .* \(narrow has no such layer\)"):
        select_initial_layers(init_from(source, init_layers=("conv9",)), wide, ["above", "below"], load(source), None)


def test_last_layer_is_copied_if_classes_are_equal(source):
    narrow = NARROW.with_num_classes(2)
    same_classes = select_initial_layers(init_from(source), narrow, ["above", "below"], load(source), None)
    others = select_initial_layers(init_from(source), narrow, ["left", "right"], load(source), None)
    assert same_classes is not None
    assert same_classes.params is not None
    assert list(same_classes.params) == ["bottleneck", "conv1", "conv2", "conv3", "fc6", "fc7"]
    assert others is not None
    assert others.params is not None
    assert list(others.params) == ["bottleneck", "conv1", "conv2", "conv3", "fc6"]
    assert "newly initialized: fc7 (the classes differ); not used: none" in others.summary


def test_mismatching_layers_raise_and_create_no_folder(source, options, tmp_path):
    one_tower = replace(TINY, towers=1)
    assert_train_raises(
        r"no layer of .* at step 10 \(narrow\) matches tiny \(conv1: kernel of shape 1×5×5×3×8 instead of 2×5×5×3×4, .*\)",
        init_from(source, network=one_tower),
        options,
    )
    message = "cannot copy layer fc7 from .* to tiny \\(kernel of shape .*\\); layers that match: conv1, conv2, conv3, fc6"
    assert_train_raises(message, init_from(source, init_layers=("fc6", "fc7")), options)
    assert_train_raises("has no checkpoints: pass a run folder", init_from(tmp_path), options)
    (tmp_path / "alexnet.pth").write_bytes(b"PK")
    message = (
        r"alexnet.pth is not a .safetensors file: convert weights with alexnet-jax import .*alexnet.pth --to NAME.safetensors"
    )
    assert_train_raises(message, init_from(tmp_path / "alexnet.pth"), options)
    assert not options.runs_dir.exists()


def test_started_run_resumes_without_initial_model(copy, options, monkeypatch, capsys):
    uninterrupted = train("tiny", init_from(copy), replace(options, runs_dir=options.runs_dir.parent / "uninterrupted"))
    monkeypatch.setattr(alexnet_jax.cli.train, "StopOnSignal", lambda: StopAfter(3))
    folder = train("tiny", init_from(copy), options)
    monkeypatch.undo()
    shutil.rmtree(copy)
    assert_train_raises("source does not exist: pass a run folder", init_from(copy), replace(options, fresh=True))
    assert_train_raises("source does not exist: pass a run folder", init_from(copy, init_layers=("conv1",)), options)
    assert train("tiny", init_from(copy), options) == folder
    assert read_log(folder)[-1] == read_log(uninterrupted)[-1]
    assert capsys.readouterr().err.count("copied conv1") == 2, "once per run"
    train("tiny", init_from(copy), options)
    assert "is finished" in capsys.readouterr().err


def test_run_without_checkpoint_needs_initial_model(copy, options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.cli.train, "StopOnSignal", lambda: StopAfter(1))
    folder = train("tiny", init_from(copy), options)
    shutil.rmtree(copy)
    shutil.rmtree(folder / "checkpoints")
    assert_train_raises(
        "source is no longer available, and the run that was initialized from it has no checkpoint", init_from(copy), options
    )


def test_run_folder_depends_on_initial_parameters(copy, options, monkeypatch):
    """Check that the digest in the folder name covers the checksum of the parameters, not only the path of the initial model."""

    def start_run():
        monkeypatch.setattr(alexnet_jax.cli.train, "StopOnSignal", lambda: StopAfter(1))
        folder = train("tiny", init_from(copy), options)
        monkeypatch.undo()
        return folder, json.loads((folder / "config.json").read_text())["initial_layers"]

    first, record = start_run()
    assert record["path"] == str(copy)
    assert (record["step"], record["layers"]) == (10, None)
    longer = replace(TINY_CONFIG, network=NARROW, epochs=2)
    train("narrow", longer, replace(options, run=copy))
    second, second_record = start_run()
    assert second != first
    assert second_record["checksum"] != record["checksum"]
    random = train("tiny", replace(TINY_CONFIG, epochs=1), options)
    assert random not in (first, second)
    assert "initial_layers" not in json.loads((random / "config.json").read_text())


def test_init_from_option(source, photos, options, monkeypatch, capsys):
    arguments = ["--init-from", str(source), "--data", str(photos), "--data-dir", str(options.data_dir)]
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "train", "quickstart", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert f"no layer of {source} at step 10 (narrow) matches quickstart" in capsys.readouterr().err
