"""Tests of the networks: logits against NumPy, shapes and totals against the paper, and initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import NETWORKS, ONE_GPU, SIXTH_CONV, SOURCE_145, TWO_TOWER
from alexnet_jax.model.layers import TOWER, Conv, NormPool, ReLU, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import activations, fuse_norm_pool, logits
from alexnet_jax.parallel import placement
from tests.conftest import cpu_mesh
from tests.numpy_network import tiny_logits


@pytest.mark.parametrize("split", [False, True], ids=["one device", "two devices"])
def test_logits_equal_numpy(tiny, rng, split):
    mesh = cpu_mesh(tiny, 1, split=split)
    params = placement.init(tiny, mesh, jax.random.key(1))
    images = rng.normal(0, 50, (3, 29, 29, 3)).astype(np.float32)
    actual = jax.jit(placement.forward(tiny, mesh))(params, images, None)
    expected = tiny_logits(jax.device_get(params), images.astype(np.float64))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("network", "parameters", "neurons", "macs"),
    [
        (TWO_TOWER, 60_965_224, 659_272, 724_406_816),
        (SOURCE_145, 60_965_224, 659_272, 724_406_816),
        (ONE_GPU, 59_798_312, None, None),
        (SIXTH_CONV, 61_555_304, None, None),
        (NETWORKS["source_146"], 61_555_304, None, None),
        (NETWORKS["fall2009"], 99_182_152, None, None),
        (NETWORKS["fall2011"], 110_607_316, None, None),  # two towers of 10,922 units; one unit is unused
        (NETWORKS["two_columns"], 60_714_408, None, None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_totals_equal_paper(network, parameters, neurons, macs):
    rows = summarize(network)
    assert sum(row.parameters for row in rows) == parameters
    assert neurons is None or sum(row.neurons for row in rows) == neurons
    assert macs is None or sum(row.macs for row in rows) == macs


def test_shapes_equal_figure_2():
    shapes = {row.name: row.shape for row in summarize(TWO_TOWER)}
    assert shapes["conv1"] == (55, 55, 96)
    assert shapes["conv1/pool"] == (27, 27, 96)
    assert shapes["conv2"] == (27, 27, 256)
    assert shapes["conv3"] == (13, 13, 384)
    assert shapes["conv5/pool"] == (6, 6, 256)
    assert shapes["fc8"] == (1000,)


def test_layers_that_read_both_towers():
    reads_all = [name for name, layer in TWO_TOWER.named_layers.items() if layer.reads == "all"]
    assert reads_all == ["conv3", "fc6", "fc7", "fc8"]


def test_fall2011_and_two_columns_differ_from_source_145_as_documented():
    source, pretrained = SOURCE_145.named_layers, NETWORKS["fall2011"].named_layers
    assert [name for name in pretrained if name not in source] == ["conv6", "conv6/relu", "bottleneck"]
    assert {name: layer for name, layer in pretrained.items() if name in source and name != "fc8"} == {
        name: layer for name, layer in source.items() if name != "fc8"
    }
    assert list(pretrained)[-3:] == ["fc7/drop", "bottleneck", "fc8"], "the bottleneck is linear"
    shapes = {row.name: row.shape for row in summarize(NETWORKS["fall2011"])}
    assert shapes["conv6"] == (6, 6, 256)
    assert shapes["bottleneck"] == (2048,)
    columns = NETWORKS["two_columns"].named_layers
    assert list(columns) == list(source)
    assert {name for name, layer in columns.items() if layer != source[name]} == {"conv2", "conv3", "fc6", "fc7"}
    assert [name for name, layer in columns.items() if layer.reads == "all"] == ["fc8"]
    kernels = {row.name: row.per_tower for row in summarize(NETWORKS["two_columns"]) if row.per_tower}
    # Layer widths in layers-150.cfg.
    assert list(kernels.values()) == [48, 160, 192, 192, 128, 4096, 2048, 500]


def test_relu_norm_and_pool_are_fused():
    """Check that layers in the paper's order are fused, and that source_145, which has a different order, is unchanged."""
    assert [name for name, layer in fuse_norm_pool(TWO_TOWER.named_layers).items() if isinstance(layer, NormPool)] == [
        "conv1/pool",
        "conv2/pool",
    ]
    assert fuse_norm_pool(SOURCE_145.named_layers) == SOURCE_145.named_layers


def test_fused_layers_give_same_logits(tiny, rng):
    params = placement.init(tiny, cpu_mesh(tiny, 1, split=False), jax.random.key(1))
    images = jnp.asarray(rng.normal(0, 50, (3, 29, 29, 3)), jnp.float32)
    keys = jax.random.split(jax.random.key(2), 3)

    def apply_both(params):
        unfused = list(activations(tiny, params, images, keys).values())[-1]
        return unfused, logits(tiny, params, images, keys)

    unfused, fused = jax.vmap(apply_both, axis_name=TOWER)(params)
    np.testing.assert_allclose(unfused, fused, rtol=1e-6)


@pytest.mark.parametrize("network", [SOURCE_145, NETWORKS["quickstart"]], ids=lambda network: network.name)
def test_initial_weights_follow_layer_fields(network):
    network = network.with_num_classes(10)
    params = placement.init(network, cpu_mesh(network, 1, split=False), jax.random.key(0))
    for name, layer in network.named_layers.items():
        if isinstance(layer, WeightedLayer):
            kernel = np.asarray(params[name]["kernel"])
            assert kernel.mean() == pytest.approx(0, abs=5 * layer.std / kernel.size**0.5)
            assert kernel.std() == pytest.approx(layer.std, rel=5 / kernel.size**0.5)
            assert (np.asarray(params[name]["bias"]) == layer.bias).all()
            assert not np.array_equal(kernel[0], kernel[1]), "towers have the same initial weights"


def test_documented_differences_of_two_tower_and_source_145():
    paper, source = TWO_TOWER.named_layers, SOURCE_145.named_layers
    assert all(layer.std == 0.01 for layer in paper.values() if isinstance(layer, WeightedLayer))
    assert {name for name, layer in source.items() if isinstance(layer, WeightedLayer) and layer.std == 0.03} == {
        "conv3",
        "conv4",
        "conv5",
    }
    assert list(source)[1:4] == ["conv1/norm", "conv1/pool", "conv1/relu"]
    assert source["conv1/norm"].alpha == pytest.approx(paper["conv1/norm"].alpha / 5)
    assert "conv2/same_map_norm" in source


def test_duplicate_layer_names_raise():
    network = Network(name="twice", layers=(Conv(2, name="conv1"), ReLU(), ReLU()))
    with pytest.raises(ValueError, match="two layers named conv1/relu"):
        _ = network.named_layers
