"""Tests of the variants of a config, from Python and from the command line."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax import TWO_TOWER
from alexnet_jax.cli import main as cli
from alexnet_jax.cli import train as train_command
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.model import ablations
from alexnet_jax.model.comparison_layers import Tanh
from alexnet_jax.model.summary import smallest_input_size, summarize
from alexnet_jax.training.variants import Variant
from tests.conftest import TINY_CONFIG
from tests.tiny import TINY

FLAGS = [field.name for field in fields(Variant) if field.default is False]
ISSUE = Variant(no_lrn=True, one_gpu=True, without_layer=("conv4",), nonlinearity="tanh", crop_size=96)


def test_all_changes_are_made_and_named():
    config = ISSUE.apply(load_config("two_tower"))
    assert config.network.name == "two_tower-no_lrn+one_gpu+without_conv4+tanh+crop_96"
    assert (config.network.towers, config.network.input_size) == (1, 96)
    expected = ablations.without_layer("conv4")(ablations.one_tower(ablations.without_normalization(TWO_TOWER)))
    assert config.network.layers == ablations.with_nonlinearity("tanh")(expected).layers
    assert any(isinstance(layer, Tanh) for layer in config.network.layers)


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_changes_the_config_and_only_once(name):
    config = load_config("two_tower")
    variant = replace(Variant(), **{name: True})
    changed = variant.apply(config)
    assert changed != config
    assert variant.name == name
    with pytest.raises(UserError, match=rf"^--{name.replace('_', '-')} changes nothing in two_tower.*: omit it$"):
        variant.apply(changed)


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Variant,
        **{name: st.booleans() for name in FLAGS},
        without_layer=st.lists(st.sampled_from(["conv3", "conv4", "fc7"]), unique=True).map(tuple),
        nonlinearity=st.sampled_from([None, "tanh", "sigmoid"]),
    )
)
def test_parts_are_the_changes_one_by_one(variant):
    parts = variant.parts()
    assert "+".join(parts) == variant.name
    assert all(len(part.parts()) == 1 for part in parts.values())
    assert bool(variant.name) == (variant != Variant())
    config = load_config("source_145")
    try:
        combined = variant.apply(config)
    except UserError:  # two changes of the same layers
        return
    for part in parts.values():
        config = part.apply(config)
    assert config.network.layers == combined.network.layers
    assert (config.augmentation, config.layer_rates, config.color_epochs) == (
        combined.augmentation, combined.layer_rates, combined.color_epochs,
    )  # fmt: skip


@pytest.mark.parametrize("name", config_names())
def test_nothing_requested_changes_nothing(name):
    assert Variant().apply(load_config(name)) == load_config(name)
    assert Variant().named(name) == name


def test_settings_of_removed_layers_and_transforms_are_dropped():
    config = Variant(without_layer=("conv3",), no_color=True).apply(load_config("finetune"))
    assert "conv3" not in (config.init_layers or ())
    assert "conv4" in (config.init_layers or ())
    assert config.color_epochs is None


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (Variant(crop_size=12), "--crop-size 12 does not fit tiny and images of 32 pixels: choose 13 to 32$"),
        (Variant(crop_size=33), "--crop-size 33 does not fit tiny and images of 32 pixels: choose 13 to 32$"),
        (Variant(crop_size=29), "--crop-size 29 changes nothing in tiny: omit it$"),
        (Variant(without_layer=("conv1",)), "no inner layer 'conv1' to remove; choose one of conv2, "),
        (Variant(one_gpu=True, no_cross_tower=True), "--no-cross-tower changes nothing in tiny after --one-gpu: omit it$"),
    ],
)
def test_what_does_not_apply_is_refused(variant, message):
    with pytest.raises(UserError, match=message):
        variant.apply(TINY_CONFIG)


def test_every_layer_has_outputs_from_the_smallest_input_size_on():
    assert all(min(row.shape) > 0 for row in summarize(replace(TINY, input_size=13)))
    assert smallest_input_size(TINY, 10) is None


@pytest.fixture
def command(monkeypatch):
    """Return a function that runs a command, and for `train` returns the name and the config to train."""
    trained = []
    monkeypatch.setattr(train_command, "configure_training", lambda options, towers: trained.append(towers))
    monkeypatch.setattr(train_command, "train_with_report", lambda *arguments: trained.append(arguments) or Path("run"))

    def run(line: str):
        monkeypatch.setattr(sys, "argv", ["alexnet-jax", *line.split()])
        cli.main()
        return trained

    return run


def test_train_names_the_run_after_the_variant(command):
    line = "train two_tower --no-lrn --one-gpu --without-layer conv4 --nonlinearity tanh --crop-size 96 --epochs 3"
    towers, (name, config, _) = command(line)
    assert towers == 1, "the process is configured for the towers of the variant"
    assert name == "two_tower-no_lrn+one_gpu+without_conv4+tanh+crop_96"
    assert config == replace(ISSUE.apply(load_config("two_tower")), epochs=3)


def test_summary_shows_the_variant(command, capsys):
    command("summary two_tower --one-gpu")
    assert "two_tower-one_gpu, 1 tower, one image: 59,798,312 parameters" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command("summary two_tower --no-color")
    assert capsys.readouterr().err == "error: no_color changes no layer of two_tower: omit it\n"
