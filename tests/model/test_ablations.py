"""Tests of the ablations of networks, and of the study that compares training runs with and without them."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import ONE_GPU, QUICKSTART, SIXTH_CONV, SOURCE_145, TWO_TOWER
from alexnet_jax.configs import load_config
from alexnet_jax.errors import DivergedError, UserError
from alexnet_jax.model import ablations
from alexnet_jax.model.comparison_layers import ContrastNorm, Tanh, Trim
from alexnet_jax.model.layers import TOWER, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel import placement
from alexnet_jax.training.schedule import StaircaseExponential, StepDecay
from tests.conftest import cpu_mesh

ABLATIONS = {
    "no_lrn": ablations.without_normalization,
    "no_overlap": ablations.without_overlap,
    "no_dropout": ablations.without_dropout,
    "contrast": ablations.with_contrast_norm,
    "tanh": ablations.with_nonlinearity("tanh"),
    "conv2": ablations.without_layer("conv2"),
    "conv3": ablations.without_layer("conv3"),
    "conv4": ablations.without_layer("conv4"),
    "fc7": ablations.without_layer("fc7"),
    "one_gpu": ablations.one_tower,
    "no_communication": ablations.without_communication,
}


def parameter_count(network):
    return sum(row.parameters for row in summarize(network))


def test_one_tower_equals_one_gpu_network():
    assert ablations.one_tower(TWO_TOWER).layers == ONE_GPU.layers
    assert parameter_count(ablations.one_tower(TWO_TOWER)) == 59_798_312


@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145, SIXTH_CONV, QUICKSTART], ids=lambda network: network.name)
@pytest.mark.parametrize("name", ABLATIONS)
def test_ablated_network_is_valid(network, name):
    ablated = ABLATIONS[name](network)
    assert ablated != network
    assert summarize(ablated)[-1].shape == (network.num_classes,)


@pytest.mark.parametrize("name", ["no_lrn", "no_dropout", "contrast", "tanh"])
def test_parameter_count_is_unchanged(name):
    assert parameter_count(ABLATIONS[name](TWO_TOWER)) == parameter_count(TWO_TOWER)


@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145, SIXTH_CONV, QUICKSTART], ids=lambda network: network.name)
def test_shapes_are_unchanged_without_overlap(network):
    ablated = ablations.without_overlap(network)
    before, after = ({row.name: row.shape for row in summarize(net)} for net in (network, ablated))
    assert before == {name: shape for name, shape in after.items() if not name.endswith("/trim")}
    assert parameter_count(ablated) == parameter_count(network)


def test_trim(rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 7, 3)), jnp.float32)
    trimmed = Trim(2).apply({}, x)
    np.testing.assert_array_equal(trimmed, x[:, :6, :6])
    np.testing.assert_array_equal(Trim(2).apply({}, trimmed), trimmed)


def test_ablated_layers_are_removed():
    kinds = {type(layer) for layer in ablations.without_normalization(SOURCE_145).layers}
    assert not kinds & {LocalResponseNorm, SameMapNorm}
    assert [layer.size for layer in ablations.without_overlap(TWO_TOWER).layers if isinstance(layer, MaxPool)] == [2, 2, 2]
    assert not any(isinstance(layer, ReLU) for layer in ablations.with_nonlinearity("tanh")(TWO_TOWER).layers)
    assert sum(isinstance(layer, Tanh) for layer in ablations.with_nonlinearity("tanh")(TWO_TOWER).layers) == 7
    names = set(ablations.without_layer("fc7")(TWO_TOWER).named_layers)
    assert set(TWO_TOWER.named_layers) - names == {"fc7", "fc7/relu", "fc7/drop"}


def test_next_layer_reads_all_towers_after_removal():
    reads = {name: layer.reads for name, layer in ablations.without_layer("conv3")(TWO_TOWER).named_layers.items()}
    assert [name for name, source in reads.items() if source == "all"] == ["conv4", "fc6", "fc7", "fc8"]
    assert "conv5/pool" in ablations.without_layer("conv4")(TWO_TOWER).named_layers
    assert "conv4/pool" in ablations.without_layer("conv5")(TWO_TOWER).named_layers, "pooling is kept"
    assert "conv2_pool" in ablations.without_layer("conv2")(TWO_TOWER).named_layers, "renamed after another pooling"


@pytest.mark.parametrize("name", ["conv1", "fc8", "conv9"])
def test_removal_of_other_layers_raises(name):
    with pytest.raises(UserError, match=rf"no inner layer '{name}' to remove; choose one of conv2, .*, fc7$"):
        ablations.without_layer(name)(TWO_TOWER)


def test_without_communication_only_last_layer_reads_all_towers(tiny):
    ablated = ablations.without_communication(tiny)
    assert [name for name, layer in ablated.named_layers.items() if layer.reads == "all"] == ["fc7"]


def test_initial_weights_of_kept_layers_are_unchanged(tiny):
    mesh = cpu_mesh(tiny, 1, split=False)
    before = placement.init(tiny, mesh, jax.random.key(0))
    after = placement.init(ablations.without_normalization(tiny), mesh, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(("half", "beta"), [(2, 0.75), (1, 0.5)])
def test_contrast_norm_equals_numpy(half, beta, rng):
    x = rng.normal(3, 2, size=(2, 3, 3, 9))
    layer = ContrastNorm(size=2 * half + 1, k=1.5, alpha=0.1, beta=beta)
    actual = jax.vmap(lambda x: layer.apply({}, x), axis_name=TOWER)(jnp.asarray(x, jnp.float32)[None])[0]
    window = [slice(max(0, i - half), i + half + 1) for i in range(9)]
    centered = np.stack([x[..., i] - x[..., window[i]].mean(-1) for i in range(9)], axis=-1)
    power = [(1.5 + 0.1 * (centered[..., window[i]] ** 2).sum(-1)) ** beta for i in range(9)]
    expected = np.stack([centered[..., i] / power[i] for i in range(9)], axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


EXPERIMENTS = Path(__file__).parents[2] / "experiments"

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
    result = module.ablate(replace(settings, no_lrn=True, seeds=(0,)))
    assert json.loads((settings.runs_dir / "ablate.json").read_text()) == result
    top1 = result["ablations"]["no_lrn"]["top1"]
    assert top1["delta"] == top1["ablated"][0] - top1["base"][0]
    assert top1["low"] is None
    capsys.readouterr()
    extended = module.ablate(replace(settings, no_lrn=True, seeds=(0, 1)))
    stderr = capsys.readouterr().err
    assert stderr.count("is finished") == 2
    assert extended["seeds"] == [0, 1]
    assert extended["ablations"]["no_lrn"]["top1"]["low"] is not None
    assert module.table(extended).row_count == 1


@pytest.mark.slow
def test_every_flag_trains(ablate):
    module, settings = ablate
    flags = {name: True for name in module.CHANGES}
    other_flags = {"without_layer": ("conv3",), "nonlinearity": ("sigmoid",), "seeds": (0,), "views": "center"}
    result = module.ablate(replace(settings, **flags, **other_flags))
    assert len(result["ablations"]) == len(flags) + 2


def test_together_combines_ablations(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, no_lrn=True, no_flip=True, together=True))
    assert list(configs) == ["base", "no_lrn+no_flip"]
    transforms = configs["no_lrn+no_flip"].augmentation.transforms
    assert [type(transform).__name__ for transform in transforms] == ["RandomCrop", "PCAColor"]


def test_schedule_is_scaled_to_the_number_of_epochs(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, base="quickstart", epochs=14, no_lrn=True))
    assert configs["no_lrn"].schedule.milestones == (11,)
    source = load_config("source_145").with_epochs(13)
    assert source.schedule == StepDecay(milestones=(4, 7, 11), bias_milestones=())
    assert ([rate.after for rate in source.layer_rates], source.color_epochs) == ([10, 10], 10)
    assert replace(source, schedule=StaircaseExponential(decay_epochs=13)).with_epochs(26).schedule == StaircaseExponential(
        decay_epochs=26
    )


def test_settings_of_removed_layers_are_dropped(ablate):
    module, settings = ablate
    configs = module.ablation_configs(replace(settings, base="cifar_four_layers", without_layer=("local3",)))
    assert [layer for layer, _ in configs["without_local3"].layer_decays] == ["local4", "fc10"]
    assert configs["without_local3"].epoch_hparams([]) is not None


def test_numbers_of_epochs_are_separate_trainings(ablate, capsys):
    """Check that the run folder depends on the number of epochs, even if the schedule does not."""
    module, settings = ablate
    settings = replace(settings, no_flip=True, seeds=(0,), views="center")
    first = module.ablate(settings)
    module.ablate(replace(settings, epochs=2))
    assert module.ablate(settings) == first


def test_stored_ablations_with_same_settings_are_kept(ablate):
    module, settings = ablate
    settings = replace(settings, seeds=(0,), views="center")
    module.ablate(replace(settings, no_crop=True))
    assert list(module.ablate(replace(settings, no_flip=True))["ablations"]) == ["no_crop", "no_flip"]
    file = settings.runs_dir / "ablate.json"
    stored = json.loads(file.read_text())
    assert module.stored_ablations(file, {**stored, "views": "ten"}) == {}
    file.write_text("[1, 2")
    with pytest.raises(UserError, match=r"ablate\.json is not a result file of ablate\.py"):
        module.ablate(replace(settings, no_flip=True))


def test_diverged_training_does_not_stop_the_study(ablate, monkeypatch):
    module, settings = ablate
    original_train = module.train

    def train(name, *args, **kwargs):
        if name.endswith("no_flip"):
            raise DivergedError("the loss is nan at step 3")
        return original_train(name, *args, **kwargs)

    monkeypatch.setattr(module, "train", train)
    result = module.ablate(replace(settings, no_flip=True, no_crop=True, seeds=(0,), views="center"))
    comparison = result["ablations"]
    assert (comparison["no_flip"]["top1"]["ablated"], comparison["no_flip"]["top1"]["delta"]) == ([None], None)
    assert comparison["no_crop"]["top1"]["delta"] is not None
    assert "diverged" in list(module.table(result).columns[1].cells)


@pytest.mark.parametrize(
    ("settings_change", "message"),
    [
        ({}, "no ablation requested: pass at least one of --no-lrn"),
        ({"without_layer": ("conv7",)}, "no inner layer 'conv7' to remove"),
        ({"no_lrn": True, "base": "nothing"}, "no config 'nothing'"),
        ({"no_lrn": True, "seeds": ()}, "--seeds must be one or more"),
        ({"base": "cifar_four_layers", "no_dropout": True}, "--no-dropout changes nothing in cifar_four_layers"),
    ],
)
def test_invalid_settings_raise(ablate, settings_change, message):
    module, settings = ablate
    with pytest.raises(UserError, match=message):
        module.ablation_configs(replace(settings, **settings_change))
