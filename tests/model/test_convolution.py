"""Tests of the forms of convolutions and of their gradients."""

from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model import convolution
from alexnet_jax.model.convolution import Convolution, conv_lowering
from alexnet_kernels import default_implementation
from alexnet_kernels.xla import winograd

CONVOLUTIONS = {
    "conv1 of the paper": (224, 11, 4, (0, 3), 3),
    "of Caffe": (227, 11, 4, (0, 0), 3),
    "pixels at the end that no kernel reaches": (23, 5, 3, (1, 0), 3),
    "kernel smaller than the stride": (16, 2, 4, (0, 1), 1),
    "kernel of one block": (12, 4, 4, (0, 0), 4),
    "padding larger than the stride": (9, 7, 2, (3, 5), 3),
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in CONVOLUTIONS), ("conv1 of the paper", "bfloat16")])
def test_space_to_depth_equals_the_direct_convolution(name, dtype):
    """Compare values and both gradients. The factors are small integers, so that products and sums are exact in any order."""
    size, kernel_size, stride, padding, channels = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)

    def integers(*shape):
        return jnp.asarray(rng.integers(-1, 2, shape), dtype)

    x, kernel = integers(2, size, size + 1, channels), integers(kernel_size, kernel_size, channels, 4)
    direct = Convolution(stride, padding)
    with conv_lowering("space_to_depth"):
        blocks = Convolution(stride, padding)
    y, vjp = jax.vjp(direct, x, kernel)
    actual_y, actual_vjp = jax.vjp(blocks, x, kernel)
    g = integers(*y.shape)
    for actual, expected in zip((actual_y, *actual_vjp(g)), (y, *vjp(g)), strict=True):
        assert actual.dtype == dtype
        assert np.abs(expected.astype(np.float32)).max() > 0
        np.testing.assert_array_equal(np.asarray(actual, np.float32), np.asarray(expected, np.float32))


def test_space_to_depth_changes_only_convolutions_with_a_stride_and_few_channels():
    def convolved_shapes(stride, channels, groups=1):
        arguments = jnp.ones((2, 224, 224, channels)), jnp.ones((11, 11, channels // groups, 8))
        jaxpr = jax.make_jaxpr(Convolution(stride, (0, 3), groups))(*arguments)
        (equation,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "conv_general_dilated"]
        return [variable.aval.shape for variable in equation.invars]

    assert convolved_shapes(4, 3) == [(2, 224, 224, 3), (11, 11, 3, 8)]
    with conv_lowering("space_to_depth"):
        assert convolved_shapes(4, 3) == [(2, 57, 57, 48), (3, 3, 48, 8)]
        assert convolved_shapes(1, 3) == [(2, 224, 224, 3), (11, 11, 3, 8)]
        assert convolved_shapes(4, 8) == [(2, 224, 224, 8), (11, 11, 8, 8)]
        assert convolved_shapes(4, 4, groups=2) == [(2, 224, 224, 4), (11, 11, 2, 8)]


def is_direct(conv, dtype="float32", channels=64):
    """Return whether the forward pass and both gradients of a convolution of 5 x 5 pixels are operations of XLA."""
    x, kernel = jnp.ones((8, 27, 27, channels), dtype), jnp.ones((5, 5, channels // conv.groups, 128), dtype)
    g = jax.eval_shape(conv, x, kernel)
    calls = {
        "forward": lambda: conv.forward(x, kernel),
        "x_gradient": lambda: conv.x_gradient(x.shape, kernel, jnp.ones(g.shape, dtype)),
        "kernel_gradient": lambda: conv.kernel_gradient(kernel.shape, x, jnp.ones(g.shape, dtype)),
    }
    return {name: "conv_general_dilated" in str(jax.make_jaxpr(call)()) for name, call in calls.items()}


DIRECT = dict.fromkeys(("forward", "x_gradient", "kernel_gradient"), True)
FILTERED = dict.fromkeys(DIRECT, False)


def test_minimal_filtering_is_used_for_float32_on_cpus(monkeypatch):
    assert is_direct(Convolution(1, (2, 2))) == FILTERED
    assert is_direct(Convolution(1, (2, 2)), "bfloat16") == DIRECT
    assert is_direct(Convolution(2, (2, 2))) == DIRECT
    assert is_direct(Convolution(1, (2, 2), groups=2)) == FILTERED
    assert is_direct(Convolution(1, (2, 2)), channels=2) == DIRECT
    monkeypatch.setattr(convolution, "current_device", lambda: Mock(platform="gpu"))
    assert is_direct(Convolution(1, (2, 2))) == DIRECT


@pytest.mark.parametrize("order", [("reference",), ("reference", "xla")])
def test_convolution_keeps_the_implementation_of_its_context(order):
    with default_implementation(*order):
        reference = Convolution(1, (2, 2))
    assert is_direct(reference) == DIRECT
    conv = Convolution(1, (2, 2))
    with default_implementation("reference"):
        assert is_direct(conv) == FILTERED


def test_groups_are_separate_on_cpus_only(monkeypatch):
    def group_counts():
        conv, x, kernel = Convolution(2, (2, 2), groups=2), jnp.ones((8, 27, 27, 64)), jnp.ones((5, 5, 32, 128))
        equations = jax.make_jaxpr(conv.forward)(x, kernel).eqns
        return [e.params["feature_group_count"] for e in equations if e.primitive.name == "conv_general_dilated"]

    assert group_counts() == [1, 1]
    with default_implementation("reference"):
        assert group_counts() == [2]
    monkeypatch.setattr(convolution, "current_device", lambda: Mock(platform="gpu"))
    assert group_counts() == [2]


@pytest.mark.parametrize(("padding", "groups"), [((1, 1), 1), ((0, 0), 1), ((0, 2), 1), ((4, 3), 1), ((1, 1), 2), ((1, 0), 4)])
def test_gradients_equal_those_of_jax(padding, groups, monkeypatch):
    monkeypatch.setattr(winograd, "tile_size", lambda *shapes: 4)
    rng = np.random.default_rng(0)
    shapes = (8, 13, 12, 64), (3, 3, 64 // groups, 32)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    conv = Convolution(1, padding, groups)
    y, vjp = jax.vjp(conv, x, kernel)
    g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    actual = jax.jit(
        lambda: (conv.forward(x, kernel), conv.x_gradient(x.shape, kernel, g), conv.kernel_gradient(kernel.shape, x, g))
    )()
    for array, expected in zip(actual, (y, *vjp(g)), strict=True):
        assert array.shape == expected.shape
        assert np.linalg.norm(array - expected) < 1e-5 * np.linalg.norm(expected)
