"""Training that begins with what another has learned."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

import alexnet_jax.training.loop
from alexnet_jax.cli import main as cli
from alexnet_jax.cli.train import train_with_report as train
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dense
from alexnet_jax.parallel import placement
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.initialization import select_initial_layers
from alexnet_jax.training.loop import Options
from alexnet_jax.training.schedule import LayerRate
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY, TINY_CONFIG, Stop, log, mesh_of

# The classes behind a layer without nonlinearity, as in the network for Fall 2011.
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


def begin(path, **changes) -> TrainConfig:
    return replace(TINY_CONFIG, init_from=path, epochs=2, **changes)


def at_the_start(experiment, options, monkeypatch):
    """The parameters that training begins with: no rate changes them."""
    still = tuple(LayerRate(name, after=0, weights=0.0, biases=0.0) for name in ("conv1", "conv2", "conv3", "fc6", "fc7"))
    monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda: Stop(1))
    run = train("tiny", replace(experiment, layer_rates=still), options)
    monkeypatch.undo()
    assert load(run).step == 1
    return load(run).params


def refused(message, config, options):
    with pytest.raises(UserError, match=message):
        train("tiny", config, options)


def same(these, those):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True))


@pytest.mark.parametrize("devices", [1, 4])
def test_layers_are_carried_over_and_new_ones_start_as_ever(source, options, monkeypatch, capsys, devices):
    params = at_the_start(begin(source), replace(options, devices=devices), monkeypatch)
    network, trained = TINY.with_num_classes(2), load(source).params
    initial = jax.device_get(placement.init(network, mesh_of(network, 1, split=False), jax.random.key(0)))
    for name in ("conv1", "conv2", "conv3", "fc6"):
        assert same(params[name], trained[name])
        assert not same(params[name], initial[name])
    assert same(params["fc7"], initial["fc7"])
    said = f"copied conv1, conv2, conv3, fc6 from {source} at step 10; newly initialized: fc7; not used: bottleneck\n"
    assert said in capsys.readouterr().err


def test_layers_asked_for_are_carried_over_alone(source, options, monkeypatch, capsys):
    params = at_the_start(begin(source, init_layers=("conv1", "conv2")), options, monkeypatch)
    trained = load(source).params
    assert [same(params[name], trained[name]) for name in ("conv1", "conv2", "conv3", "fc6")] == [True, True, False, False]
    assert "copied conv1, conv2 from" in capsys.readouterr().err


def test_the_last_layer_is_carried_over_if_the_classes_are_the_same(source):
    narrow = NARROW.with_num_classes(2)
    same_classes = select_initial_layers(begin(source), narrow, ["above", "below"], load(source), None)
    others = select_initial_layers(begin(source), narrow, ["left", "right"], load(source), None)
    assert same_classes is not None
    assert same_classes.params is not None
    assert list(same_classes.params) == ["bottleneck", "conv1", "conv2", "conv3", "fc6", "fc7"]
    assert others is not None
    assert others.params is not None
    assert list(others.params) == ["bottleneck", "conv1", "conv2", "conv3", "fc6"]


def test_what_does_not_fit_is_refused_and_nothing_is_left_behind(source, options, tmp_path):
    one_tower = replace(TINY, towers=1)
    refused("at step 10, a narrow, has no layer that matches one of tiny", begin(source, network=one_tower), options)
    wanted = "tiny cannot copy fc7 from .*; layers that match: conv1, conv2, conv3, fc6"
    refused(wanted, begin(source, init_layers=("fc6", "fc7")), options)
    refused("neither the folder of a run", begin(tmp_path), options)
    assert not options.runs_dir.exists()


def test_a_run_that_has_begun_needs_the_other_no_more(copy, options, monkeypatch, capsys):
    whole = train("tiny", begin(copy), replace(options, runs_dir=options.runs_dir.parent / "whole"))
    monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda: Stop(3))
    folder = train("tiny", begin(copy), options)
    monkeypatch.undo()
    shutil.rmtree(copy)
    refused("neither the folder of a run", begin(copy), replace(options, fresh=True))
    refused("neither the folder of a run", begin(copy, init_layers=("conv1",)), options)
    assert train("tiny", begin(copy), options) == folder
    assert log(folder)[-1] == log(whole)[-1]
    assert capsys.readouterr().err.count("copied conv1") == 2, "once each"
    train("tiny", begin(copy), options)
    assert "is finished" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_cannot_go_on_without_the_other(copy, options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda: Stop(1))
    folder = train("tiny", begin(copy), options)
    shutil.rmtree(copy)
    shutil.rmtree(folder / "checkpoints")
    refused("source is no longer available, and the run that started from it has no checkpoint", begin(copy), options)


def test_a_run_belongs_to_what_it_began_with(copy, options, monkeypatch):
    """To its numbers, wherever they came from in the source's training, and not to the name alone."""

    def begun():
        monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda: Stop(1))
        folder = train("tiny", begin(copy), options)
        monkeypatch.undo()
        return folder, json.loads((folder / "config.json").read_text())["initial_layers"]

    first, about = begun()
    assert about["path"] == str(copy)
    assert (about["step"], about["layers"]) == (10, None)
    longer = replace(TINY_CONFIG, network=NARROW, epochs=2)
    train("narrow", longer, replace(options, run=copy))
    second, about_second = begun()
    assert second != first
    assert about_second["checksum"] != about["checksum"]
    random = train("tiny", replace(TINY_CONFIG, epochs=1), options)
    assert random not in (first, second)
    assert "initial_layers" not in json.loads((random / "config.json").read_text())


def test_the_command_line_takes_it(source, photos, options, monkeypatch, capsys):
    arguments = ["--init-from", str(source), "--data", str(photos), "--data-dir", str(options.data_dir)]
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "train", "quickstart", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert "has no layer that matches one of quickstart" in capsys.readouterr().err
