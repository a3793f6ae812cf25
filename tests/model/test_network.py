"""Tests of the networks: logits against NumPy, shapes and totals against the paper, and initial weights."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from alexnet_jax import NETWORKS, ONE_GPU, SIXTH_CONV, SOURCE_145, TWO_TOWER
from alexnet_jax.errors import UserError
from alexnet_jax.model.comparison_layers import GroupedConv, LocallyConnected
from alexnet_jax.model.layers import TOWER, Conv, ConvPool, Dense, LocalResponseNorm, MaxPool, NormPool, ReLU, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import Tower, init, rewrite_pooling, stacked_towers
from alexnet_jax.parallel import placement
from tests.conftest import cpu_mesh, layer_outputs
from tests.numpy_network import tiny_logits


@pytest.mark.parametrize(
    ("split", "lowering"),
    [(False, "separate"), (False, "grouped"), (True, None)],
    ids=["one device", "one device, grouped", "two devices"],
)
def test_logits_equal_numpy(tiny, rng, split, lowering):
    mesh = cpu_mesh(tiny, 1, split=split)
    params = placement.init(tiny, mesh, jax.random.key(1))
    images = rng.normal(0, 50, (3, 29, 29, 3)).astype(np.float32)
    actual = jax.jit(placement.forward(tiny, mesh, lowering=lowering))(params, images, None)
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


@pytest.mark.parametrize("layer", [Conv(33, name="a"), Dense(33, name="a"), LocallyConnected(33, name="a")], ids=type)
def test_features_that_do_not_divide_among_towers_are_refused(layer):
    last = Dense(7, name="b", reads="all")
    message = "a of odd has 33 features, which cannot be divided among 2 towers: use 32 or 34"
    with pytest.raises(UserError, match=f"^{message}$"):
        Network("odd", (layer, last))
    with pytest.raises(UserError, match=r"use 2$"):
        Network("odd", (layer.clone(features=1), last))
    record = Network("odd", (layer, last), towers=1).to_json()
    with pytest.raises(UserError, match=message):
        Network.from_json({**record, "towers": 2})


def test_features_that_do_not_divide_among_groups_are_refused():
    layers = (Conv(8, name="a"), GroupedConv(10, name="b", groups=2), Dense(7, name="c"))
    assert Network("grouped", layers, towers=1).num_classes == 7
    with pytest.raises(UserError, match=r"b of grouped has 10 features, .* 2 towers with 2 groups each: use 8 or 12"):
        Network("grouped", layers)


def test_layers_have_the_sizes_of_the_paper():
    """Compare with products of the numbers in section 3.5; the towers exchange half of the maps or units before a layer."""
    rows = {row.name: row for row in summarize(TWO_TOWER)}
    assert {name: (row.parameters, row.neurons, row.macs, row.gathered_bytes) for name, row in rows.items() if row.neurons} == {
        "conv1": (34_944, 290_400, 105_415_200, 0),
        "conv2": (307_456, 186_624, 223_948_800, 0),
        "conv3": (885_120, 64_896, 149_520_384, 2 * 4 * 13 * 13 * 128),
        "conv4": (663_936, 64_896, 112_140_288, 0),
        "conv5": (442_624, 43_264, 74_760_192, 0),
        "fc6": (37_752_832, 4096, 37_748_736, 2 * 4 * 6 * 6 * 128),
        "fc7": (16_781_312, 4096, 16_777_216, 2 * 4 * 2048),
        "fc8": (4_097_000, 1000, 4_096_000, 2 * 4 * 2048),
    }
    assert not any(row.parameters or row.macs or row.gathered_bytes for row in rows.values() if not row.neurons)
    assert sum(row.gathered_bytes for row in summarize(ONE_GPU)) == 0


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
    fused = rewrite_pooling(TWO_TOWER).named_layers
    assert [name for name, layer in fused.items() if isinstance(layer, NormPool)] == ["conv1/pool", "conv2/pool"]
    removed = {"conv1/relu", "conv1/norm", "conv2/relu", "conv2/norm", "conv5/pool"}
    assert set(TWO_TOWER.named_layers) - set(fused) == removed


def test_relu_follows_max_pooling():
    """Check both orders: source_145 already has ReLU after the pooling of conv5."""
    for network in (TWO_TOWER, SOURCE_145):
        conv5, relu = list(rewrite_pooling(network).named_layers.items())[-9:-7]
        assert (conv5[0], type(conv5[1]), relu[0], type(relu[1])) == ("conv5", ConvPool, "conv5/relu", ReLU)


class Square(ReLU):
    """Nonlinearity for which neither the order of pooling nor the fused layer is right."""

    def __call__(self, x):
        return x * x


@pytest.mark.parametrize("norm", [(), (LocalResponseNorm(),)], ids=["pooling", "normalization and pooling"])
def test_subclasses_are_not_rewritten(norm):
    network = Network("square", (Conv(4, name="conv1"), Square(), *norm, MaxPool(), Dense(2, name="fc2")), input_size=9)
    rewritten = rewrite_pooling(network).named_layers
    assert {name: type(layer) for name, layer in rewritten.items()} == {
        name: type(layer) for name, layer in network.named_layers.items()
    }


@pytest.mark.parametrize("lowering", ["separate", "grouped"])
@pytest.mark.parametrize("relu", [(), (ReLU(),)], ids=["linear", "relu"])
def test_bias_is_added_to_maxima_of_convolution(lowering, relu, rng):
    """Check values and gradients. All are integers, for which the order of additions makes no difference, with equal maxima."""
    network = Network("conv_pool", (Conv(4, name="conv1"), *relu, MaxPool(3, 2), Dense(6, name="fc2")), input_size=8)
    fused = rewrite_pooling(network)
    assert isinstance(fused.layers[0], ConvPool)
    images = jnp.asarray(rng.integers(-2, 3, (2, 8, 8, 3)), jnp.float32)
    shapes = jax.eval_shape(lambda: init(network, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.integers(-2, 3, leaf.shape), jnp.float32), shapes)
    g = jnp.asarray(rng.integers(-2, 3, (2, 2, 3)), jnp.float32)

    def outputs_and_gradients(network: Network) -> Any:
        outputs, vjp = jax.vjp(lambda params: stacked_towers(network, lowering).apply({"params": params}, images), params)
        return outputs, vjp(g)[0]

    expected, actual = (jax.jit(partial(outputs_and_gradients, layers))() for layers in (network, fused))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected))
    jax.tree.map(np.testing.assert_array_equal, expected, actual)


def test_convolution_before_pooling_reads_all_towers(rng):
    layers = (Conv(4, name="conv1"), Conv(4, name="conv2", reads="all", std=0.1), ReLU(), MaxPool(), Dense(2, name="fc3"))
    network = Network("read_all", layers, input_size=9)
    mesh = cpu_mesh(network, 1, split=True)
    params = placement.init(network, mesh, jax.random.key(0))
    images = jnp.asarray(rng.normal(0, 50, (2, 9, 9, 3)), jnp.float32)
    logits = jax.jit(placement.forward(network, mesh))(params, images, None)
    towers: Any = jax.jit(stacked_towers(network).apply)({"params": jax.device_get(params)}, images)
    np.testing.assert_allclose(logits, jnp.concatenate(list(towers), axis=-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [9, 10])
def test_relu_after_max_pooling_has_same_values_and_gradients(side, rng):
    x = jnp.asarray(rng.integers(-3, 4, (2, side, side, 8)), jnp.float32)  # with equal maxima, of zero and above
    relu: Any = partial(ReLU().apply, {})
    pool: Any = partial(MaxPool(3, 2).apply, {})
    (before, before_vjp), (after, after_vjp) = jax.vjp(lambda x: pool(relu(x)), x), jax.vjp(lambda x: relu(pool(x)), x)
    np.testing.assert_array_equal(before, after)
    g = jnp.asarray(rng.normal(size=before.shape), jnp.float32)
    np.testing.assert_array_equal(*before_vjp(g), *after_vjp(g))


def test_fused_layers_give_same_logits(tiny, rng):
    params = placement.init(tiny, cpu_mesh(tiny, 1, split=False), jax.random.key(1))
    images = jnp.asarray(rng.normal(0, 50, (3, 29, 29, 3)), jnp.float32)
    unfused, fused = (layer_outputs(network, params, images, jax.random.key(2)) for network in (tiny, rewrite_pooling(tiny)))
    np.testing.assert_allclose(unfused["fc7"], fused["fc7"], rtol=1e-6, atol=5e-7)  # logits up to 3, rounded to 2e-7


def test_fused_layer_uses_all_constants_of_its_layers(rng):
    x = jnp.asarray(rng.normal(0, 3, (2, 7, 7, 6)), jnp.float32)
    norm, pool = LocalResponseNorm(size=3, k=1.5, alpha=0.1, beta=0.5), MaxPool(2, 1)
    separate = jax.jit(lambda x: pool.apply({}, norm.apply({}, jnp.maximum(x, 0))))
    np.testing.assert_allclose(jax.jit(partial(NormPool(norm, pool).apply, {}))(x), separate(x), rtol=1e-5)


def test_towers_are_flax_modules(tiny, rng):
    """Check `init`, `tabulate`, captured intermediates, and that the stacked towers equal `Tower` under `vmap`."""
    towers, images = stacked_towers(tiny), jnp.asarray(rng.normal(0, 50, (3, 29, 29, 3)), jnp.float32)
    variables: Any = jax.jit(towers.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, images)
    assert {name: set(layer) for name, layer in variables["params"].items()} == {
        name: {"kernel", "bias"} for name, layer in tiny.named_layers.items() if isinstance(layer, WeightedLayer)
    }
    rows = summarize(tiny)
    outputs = layer_outputs(tiny, variables["params"], images)
    assert set(outputs) == set(tiny.named_layers)
    for row in rows:
        assert outputs[row.name].shape[2:-1] == row.shape[:-1]
    tabulate: Any = nn.tabulate  # type: ignore[reportPrivateImportUsage]
    table = tabulate(towers, jax.random.key(0), console_kwargs={"force_terminal": False, "width": 120})(images)
    assert all(f" {name} " in table for name in tiny.named_layers)
    assert f"Total Parameters: {sum(row.parameters for row in rows):,} " in table

    def apply_tower(params, rngs):
        return Tower(tiny).apply({"params": params}, images, rngs=rngs)

    for rngs in ({}, {"dropout": jax.random.key(2)}):
        actual = jax.jit(jax.vmap(apply_tower, (0, None), axis_name=TOWER))(variables["params"], rngs)
        np.testing.assert_array_equal(actual, jax.jit(towers.apply)(variables, images, rngs=rngs))


@pytest.mark.parametrize("split", [False, True], ids=["one device", "two devices"])
def test_outputs_of_a_layer(tiny, rng, split):
    mesh = cpu_mesh(tiny, 1, split=split)
    params = placement.init(tiny, mesh, jax.random.key(1))
    images = jnp.asarray(rng.normal(0, 50, (2, 29, 29, 3)), jnp.float32)
    expected = layer_outputs(tiny, jax.device_get(params), images)
    for layer in ("conv1/norm", "conv2/pool", "fc6/drop", "fc7"):
        actual = jax.jit(placement.forward(tiny, mesh, layer))(params, images, None)
        outputs = np.concatenate([tower.reshape(2, -1) for tower in expected[layer]], axis=-1)
        np.testing.assert_allclose(actual, outputs, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"tiny has no layer 'conv9': choose one of conv1, conv1/relu, .*fc7$"):
        placement.forward(tiny, mesh, "conv9")


@pytest.mark.parametrize("network", [SOURCE_145, NETWORKS["quickstart"]], ids=lambda network: network.name)
def test_initial_weights_follow_layer_fields(network):
    layers = (
        layer.clone(features=layer.features // 8) if isinstance(layer, WeightedLayer) else layer for layer in network.layers
    )
    network = replace(network, layers=tuple(layers)).with_num_classes(10)
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
