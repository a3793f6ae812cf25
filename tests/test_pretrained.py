"""Training that begins with what another has learned."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

import alexnet_jax.__main__ as cli
import alexnet_jax.training
from alexnet_jax import placement
from alexnet_jax.experiment import Experiment
from alexnet_jax.layers import Dense
from alexnet_jax.pretrained import pretrained
from alexnet_jax.schedule import LayerRate
from alexnet_jax.trained import load
from alexnet_jax.training import Options, train
from tests.conftest import TINY, TINY_EXPERIMENT, Stop, log, mesh_of, refused

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
    return train("narrow", replace(TINY_EXPERIMENT, network=NARROW, epochs=1), options)


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source, tmp_path / "source")


def begin(path, **changes) -> Experiment:
    return replace(TINY_EXPERIMENT, init_from=path, epochs=2, **changes)


def at_the_start(experiment, options, monkeypatch):
    """The parameters that training begins with: no rate changes them."""
    still = tuple(LayerRate(name, after=0, weights=0.0, biases=0.0) for name in ("conv1", "conv2", "conv3", "fc6", "fc7"))
    monkeypatch.setattr(alexnet_jax.training, "Interrupt", lambda: Stop(1))
    run = train("tiny", replace(experiment, layer_rates=still), options)
    monkeypatch.undo()
    assert load(run).step == 1
    return load(run).params


def same(these, those):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True))


@pytest.mark.parametrize("devices", [1, 4])
def test_layers_are_carried_over_and_new_ones_start_as_ever(source, options, monkeypatch, capsys, devices):
    params = at_the_start(begin(source), replace(options, devices=devices), monkeypatch)
    network, trained = TINY.with_classes(2), load(source).params
    initial = jax.device_get(placement.init(network, mesh_of(network, 1, split=False), jax.random.key(0)))
    for name in ("conv1", "conv2", "conv3", "fc6"):
        assert same(params[name], trained[name])
        assert not same(params[name], initial[name])
    assert same(params["fc7"], initial["fc7"])
    said = f"begins with conv1, conv2, conv3, fc6 of {source} at step 10; new: fc7; left: bottleneck\n"
    assert said in capsys.readouterr().err


def test_layers_asked_for_are_carried_over_alone(source, options, monkeypatch, capsys):
    params = at_the_start(begin(source, init_layers=("conv1", "conv2")), options, monkeypatch)
    trained = load(source).params
    assert [same(params[name], trained[name]) for name in ("conv1", "conv2", "conv3", "fc6")] == [True, True, False, False]
    assert "begins with conv1, conv2 of" in capsys.readouterr().err


def test_the_last_layer_is_carried_over_if_the_classes_are_the_same(source):
    narrow = NARROW.with_classes(2)
    same_classes = pretrained(begin(source), narrow, ["above", "below"], None)
    others = pretrained(begin(source), narrow, ["left", "right"], None)
    assert same_classes is not None
    assert same_classes.layers is not None
    assert list(same_classes.layers) == ["bottleneck", "conv1", "conv2", "conv3", "fc6", "fc7"]
    assert others is not None
    assert others.layers is not None
    assert list(others.layers) == ["bottleneck", "conv1", "conv2", "conv3", "fc6"]


def test_what_does_not_fit_is_refused_and_nothing_is_left_behind(source, options, tmp_path):
    one_tower = replace(TINY, towers=1)
    refused("at step 10, a narrow, has no layer that tiny could begin with", begin(source, network=one_tower), options)
    wanted = "tiny cannot begin with fc7 of .*; it could with conv1, conv2, conv3, fc6"
    refused(wanted, begin(source, init_layers=("fc6", "fc7")), options)
    refused("neither the folder of a run", begin(tmp_path), options)
    assert not options.runs_dir.exists()


def test_a_run_that_has_begun_needs_the_other_no_more(copy, options, monkeypatch, capsys):
    whole = train("tiny", begin(copy), replace(options, runs_dir=options.runs_dir.parent / "whole"))
    monkeypatch.setattr(alexnet_jax.training, "Interrupt", lambda: Stop(3))
    folder = train("tiny", begin(copy), options)
    monkeypatch.undo()
    shutil.rmtree(copy)
    refused("neither the folder of a run", begin(copy), replace(options, fresh=True))
    refused("neither the folder of a run", begin(copy, init_layers=("conv1",)), options)
    assert train("tiny", begin(copy), options) == folder
    assert log(folder)[-1] == log(whole)[-1]
    assert capsys.readouterr().err.count("begins with") == 2, "once each"
    train("tiny", begin(copy), options)
    assert "is finished" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_cannot_go_on_without_the_other(copy, options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training, "Interrupt", lambda: Stop(1))
    folder = train("tiny", begin(copy), options)
    shutil.rmtree(copy)
    shutil.rmtree(folder / "checkpoints")
    refused("source cannot be read any more, and the run that began with it has no checkpoint", begin(copy), options)


def test_a_run_belongs_to_what_it_began_with(copy, options, monkeypatch):
    """To its numbers, wherever they came from in the source's training, and not to the name alone."""

    def begun():
        monkeypatch.setattr(alexnet_jax.training, "Interrupt", lambda: Stop(1))
        folder = train("tiny", begin(copy), options)
        monkeypatch.undo()
        return folder, json.loads((folder / "config.json").read_text())["pretrained"]

    first, about = begun()
    assert about["run"] == str(copy)
    assert (about["step"], about["layers"]) == (10, None)
    longer = replace(TINY_EXPERIMENT, network=NARROW, epochs=2)
    train("narrow", longer, replace(options, run=copy))
    second, about_second = begun()
    assert second != first
    assert about_second["checksum"] != about["checksum"]
    random = train("tiny", replace(TINY_EXPERIMENT, epochs=1), options)
    assert random not in (first, second)
    assert "pretrained" not in json.loads((random / "config.json").read_text())


def test_the_command_line_takes_it(source, photos, options, monkeypatch, capsys):
    arguments = ["--init-from", str(source), "--data", str(photos), "--data-dir", str(options.data_dir)]
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "train", "quickstart", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert "has no layer that quickstart could begin with" in capsys.readouterr().err
