"""Tests of the lowerings of towers that share a device: equal values and gradients, and the form of the convolutions."""

import re
from dataclasses import replace
from functools import cache, partial
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from alexnet_jax.model.comparison_layers import AvgPool, ContrastNorm, GroupedConv, LocallyConnected
from alexnet_jax.model.convolution import ConvLowering, conv_lowering
from alexnet_jax.model.layers import Conv, Dense, Dropout, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.lowering import add_bias, tower_lowering
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import stacked_towers
from alexnet_jax.parallel import placement
from alexnet_kernels import default_implementation
from alexnet_kernels.dispatch import ImplementationName
from alexnet_kernels.xla import winograd
from tests.conftest import TINY, cpu_mesh


class MaxPoolOfAllTowers(MaxPool):
    """Max-pooling whose input is the same for all towers, and depends on parameters."""

    reads = "all"
    short_name = "pool_of_all"


OTHER_LAYERS = Network(
    name="other_layers",
    input_size=13,
    layers=(
        MaxPool(2, 1, name="pool0"),  # the towers read the same images
        Conv(8, name="conv1", kernel=3, std=0.02), MaxPool(3, 2), LocalResponseNorm(size=3, alpha=0.1), ReLU(),
        GroupedConv(12, name="conv2", kernel=3, padding=(1, 1), groups=2, bias=0.5, std=0.3), ContrastNorm(alpha=0.1),
        Conv(8, name="conv3", kernel=1, reads="all", std=0.3), SameMapNorm(alpha=0.1), AvgPool(3, 1),
        MaxPoolOfAllTowers(2, 1),
        LocallyConnected(6, name="local4", std=0.3), ReLU(), Dropout(0.5),
        LocallyConnected(4, name="local5", reads="all", std=0.3),
        Dense(5, name="fc6", std=0.3),
    ),
)  # fmt: skip
"""Layers of the comparison networks, and normalization without pooling after it."""

NETWORKS = {
    "tiny": TINY,
    "other layers": pytest.param(OTHER_LAYERS, marks=pytest.mark.slow),
    "one tower": pytest.param(replace(OTHER_LAYERS, towers=1), marks=pytest.mark.slow),
}


@cache
def outputs_and_gradients(
    network, lowering, precision="float32", *, data=1, implementation: ImplementationName = "xla", conv: ConvLowering = "direct"
):
    """Return the outputs of a training step's forward pass with dropout, and the gradients for a fixed output gradient."""
    mesh, rng = cpu_mesh(network, data, split=False), np.random.default_rng(0)
    params = placement.init(network, mesh, jax.random.key(1))
    images = jnp.asarray(rng.normal(0, 50, (4, network.input_size, network.input_size, 3)), precision)
    output_gradient = jnp.asarray(rng.normal(size=(4, network.num_classes)), precision)
    with default_implementation(implementation), conv_lowering(conv):
        forward = placement.forward(network, mesh, lowering=lowering)

    @jax.jit
    def compute(params):
        outputs, vjp = jax.vjp(lambda params: forward(params, images, jax.random.key(2)), params)
        return outputs, vjp(output_gradient)[0]

    return jax.device_get(compute(params))


def assert_close(actual, expected, tolerance):
    """Check that the distance between arrays is small relative to their norm, which must not be zero."""

    def check(path, a, e):
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        assert np.linalg.norm(e) > 0, path
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e), path

    jax.tree_util.tree_map_with_path(check, actual, expected)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_lowerings_have_equal_outputs_and_gradients(network):
    separate, grouped = (outputs_and_gradients(network, lowering) for lowering in ("separate", "grouped"))
    assert_close(grouped, separate, 1e-5)


@pytest.mark.slow
def test_lowerings_are_equally_exact_in_bfloat16():
    exact = outputs_and_gradients(TINY, "separate")
    separate, grouped = (outputs_and_gradients(TINY, lowering, "bfloat16") for lowering in ("separate", "grouped"))
    assert grouped[0].dtype == jnp.bfloat16

    def check(exact, separate, grouped):
        errors = [np.linalg.norm(np.asarray(array, np.float64) - exact) for array in (separate, grouped)]
        assert errors[1] <= 1.5 * errors[0] + 0.01 * np.linalg.norm(exact)

    jax.tree.map(check, exact, separate, grouped)


@pytest.mark.slow
def test_grouped_towers_on_each_of_two_devices_equal_one_device():
    assert_close(outputs_and_gradients(TINY, "grouped", data=2), outputs_and_gradients(TINY, "separate"), 1e-5)


WIDE = Network(
    name="wide",
    input_size=16,
    layers=(
        Conv(128, name="conv1", kernel=5, stride=1, std=0.01), ReLU(),
        Conv(128, name="conv2", kernel=5, padding=(2, 2), std=0.02), ReLU(),
        Conv(128, name="conv3", kernel=5, padding=(2, 2), reads="all", std=0.02), ReLU(),
        Dense(5, name="fc4", std=0.02),
    ),
)  # fmt: skip
"""Convolutions with enough channels for minimal filtering, of the maps of one tower and of both."""


def test_minimal_filtering_has_equal_outputs_and_gradients(monkeypatch):
    tile_size, filtered = winograd.tile_size, set()

    def record(x, kernel, padding):
        tile = tile_size(x, kernel, padding)
        filtered.update([kernel] if tile else [])
        return tile

    monkeypatch.setattr(winograd, "tile_size", record)
    actual = outputs_and_gradients(WIDE, "separate")
    assert filtered == {(5, 5, 64, 64), (5, 5, 128, 64), (5, 5, 64, 128)}, "conv2, conv3, and the gradient of the maps of conv3"
    filtered.clear()
    expected = outputs_and_gradients(WIDE, "separate", implementation="reference")
    assert not filtered
    assert_close(actual, expected, 2e-5)


@pytest.mark.slow
def test_triton_kernels_keep_the_towers_apart():
    actual = outputs_and_gradients(TINY, "grouped", implementation="triton.interpreted")
    assert_close(actual, outputs_and_gradients(TINY, "separate"), 1e-5)


@pytest.mark.parametrize("lowering", [pytest.param("separate", marks=pytest.mark.slow), "grouped"])
def test_network_with_space_to_depth_has_equal_outputs_and_gradients(lowering):
    actual = outputs_and_gradients(TINY, lowering, conv="space_to_depth")
    assert_close(actual, outputs_and_gradients(TINY, "separate"), 1e-5)


def test_parameters_and_intermediates_do_not_depend_on_the_lowering():
    def variables(lowering):
        towers, images = stacked_towers(TINY, lowering), jnp.ones((2, 29, 29, 3))
        return jax.eval_shape(partial(towers.init_with_output, capture_intermediates=True), jax.random.key(0), images)

    separate, grouped = variables("separate"), variables("grouped")
    assert jax.tree.structure(separate) == jax.tree.structure(grouped)
    assert jax.tree.leaves(separate) == jax.tree.leaves(grouped)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(grouped)} == {2}, "towers are the first axis"


def test_grouped_towers_share_convolutions():
    """Check that a convolution has one group per tower, or one group if the towers read the same maps, in both passes."""
    mesh = cpu_mesh(TINY, 1, split=False)
    params = jax.eval_shape(lambda: placement.init(TINY, mesh, jax.random.key(0)))
    images = jax.ShapeDtypeStruct((4, 29, 29, 3), jnp.float32)
    loss = lambda params, images: placement.forward(TINY, mesh, lowering="grouped")(params, images, None).sum()  # noqa: E731
    text = jax.jit(jax.grad(loss)).lower(params, images).as_text()
    convolutions = re.findall(r"convolution.*batch_group_count = (\d).*feature_group_count = (\d)", text)
    # conv1 has no gradient of the images; conv2 has groups, and conv3 reads all maps.
    assert sorted(convolutions) == sorted([("1", "1")] * (2 + 3) + [("1", "2"), ("1", "2"), ("2", "1")])


def test_default_lowering_follows_the_platform():
    assert placement.default_lowering(Mock(Mesh, devices=np.array([Mock(platform="gpu")]))) == "grouped"
    assert placement.default_lowering(cpu_mesh(TINY, 1, split=False)) == "separate"
    with tower_lowering("grouped"):
        assert placement.default_lowering(cpu_mesh(TINY, 1, split=False)) == "grouped"


@pytest.mark.parametrize(
    ("context", "operation"),
    [
        (tower_lowering("grouped"), "feature_group_count=2"),
        (conv_lowering("space_to_depth"), "f32[4,16,16,12]"),
        (default_implementation("reference"), "reduce_window_sum"),
    ],
    ids=["tower_lowering", "conv_lowering", "default_implementation"],
)
def test_network_keeps_the_context_in_which_it_was_made(context, operation):
    mesh, images = cpu_mesh(TINY, 1, split=False), jax.ShapeDtypeStruct((4, 29, 29, 3), jnp.float32)
    params = jax.eval_shape(lambda: placement.init(TINY, mesh, jax.random.key(0)))
    without = placement.forward(TINY, mesh)
    with context:
        forward = placement.forward(TINY, mesh)
        jaxpr_without = str(jax.make_jaxpr(without)(params, images, None))
    jaxpr = str(jax.make_jaxpr(forward)(params, images, None))
    assert [operation in text for text in (jaxpr, jaxpr_without)] == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_of_bias_is_a_matrix_product(dtype):
    """Check its values, NaN included, and that there is no sum, which XLA computes slowly on a CPU."""
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(3, 5, 7, 6)), dtype) for _ in range(2))
    g = g.at[0, 0, 0, 0].set(jnp.nan)

    def gradients(x, bias, g):
        return jax.vjp(add_bias, x, bias)[1](g)

    x_gradient, bias_gradient = jax.jit(gradients)(x, jnp.zeros(6, dtype), g)
    np.testing.assert_array_equal(np.asarray(x_gradient, np.float32), np.asarray(g, np.float32))
    assert bias_gradient.dtype == dtype
    expected = np.asarray(g, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(np.asarray(bias_gradient, np.float64), expected, rtol=1e-2 if dtype == "bfloat16" else 1e-5)
    text = jax.jit(gradients).lower(x, jnp.zeros(6, dtype), g).as_text()
    assert "dot_general" in text
    assert "stablehlo.reduce" not in text
