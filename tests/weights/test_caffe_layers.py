"""Tests of the comparison of a .caffemodel's description with a network, on descriptions that are changed in one place."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Conv, Dense, LocalResponseNorm, MaxPool
from alexnet_jax.weights.caffe_layers import check_network, parse_caffe_net
from tests.weights.caffemodel import field
from tests.weights.small import SMALL_BVLC, SMALL_CAFFENET, SMALL_TWO_TOWER


def float_field(number, value):
    return bytes([number << 3 | 5]) + struct.pack("<f", value)


def describe(network, *, v1=False, name="AlexNet", data=b"", **changes):
    """Return the description that Caffe writes for a network, with changed fields: kind_FIELD=value."""
    kinds = {"Convolution": (4, 10, 106), "InnerProduct": (14, 17, 117), "LRN": (15, 18, 118), "Pooling": (17, 19, 121)}
    layers = []
    for layer_name, layer in network.named_layers.items():
        if isinstance(layer, Conv):
            values = {6: layer.stride, 3: layer.padding[0], 4: layer.kernel}
            layers.append(("Convolution", layer_name, values, {}))
        elif isinstance(layer, Dense):
            layers.append(("InnerProduct", layer_name, {1: layer.features}, {}))
        elif isinstance(layer, LocalResponseNorm):
            layers.append(("LRN", layer_name, {1: layer.size}, {2: layer.alpha * layer.size, 3: layer.beta, 5: layer.k}))
        elif isinstance(layer, MaxPool):
            layers.append(("Pooling", layer_name, {2: layer.size, 3: layer.stride}, {}))
    out = field(1, name.encode()) + data
    for kind, layer_name, integers, floats in layers:
        for change, value in changes.items():
            changed_kind, number = change.split("_")
            if changed_kind == kind:
                (floats if isinstance(value, float) else integers)[int(number)] = value
        number, v1_params, params = kinds[kind]
        content = b"".join(field(key, value) for key, value in integers.items())
        content += b"".join(float_field(key, value) for key, value in floats.items())
        if v1:
            out += field(2, field(4, layer_name.encode()) + field(5, number) + field(v1_params, content))
        else:
            out += field(100, field(1, layer_name.encode()) + field(2, kind.encode()) + field(params, content))
    return out


def check(content, network):
    check_network(parse_caffe_net(memoryview(content)), network, "net.caffemodel")


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize(("network", "name"), [(SMALL_BVLC, "AlexNet"), (SMALL_CAFFENET, "CaffeNet"), (SMALL_BVLC, "mine")])
def test_matching_description(network, name, v1):
    check(describe(network, name=name, v1=v1), network)
    check(b"", network)
    weights_only = replace(network, layers=tuple(layer for layer in network.layers if isinstance(layer, Conv | Dense)))
    check(describe(weights_only, name=name, v1=v1), network)


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "CaffeNet"}, "is CaffeNet: pass --network caffenet"),
        ({"LRN_2": 1e-3}, "alpha 0.001 in conv1/norm, but bvlc_alexnet has 0.0001"),
        ({"LRN_3": 0.5}, "beta 0.5"),
        ({"LRN_5": 2.0}, "k 2 in"),
        ({"LRN_1": 3}, "size 3"),
        ({"LRN_4": 1}, "region 1"),
        ({"Convolution_6": 3}, "stride 3 in conv1, but bvlc_alexnet has 4"),
        ({"Convolution_3": 3}, "padding 3"),
        ({"Convolution_18": 2}, "dilation 2"),
        ({"Pooling_1": 1}, "method 1"),
        ({"Pooling_2": 2}, "size 2"),
        ({"Pooling_3": 3}, "stride 3"),
        ({"data": field(100, field(2, b"Data") + field(100, field(3, 224)))}, "reads crops of 224 pixels, but .* of 99"),
        ({"data": field(100, field(2, b"Data") + field(100, float_field(1, 0.5)))}, "multiplies pixels by 0.5"),
    ],
)
def test_changed_description_is_refused(changes, message, v1):
    with pytest.raises(UserError, match=message) as error:
        check(describe(SMALL_BVLC, v1=v1, **changes), SMALL_BVLC)
    assert "--network" in str(error.value) or "cannot be imported" in str(error.value)


@pytest.mark.parametrize("v1", [False, True])
def test_other_order_of_layers_is_refused(v1):
    with pytest.raises(UserError, match="has pooling conv1/pool after conv1, where bvlc_alexnet has normalization conv1/norm"):
        check(describe(SMALL_CAFFENET, v1=v1, name="mine"), SMALL_BVLC)
    for removed in range(len(SMALL_BVLC.layers)):
        shorter = replace(SMALL_BVLC, layers=SMALL_BVLC.layers[:removed] + SMALL_BVLC.layers[removed + 1 :])
        if isinstance(SMALL_BVLC.layers[removed], MaxPool | LocalResponseNorm):
            with pytest.raises(UserError, match="pass the --network"):
                check(describe(shorter, v1=v1), SMALL_BVLC)


def test_padding_of_one_side_is_not_caffes():
    assert np.ptp(next(layer for layer in SMALL_TWO_TOWER.layers if isinstance(layer, Conv)).padding) > 0
    with pytest.raises(UserError, match="padding 0 in conv1, but two_tower has -1"):
        check(describe(SMALL_TWO_TOWER, name="mine"), SMALL_TWO_TOWER)
