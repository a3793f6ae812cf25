"""Tests of the conversion of parameters to and from PyTorch state dicts."""

from math import prod

import jax
import numpy as np
import pytest

from alexnet_jax import NETWORKS, TWO_TOWER
from alexnet_jax.errors import UserError
from alexnet_jax.weights.pytorch import is_torchvision_alexnet, to_torchvision
from alexnet_jax.weights.state_dict import from_state_dict, state_dict_shapes, to_state_dict
from tests.tiny import TINY
from tests.weights.small import SMALL, SMALL_BVLC, SMALL_TORCHVISION, SMALL_TWO_TOWER, random_params


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("two_tower", 60_965_224), ("bvlc_alexnet", 60_965_224), ("caffenet", 60_965_224), ("torchvision_alexnet", 61_100_840)],
)
def test_parameter_counts_equal_published_counts(network, parameters):
    assert sum(map(prod, state_dict_shapes(NETWORKS[network]).values())) == parameters


def test_caffe_networks_have_towers_as_groups():
    assert state_dict_shapes(NETWORKS["bvlc_alexnet"]) == state_dict_shapes(NETWORKS["caffenet"]) == state_dict_shapes(TWO_TOWER)


def test_torchvision_names():
    arrays = to_torchvision(to_state_dict(SMALL_TORCHVISION, random_params(SMALL_TORCHVISION)))
    convolutions = [f"features.{index}.{kind}" for index in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
    assert list(arrays) == convolutions + [f"classifier.{index}.{kind}" for index in (1, 4, 6) for kind in ("weight", "bias")]
    assert is_torchvision_alexnet(SMALL_TORCHVISION)
    assert not is_torchvision_alexnet(SMALL_BVLC)


@pytest.mark.parametrize("network", [*SMALL, NETWORKS["quickstart"]], ids=lambda network: network.name)
def test_round_trip_is_bit_exact(network):
    params = random_params(network)
    converted = from_state_dict(network, to_state_dict(network, params), "test")
    assert jax.tree.structure(converted) == jax.tree.structure(params)
    assert all(map(np.array_equal, jax.tree.leaves(converted), jax.tree.leaves(params)))
    shapes = state_dict_shapes(network)
    arrays = {name: np.random.default_rng(1).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    round_trip = to_state_dict(network, from_state_dict(network, arrays, "test"))
    assert list(round_trip) == list(arrays)
    assert all(np.array_equal(round_trip[name], array) for name, array in arrays.items())


def test_padding_units_are_dropped():
    params = random_params(TINY)  # seven classes, padded to four units in each tower
    arrays = to_state_dict(TINY, params)
    assert arrays["fc7.weight"].shape == (7, 16)
    converted = from_state_dict(TINY, arrays, "test")["fc7"]
    assert np.array_equal(converted["kernel"][0], params["fc7"]["kernel"][0])
    assert np.array_equal(converted["kernel"][1, :, :3], params["fc7"]["kernel"][1, :, :3])
    assert not converted["kernel"][1, :, 3].any()


def with_nan(array):
    return np.concatenate([array[:-1], [np.float32(np.nan)]])


def test_mismatched_arrays_are_named_in_the_error():
    arrays = to_state_dict(SMALL_TWO_TOWER, random_params(SMALL_TWO_TOWER))
    missing = {name: array for name, array in arrays.items() if not name.startswith("conv2")}

    def assert_fails(message, arrays):
        with pytest.raises(UserError, match=message):
            from_state_dict(SMALL_TWO_TOWER, arrays, "w.pt")

    assert_fails(r"^w.pt does not match the network: missing arrays: conv2.weight, conv2.bias$", missing)
    assert_fails(
        r"^w.pt does not match the network: unexpected arrays: conv9.weight$",
        {**arrays, "conv9.weight": arrays["fc8.bias"]},
    )
    assert_fails(
        r"^w.pt does not match the network: missing arrays: conv2.weight, conv2.bias; unexpected arrays: extra$",
        {**missing, "extra": arrays["fc8.bias"]},
    )
    assert_fails(f"^w.pt does not match the network: missing arrays: {', '.join(arrays)}$", {})
    assert_fails(
        r"^conv2.weight in w.pt has shape 12×8×5×5, expected 12×4×5×5$",
        {**arrays, "conv2.weight": np.zeros((12, 8, 5, 5), np.float32)},
    )
    assert_fails(r"^fc7.bias in w.pt has 1 values that are infinite or NaN", {**arrays, "fc7.bias": with_nan(arrays["fc7.bias"])})
    assert_fails(r"^fc8.bias in w.pt has dtype int64, expected floating point$", {**arrays, "fc8.bias": np.zeros(6, int)})


@pytest.mark.parametrize(("network", "layer"), [("two_columns", "fc6"), ("cifar_norm", "local3")])
def test_layers_without_pytorch_equivalent_are_rejected(network, layer):
    from alexnet_jax.model.cifar import CIFAR_NETWORKS

    with pytest.raises(UserError, match=f"{network} cannot be converted: PyTorch has no equivalent of its layer {layer}"):
        state_dict_shapes({**NETWORKS, **CIFAR_NETWORKS}[network])
