"""Tests of the ablations of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import ONE_GPU, QUICKSTART, SIXTH_CONV, SOURCE_145, TWO_TOWER
from alexnet_jax.errors import UserError
from alexnet_jax.model import ablations
from alexnet_jax.model.comparison_layers import ContrastNorm, Tanh, Trim
from alexnet_jax.model.layers import TOWER, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel import placement
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
