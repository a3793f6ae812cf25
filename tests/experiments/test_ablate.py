"""Tests of the study that compares trainings with and without components of a network."""

import json
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest

from alexnet_jax.configs import load_config
from alexnet_jax.errors import UserError
from alexnet_jax.training.schedule import StaircaseExponential, StepDecay
from alexnet_jax.training.variants import Variant

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RATE = 0.014
"""Learning rate at which the tiny network trains with normalization only."""
NO_LRN, NO_FLIP, NO_CROP = Variant(no_lrn=True), Variant(no_flip=True), Variant(no_crop=True)

TINY_CONFIG_FILE = """
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.training.config import TrainConfig
from tests.tiny import TINY

CONFIG = TrainConfig(TINY, epochs=2, batch_size=8, learning_rate=0.002, augmentation=Augmentation(image_size=32))
"""


@pytest.fixture
def ablate(photos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = import_module("ablate")
    (tmp_path / "tiny.py").write_text(TINY_CONFIG_FILE)
    settings = module.Ablate(
        base=str(tmp_path / "tiny.py"),
        data=str(photos),
        data_dir=photos.parent / "data",
        runs_dir=tmp_path / "runs",
        devices=1,
        placement="single",
        epochs=1,
    )
    return module, settings


def test_ablation_is_compared_with_base_and_trained_once(ablate, capsys):
    module, settings = ablate
    result = module.ablate(replace(settings, variant=NO_LRN, seeds=(0,)))
    assert json.loads((settings.runs_dir / "ablate.json").read_text()) == result
    top1 = result["ablations"]["no_lrn"]["top1"]
    assert top1["delta"] == top1["ablated"][0] - top1["base"][0]
    assert top1["low"] is None
    capsys.readouterr()
    extended = module.ablate(replace(settings, variant=NO_LRN, seeds=(0, 1)))
    stderr = capsys.readouterr().err
    assert stderr.count("is finished") == 2
    assert extended["seeds"] == [0, 1]
    assert extended["ablations"]["no_lrn"]["top1"]["low"] is not None
    assert module.table(extended).row_count == 1


@pytest.mark.slow
def test_every_flag_trains(ablate):
    module, settings = ablate
    flags = {field.name: True for field in fields(Variant) if field.default is False}
    variant = Variant(**flags, without_layer=("conv3",), nonlinearity="sigmoid", crop_size=27)
    result = module.ablate(replace(settings, variant=variant, seeds=(0,), views="center"))
    assert len(result["ablations"]) == len(flags) + 3


def test_together_combines_ablations(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, variant=Variant(no_lrn=True, no_flip=True), together=True))
    assert list(configs) == ["base", "no_lrn+no_flip"]
    transforms = configs["no_lrn+no_flip"].augmentation.transforms
    assert [type(transform).__name__ for transform in transforms] == ["RandomCrop", "PCAColor"]


def test_schedule_is_scaled_to_the_number_of_epochs(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, base="quickstart", epochs=14, variant=NO_LRN))
    assert configs["no_lrn"].schedule.milestones == (11,)
    source = load_config("source_145").with_epochs(13)
    assert source.schedule == StepDecay(milestones=(4, 7, 11), bias_milestones=())
    assert ([rate.after for rate in source.layer_rates], source.color_epochs) == ([10, 10], 10)
    assert replace(source, schedule=StaircaseExponential(decay_epochs=13)).with_epochs(26).schedule == StaircaseExponential(
        decay_epochs=26
    )


def test_settings_of_removed_layers_are_dropped(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, base="cifar_four_layers", variant=Variant(without_layer=("local3",))))
    assert [layer for layer, _ in configs["without_local3"].layer_decays] == ["local4", "fc10"]
    assert configs["without_local3"].epoch_hparams(0) is not None


def test_numbers_of_epochs_are_separate_trainings(ablate, capsys):
    """Check that the run folder depends on the number of epochs, even if the schedule does not."""
    module, settings = ablate
    settings = replace(settings, variant=NO_FLIP, seeds=(0,), views="center")
    first = module.ablate(settings)
    module.ablate(replace(settings, epochs=2))
    assert module.ablate(settings) == first


def test_stored_ablations_with_same_settings_are_kept(ablate):
    module, settings = ablate
    settings = replace(settings, seeds=(0,), views="center")
    module.ablate(replace(settings, variant=NO_CROP))
    assert list(module.ablate(replace(settings, variant=NO_FLIP))["ablations"]) == ["no_crop", "no_flip"]
    file = settings.runs_dir / "ablate.json"
    stored = json.loads(file.read_text())
    assert module.stored_ablations(file, {**stored, "views": "ten"}) == {}
    file.write_text("[1, 2")
    with pytest.raises(UserError, match=r"ablate\.json is not a result file of ablate\.py"):
        module.ablate(replace(settings, variant=NO_FLIP))


@pytest.fixture
def diverging(ablate, monkeypatch):
    """Return a function that trains without flips and crops, where trainings without flips diverge above a learning rate."""
    module, settings = ablate

    def study(highest_rate, diverging_seeds):
        def train_and_test(name, config, *_):
            if name == "no_flip" and config.seed in diverging_seeds and config.learning_rate > highest_rate:
                return None, None
            return 0.5 + 0.01 * config.seed, config.learning_rate

        monkeypatch.setattr(module, "train_and_test", train_and_test)
        return module.ablate(replace(settings, variant=Variant(no_flip=True, no_crop=True), seeds=(0, 1), learning_rate=0.3))

    return study


def test_diverged_arm_is_tried_again_at_a_third_of_the_rate(ablate, diverging):
    """Only the second seed diverges, but both are trained again, so that all runs of a network have the same rate."""
    module, _ = ablate
    result = diverging(0.2, diverging_seeds=(1,))
    retried = result["ablations"]["no_flip"]
    first_try = {"learning_rate": 0.3, "top1": [0.5, None], "top5": [0.3, None]}
    assert retried["retried"] == {"learning_rate": pytest.approx(0.1), "first_try": first_try}
    assert (retried["top1"]["ablated"], retried["top5"]["ablated"]) == ([0.5, 0.51], [pytest.approx(0.1)] * 2)
    assert "retried" not in result["ablations"]["no_crop"]
    assert result["learning_rate"] == 0.3
    cells = [list(column.cells) for column in module.table(result).columns]
    assert cells[0] == ["no-crop", "no-flip"]
    assert [cell.endswith(" at a third of the rate") for cell in cells[1]] == [False, True]


def test_arm_that_diverges_again_has_no_difference(ablate, diverging):
    module, _ = ablate
    result = diverging(0.01, diverging_seeds=(0, 1))
    top1 = result["ablations"]["no_flip"]["top1"]
    assert (top1["ablated"], top1["delta"]) == ([None, None], None)
    assert result["ablations"]["no_flip"]["retried"]["first_try"]["top1"] == [None], "tried again after the first seed"
    assert list(module.table(result).columns[1].cells)[1] == "diverged"
    assert result["ablations"]["no_crop"]["top1"]["delta"] == 0


def test_diverging_network_is_trained_at_a_third_of_the_rate(ablate):
    """Without normalization, the tiny network diverges at a rate at which it trains with normalization."""
    module, settings = ablate
    result = module.ablate(replace(settings, variant=NO_LRN, seeds=(0,), views="center", learning_rate=RATE))
    retried = result["ablations"]["no_lrn"]["retried"]
    assert (retried["learning_rate"], retried["first_try"]["top1"]) == (RATE / 3, [None])
    assert result["ablations"]["no_lrn"]["top1"]["delta"] is not None
    assert result["base_errors"]["top1"] != [None]


@pytest.mark.parametrize(
    ("settings_change", "message"),
    [
        ({}, "no ablation requested: pass --no-lrn"),
        ({"variant": Variant(without_layer=("conv7",))}, "no inner layer 'conv7' to remove"),
        ({"variant": NO_LRN, "base": "nothing"}, "no config 'nothing'"),
        ({"variant": NO_LRN, "seeds": ()}, "--seeds must be one or more"),
        ({"variant": NO_LRN, "learning_rate": -1.0}, "--learning-rate must be at least 0"),
        ({"base": "cifar_four_layers", "variant": Variant(no_dropout=True)}, "--no-dropout changes nothing in cifar_"),
    ],
)
def test_invalid_settings_raise(ablate, settings_change, message):
    module, settings = ablate
    with pytest.raises(UserError, match=message):
        module.ablation_configs(replace(settings, **settings_change))
