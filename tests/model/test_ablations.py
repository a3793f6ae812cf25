"""Networks made from networks, and the comparison of what they lead to."""

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
from alexnet_jax.model import ablations as variants
from alexnet_jax.model.comparison_layers import ContrastNorm, Tanh, Trim
from alexnet_jax.model.layers import TOWER, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel import placement
from alexnet_jax.training.schedule import StaircaseExponential, StepDecay
from tests.conftest import mesh_of

ALL = {
    "no_lrn": variants.without_normalization,
    "no_overlap": variants.without_overlap,
    "no_dropout": variants.without_dropout,
    "contrast": variants.with_contrast_norm,
    "tanh": variants.with_nonlinearity("tanh"),
    "conv2": variants.without_layer("conv2"),
    "conv3": variants.without_layer("conv3"),
    "conv4": variants.without_layer("conv4"),
    "fc7": variants.without_layer("fc7"),
    "one_gpu": variants.one_tower,
    "apart": variants.without_communication,
}


def parameters(network):
    return sum(row.parameters for row in summarize(network))


def test_one_tower_is_the_papers_one_gpu_network():
    assert variants.one_tower(TWO_TOWER).layers == ONE_GPU.layers
    assert parameters(variants.one_tower(TWO_TOWER)) == 59_798_312


@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145, SIXTH_CONV, QUICKSTART], ids=lambda network: network.name)
@pytest.mark.parametrize("name", ALL)
def test_every_variant_fits_together(network, name):
    made = ALL[name](network)
    assert made != network
    assert summarize(made)[-1].shape == (network.num_classes,)


@pytest.mark.parametrize("name", ["no_lrn", "no_dropout", "contrast", "tanh"])
def test_weights_are_as_many_as_before(name):
    assert parameters(ALL[name](TWO_TOWER)) == parameters(TWO_TOWER)


@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145, SIXTH_CONV, QUICKSTART], ids=lambda network: network.name)
def test_pooling_apart_puts_out_as_much(network):
    shapes, apart = ({row.name: row.shape for row in summarize(of)} for of in (network, variants.without_overlap(network)))
    assert shapes == {name: shape for name, shape in apart.items() if not name.endswith("/trim")}
    assert parameters(variants.without_overlap(network)) == parameters(network)


def test_squares_apart_are_whole(rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 7, 3)), jnp.float32)
    trimmed = Trim(2).apply({}, x)
    np.testing.assert_array_equal(trimmed, x[:, :6, :6])
    np.testing.assert_array_equal(Trim(2).apply({}, trimmed), trimmed)


def test_what_is_taken_out_is_gone():
    kinds = {type(layer) for layer in variants.without_normalization(SOURCE_145).layers}
    assert not kinds & {LocalResponseNorm, SameMapNorm}
    assert [layer.size for layer in variants.without_overlap(TWO_TOWER).layers if isinstance(layer, MaxPool)] == [2, 2, 2]
    assert not any(isinstance(layer, ReLU) for layer in variants.with_nonlinearity("tanh")(TWO_TOWER).layers)
    assert sum(isinstance(layer, Tanh) for layer in variants.with_nonlinearity("tanh")(TWO_TOWER).layers) == 7
    names = set(variants.without_layer("fc7")(TWO_TOWER).named_layers)
    assert set(TWO_TOWER.named_layers) - names == {"fc7", "fc7/relu", "fc7/drop"}


def test_the_layer_after_one_that_read_all_towers_does_so_instead():
    reads = {name: layer.reads for name, layer in variants.without_layer("conv3")(TWO_TOWER).named_layers.items()}
    assert [name for name, of in reads.items() if of == "all"] == ["conv4", "fc6", "fc7", "fc8"]
    assert "conv5/pool" in variants.without_layer("conv4")(TWO_TOWER).named_layers
    assert "conv4/pool" in variants.without_layer("conv5")(TWO_TOWER).named_layers, "pooling stays"
    assert "conv2_pool" in variants.without_layer("conv2")(TWO_TOWER).named_layers, "under a name of its own after another"


@pytest.mark.parametrize("name", ["conv1", "fc8", "conv9"])
def test_layers_that_cannot_go_are_named(name):
    with pytest.raises(UserError, match=rf"no layer '{name}' to do without; it has conv2, .*, fc7$"):
        variants.without_layer(name)(TWO_TOWER)


def test_towers_apart_meet_at_the_last_layer(tiny):
    apart = variants.without_communication(tiny)
    assert [name for name, layer in apart.named_layers.items() if layer.reads == "all"] == ["fc7"]


def test_layers_that_stay_begin_alike(tiny):
    mesh = mesh_of(tiny, 1, split=False)
    before = placement.init(tiny, mesh, jax.random.key(0))
    after = placement.init(variants.without_normalization(tiny), mesh, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_contrast_is_what_is_left_without_the_mean(rng):
    x = rng.normal(3, 2, size=(2, 3, 3, 9))
    layer = ContrastNorm(size=5, k=1.5, alpha=0.1, beta=0.75)
    ours = jax.vmap(lambda x: layer.apply({}, x), axis_name=TOWER)(jnp.asarray(x, jnp.float32)[None])[0]
    window = [slice(max(0, i - 2), i + 3) for i in range(9)]
    left = np.stack([x[..., i] - x[..., window[i]].mean(-1) for i in range(9)], axis=-1)
    expected = np.stack([left[..., i] / (1.5 + 0.1 * (left[..., window[i]] ** 2).sum(-1)) ** 0.75 for i in range(9)], axis=-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TINY = """
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.training.config import TrainConfig
from tests.tiny import TINY

CONFIG = TrainConfig(TINY, epochs=2, batch_size=8, learning_rate=0.002, augmentation=Augmentation(image_size=32))
"""


@pytest.fixture
def ablate(photos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = import_module("ablate")
    (tmp_path / "tiny.py").write_text(TINY)
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


def test_an_ablation_is_compared_with_its_base_and_not_trained_twice(ablate, capsys):
    module, settings = ablate
    result = module.ablate(replace(settings, no_lrn=True, seeds=(0,)))
    assert json.loads((settings.runs_dir / "ablate.json").read_text()) == result
    found = result["ablations"]["no_lrn"]
    assert found["top1"]["delta"] == found["top1"]["ablated"][0] - found["top1"]["base"][0]
    assert found["top1"]["low"] is None
    capsys.readouterr()
    again = module.ablate(replace(settings, no_lrn=True, seeds=(0, 1)))
    told = capsys.readouterr().err
    assert told.count("is finished") == 2
    assert again["seeds"] == [0, 1]
    assert again["ablations"]["no_lrn"]["top1"]["low"] is not None
    assert module.table(again).row_count == 1


@pytest.mark.slow
def test_every_flag_trains(ablate):
    module, settings = ablate
    flags = {name: True for name in module.CHANGES}
    more = {"without_layer": ("conv3",), "nonlinearity": ("sigmoid",), "seeds": (0,), "views": "center"}
    result = module.ablate(replace(settings, **flags, **more))
    assert len(result["ablations"]) == len(flags) + 2


def test_together_is_one_network(ablate):
    module, settings = ablate
    made = module.experiments(replace(settings, no_lrn=True, no_flip=True, together=True))
    assert list(made) == ["base", "no_lrn+no_flip"]
    assert not made["no_lrn+no_flip"].augmentation.flip


def test_what_a_schedule_changes_keeps_its_share_of_fewer_epochs(ablate):
    module, settings = ablate
    made = module.experiments(replace(settings, base="quickstart", epochs=14, no_lrn=True))
    assert made["no_lrn"].schedule.milestones == (11,)
    source = load_config("source_145").in_epochs(13)
    assert source.schedule == StepDecay(milestones=(4, 7, 11), bias_milestones=())
    assert ([rate.after for rate in source.layer_rates], source.color_epochs) == ([10, 10], 10)
    assert replace(source, schedule=StaircaseExponential(over=13)).in_epochs(26).schedule == StaircaseExponential(over=26)


def test_the_rates_of_a_layer_go_with_it(ablate):
    module, settings = ablate
    made = module.experiments(replace(settings, base="cifar_four_layers", without_layer=("local3",)))
    assert [layer for layer, _ in made["without_local3"].layer_decays] == ["local4", "fc10"]
    assert made["without_local3"].epoch_hparams([]) is not None


def test_another_length_is_another_training(ablate, capsys):
    """A plateau has the same run folder for any number of epochs: the longer run must not pass for the shorter."""
    module, settings = ablate
    settings = replace(settings, no_flip=True, seeds=(0,), views="center")
    first = module.ablate(settings)
    module.ablate(replace(settings, epochs=2))
    assert module.ablate(settings) == first


def test_ablations_of_the_same_settings_stay_in_the_file(ablate):
    module, settings = ablate
    settings = replace(settings, seeds=(0,), views="center")
    module.ablate(replace(settings, no_crop=True))
    assert list(module.ablate(replace(settings, no_flip=True))["ablations"]) == ["no_crop", "no_flip"]
    file = settings.runs_dir / "ablate.json"
    held = json.loads(file.read_text())
    assert module.earlier(file, {**held, "views": "ten"}) == {}
    file.write_text("[1, 2")
    with pytest.raises(UserError, match=r"ablate\.json is no result of this program"):
        module.ablate(replace(settings, no_flip=True))


def test_a_training_that_diverges_leaves_the_others(ablate, monkeypatch):
    module, settings = ablate
    trained = module.train

    def train(name, *rest):
        if name.endswith("no_flip"):
            raise DivergedError("the loss is nan at step 3")
        return trained(name, *rest)

    monkeypatch.setattr(module, "train", train)
    result = module.ablate(replace(settings, no_flip=True, no_crop=True, seeds=(0,), views="center"))
    found = result["ablations"]
    assert (found["no_flip"]["top1"]["ablated"], found["no_flip"]["top1"]["delta"]) == ([None], None)
    assert found["no_crop"]["top1"]["delta"] is not None
    assert "diverged" in list(module.table(result).columns[1].cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "say what to do without: --no-lrn"),
        ({"without_layer": ("conv7",)}, "no layer 'conv7' to do without"),
        ({"no_lrn": True, "base": "nothing"}, "there is no experiment 'nothing'"),
        ({"no_lrn": True, "seeds": ()}, "--seeds one or more"),
        ({"base": "cifar_four_layers", "no_dropout": True}, "--no-dropout changes nothing of cifar_four_layers"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(ablate, change, message):
    module, settings = ablate
    with pytest.raises(UserError, match=message):
        module.experiments(replace(settings, **change))
