"""Parameters in the order in which PyTorch has them, and back."""

from math import prod

import jax
import numpy as np
import pytest

from alexnet_jax import NETWORKS, TWO_TOWER
from alexnet_jax.errors import UserError
from alexnet_jax.weights.pytorch import is_torchvisions, to_torchvision
from alexnet_jax.weights.state_dict import from_state_dict, shapes, to_state_dict
from tests.tiny import TINY
from tests.weights.small import SMALL, SMALL_BVLC, SMALL_TORCHVISION, SMALL_TWO_TOWER, random_params


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("two_tower", 60_965_224), ("bvlc_alexnet", 60_965_224), ("caffenet", 60_965_224), ("torchvision_alexnet", 61_100_840)],
)
def test_parameters_are_as_many_as_published(network, parameters):
    assert sum(map(prod, shapes(NETWORKS[network]).values())) == parameters


def test_caffes_networks_have_the_towers_as_groups():
    assert shapes(NETWORKS["bvlc_alexnet"]) == shapes(NETWORKS["caffenet"]) == shapes(TWO_TOWER)


def test_torchvisions_names():
    arrays = to_torchvision(to_state_dict(SMALL_TORCHVISION, random_params(SMALL_TORCHVISION)))
    convolutions = [f"features.{place}.{kind}" for place in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
    assert list(arrays) == convolutions + [f"classifier.{place}.{kind}" for place in (1, 4, 6) for kind in ("weight", "bias")]
    assert is_torchvisions(SMALL_TORCHVISION)
    assert not is_torchvisions(SMALL_BVLC)


@pytest.mark.parametrize("network", [*SMALL, NETWORKS["quickstart"]], ids=lambda network: network.name)
def test_there_and_back_are_the_same_bits(network):
    params = random_params(network)
    again = from_state_dict(network, to_state_dict(network, params), "it")
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params)))
    arrays = {name: np.random.default_rng(1).normal(size=shape).astype(np.float32) for name, shape in shapes(network).items()}
    back = to_state_dict(network, from_state_dict(network, arrays, "it"))
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_units_that_stand_for_no_class_are_left_out():
    params = random_params(TINY)  # seven classes, four units in each tower
    arrays = to_state_dict(TINY, params)
    assert arrays["fc7.weight"].shape == (7, 16)
    again = from_state_dict(TINY, arrays, "it")["fc7"]
    assert np.array_equal(again["kernel"][0], params["fc7"]["kernel"][0])
    assert np.array_equal(again["kernel"][1, :, :3], params["fc7"]["kernel"][1, :, :3])
    assert not again["kernel"][1, :, 3].any()


def test_wrong_arrays_are_named():
    arrays = to_state_dict(SMALL_TWO_TOWER, random_params(SMALL_TWO_TOWER))
    missing = {name: array for name, array in arrays.items() if not name.startswith("conv2")}

    def refused(message, arrays):
        with pytest.raises(UserError, match=message):
            from_state_dict(SMALL_TWO_TOWER, arrays, "w.pt")

    refused(r"^w.pt misses conv2.weight, conv2.bias$", missing)
    refused(r"^w.pt holds what the network has not: conv9.weight$", {**arrays, "conv9.weight": arrays["fc8.bias"]})
    refused(
        r"^w.pt misses conv2.weight, conv2.bias, and holds what the network has not: extra$",
        {**missing, "extra": arrays["fc8.bias"]},
    )
    refused(r"^w.pt misses conv1.weight, conv1.bias, conv2.weight, conv2.bias and 12 more$", {})
    refused(
        r"^conv2.weight of w.pt is 12×8×5×5, where the network has 12×4×5×5$",
        {**arrays, "conv2.weight": np.zeros((12, 8, 5, 5), np.float32)},
    )
    refused(r"^fc8.bias of w.pt is of type int64, and no weights$", {**arrays, "fc8.bias": np.zeros(6, int)})


@pytest.mark.parametrize(("network", "layer"), [("two_columns", "fc6"), ("cifar_norm", "local3")])
def test_layers_that_pytorch_does_not_have_are_refused(network, layer):
    from alexnet_jax.model.cifar import CIFAR_NETWORKS

    with pytest.raises(UserError, match=f"{network} has {layer}, which PyTorch has no layer for"):
        shapes({**NETWORKS, **CIFAR_NETWORKS}[network])
