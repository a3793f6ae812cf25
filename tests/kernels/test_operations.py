"""Tests of all implementations of the operations: values and gradients against the float64 reference."""

import os
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import alexnet_kernels
from alexnet_jax.parallel import placement
from alexnet_kernels import default_implementation, max_pool, norm_pool, reference, response_norm
from alexnet_kernels.dispatch import ImplementationName
from alexnet_kernels.specs import ALL_SPECS, OPERATIONS, SAME_MAP_SPECS, SAMPLED_SPECS, Spec

from ..conftest import TINY, cpu_mesh


def draw(shape, rng, dtype=jnp.float32):
    """Return distinct activations around zero, like outputs of a convolution; there are no ties between maxima."""
    size = np.prod(shape)
    return jnp.asarray((rng.permutation(size) - 0.4 * size).reshape(shape) * (80 / size), dtype)


def value_and_gradient(operation, x):
    """Return the output and the input gradient of an operation, for an output gradient drawn with a fixed seed."""

    @jax.jit
    def compute(x):
        y, vjp = jax.vjp(operation, x)
        return y, vjp(jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype))[0]

    return compute(x)


@cache
def cached_reference(text):
    """Return the output and gradient of the reference in float64 for the call whose text is given, and the input, from `draw`."""
    spec = next(spec for spec in (*ALL_SPECS, *SAME_MAP_SPECS) if str(spec) == text)
    operation = partial(getattr(alexnet_kernels, spec.op), implementation="reference", **spec.settings)
    x = draw(spec.shape, np.random.default_rng(0))
    with jax.enable_x64(True):
        return x, value_and_gradient(operation, jnp.asarray(np.asarray(x, np.float64)))


class ImplementationTests:
    """Base class with the tests of an implementation.

    Attributes:
      implementation: implementation to test.
      extra_specs: additional calls to test, which other implementations may not support.
    """

    implementation: ImplementationName
    extra_specs: tuple[Spec, ...] = ()

    def op(self, name, **settings):
        return partial(getattr(alexnet_kernels, name), implementation=self.implementation, **settings)

    def compare(self, spec: Spec, rtol):
        x, expected = cached_reference(str(spec))
        actual = value_and_gradient(self.op(spec.op, **spec.settings), x)
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == x.dtype
            np.testing.assert_allclose(np.asarray(a, np.float64), e, rtol=rtol, atol=rtol * float(np.abs(e).max()))

    @pytest.mark.parametrize("spec", SAMPLED_SPECS, ids=str)
    def test_values_and_gradients(self, spec):
        self.compare(spec, rtol=2e-5)

    def test_values_and_gradients_of_extra_specs(self, subtests):
        for spec in self.extra_specs:
            with subtests.test(str(spec)):
                self.compare(spec, rtol=2e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("spec", [spec for spec in ALL_SPECS if spec not in SAMPLED_SPECS], ids=str)
    def test_values_and_gradients_of_all_specs(self, spec):
        self.compare(spec, rtol=2e-5)

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_bfloat16_equals_rounded_float32(self, op, rng):
        x = draw((2, 7, 8, 24), rng, jnp.bfloat16)
        y = jax.jit(self.op(op))(x)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(y, jax.jit(self.op(op))(x.astype(jnp.float32)).astype(jnp.bfloat16))

    @pytest.mark.parametrize("op", ["max_pool", "norm_pool"])
    def test_gradient_goes_to_first_of_equal_maxima(self, op):
        x = jnp.asarray([1.0, 7, 7, 0, 7, 2, 0, 0, 7]).reshape(1, 3, 3, 1)
        gradient = jax.jit(jax.grad(lambda x: self.op(op)(x).sum()))(x)
        assert np.flatnonzero(gradient).tolist() == [1]

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_non_finite_values_propagate(self, op, rng):
        """Check values in different windows, so that none of them hides another."""
        x = draw((3, 7, 7, 9), rng).at[:, 3, 3, 4].set(jnp.asarray([np.nan, np.inf, -np.inf]))
        y, expected = jax.jit(self.op(op))(x), getattr(alexnet_kernels, op)(x, implementation="reference")
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        np.testing.assert_allclose(y, expected, rtol=1e-5)

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_vmap_equals_extra_batch_axis(self, op, rng):
        x = draw((2, 3, 5, 5, 8), rng)
        actual, expected = value_and_gradient(jax.vmap(self.op(op)), x), value_and_gradient(self.op(op), x)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-6)

    @pytest.mark.parametrize("op", ["response_norm", "norm_pool"])
    @pytest.mark.parametrize(("segments", "channels"), [(2, 5), (3, 8)], ids=str)
    def test_segments_equal_separate_arrays(self, op, segments, channels, rng):
        x = draw((2, 5, 6, segments * channels), rng)
        y, gradient = value_and_gradient(self.op(op, segments=segments, alpha=0.1), x)
        g = np.random.default_rng(1).normal(size=y.shape)
        for part in (slice(start, start + channels) for start in range(0, segments * channels, channels)):
            with jax.enable_x64(True):
                reference_op = partial(getattr(alexnet_kernels, op), implementation="reference", alpha=0.1)
                expected, vjp = jax.vjp(reference_op, jnp.asarray(np.asarray(x[..., part], np.float64)))
                expected_gradient = vjp(jnp.asarray(g[..., part]))[0]
            np.testing.assert_allclose(y[..., part], expected, rtol=2e-5, atol=1e-4)
            np.testing.assert_allclose(gradient[..., part], expected_gradient, rtol=2e-5, atol=1e-4)

    def test_two_devices_equal_one(self, rng):
        """Check that a network has the same logits under `shard_map` and `vmap`, and that the kernels add no communication."""
        images = jnp.asarray(rng.normal(0, 50, (2, 29, 29, 3)), jnp.float32)
        logits, gathers = [], []
        for mesh in (cpu_mesh(TINY, 1, split=False), cpu_mesh(TINY, 1, split=True)):
            params = placement.init(TINY, mesh, jax.random.key(0))
            with default_implementation(self.implementation):
                compiled = jax.jit(placement.forward(TINY, mesh)).lower(params, images, None).compile()
            logits.append(compiled(params, images, None))
            gathers.append(str(compiled.as_text()).count(" all-gather("))
        np.testing.assert_allclose(*logits, rtol=1e-4)
        assert gathers == [0, 4]  # conv3, fc6, fc7, and the logits, because the towers cannot divide seven classes evenly

    def test_inside_shard_map(self, rng):
        x = draw((4, 7, 7, 8), rng)
        mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
        sharded = jax.shard_map(self.op("norm_pool"), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
        actual, expected = value_and_gradient(sharded, x), value_and_gradient(self.op("norm_pool"), x)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-6)


class TestXla(ImplementationTests):
    implementation = "xla"
    extra_specs = SAME_MAP_SPECS


class TestTriton(ImplementationTests):
    implementation = "triton.interpreted"


# Without the fusion emitters, which conftest.py disables, some of these programs take minutes to compile.
FUSION_EMITTERS = "xla_cpu_use_fusion_emitters"
COMPILER_OPTIONS = {FUSION_EMITTERS: True} if FUSION_EMITTERS in os.environ.get("XLA_FLAGS", "") else None


@pytest.mark.parametrize("implementation", ["xla", "triton.interpreted"])
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(0, 6), st.integers(0, 6), st.integers(1, 9))
def test_pooled_shape_is_rounded_up(implementation, stride, overlap, height, width, channels):
    window = stride + overlap
    x = jnp.ones((1, window + height, window + width, channels))
    pool = partial(max_pool, window=window, stride=stride, implementation=implementation)

    def compute(x):
        y, vjp = jax.vjp(pool, x)
        return y, vjp(jnp.ones_like(y))[0]

    y, gradient = jax.jit(compute, compiler_options=COMPILER_OPTIONS)(x)
    assert y.shape == (1, -(-height // stride) + 1, -(-width // stride) + 1, channels)
    assert np.array_equal(y, reference.max_pool(x, window, stride))
    assert float(gradient.sum()) == y.size


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (3, 1), (2, 2), (4, 2)])
def test_gradient_goes_to_first_of_equal_maxima_in_any_window(window, stride, rng):
    """Compare with a search of each window row by row, for pixels of which many are equal."""
    x = rng.integers(0, 3, (2, 8, 9, 3)).astype(np.float32)
    y, vjp = jax.vjp(partial(max_pool, window=window, stride=stride, implementation="xla"), jnp.asarray(x))
    g, expected = rng.integers(1, 100, y.shape).astype(np.float32), np.zeros_like(x)  # integers: their sums are exact
    for image, row, column, channel in np.ndindex(y.shape):
        pixels = x[image, row * stride :, column * stride :, channel][:window, :window]
        first = np.unravel_index(pixels.argmax(), pixels.shape)
        expected[image, row * stride + first[0], column * stride + first[1], channel] += g[image, row, column, channel]
    np.testing.assert_array_equal(vjp(g)[0], expected)


@pytest.mark.parametrize("towers", [None, 2])
def test_normalization_is_computed_once(towers):
    """Check on the compiled program that neither windows nor uses of the results compute the normalization again."""
    x = jnp.ones((4, 9, 9, 8) if towers is None else (towers, 4, 9, 9, 8))
    operation = partial(norm_pool, implementation="xla")

    def uses_results_twice(x):
        y, vjp = jax.vjp(operation if towers is None else jax.vmap(operation), x)
        gradient = vjp(y * y)[0]
        return y + 1, jnp.swapaxes(y, -1, -3), gradient + 1, jnp.swapaxes(gradient, -1, -3)

    text = jax.jit(uses_results_twice).lower(x).compile().as_text()
    assert text is not None
    # Once in the forward pass, and in both passes of the gradient.
    assert text.count(" rsqrt(") == 3 * (towers or 1)
    # The pooling windows read the result of a call.
    assert len(re.findall(r"= \S+ call\(|= \(.*\) call\(", text)) == 5 * (towers or 1)


def test_gradients_equal_finite_differences(rng):
    """Compare the `xla` implementation in float64, which the Triton kernels do not support."""
    check = partial(check_grads, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(0, 2, (1, 7, 7, 6)))
        check(lambda x: response_norm(jnp.asarray(x), alpha=0.1), (x,))
        check(lambda x: response_norm(jnp.asarray(x), size=4, alpha=0.1, beta=0.6), (x,))
        check(lambda x: max_pool(jnp.asarray(x)), (x,), eps=1e-6)
        check(lambda x: norm_pool(jnp.asarray(x), alpha=0.1), (x,), eps=1e-6)


def test_relu_and_max_pool_commute(rng):
    """Check that pooling before ReLU, as in source_145, equals ReLU before pooling, as in the paper."""
    x = jnp.asarray(rng.normal(size=(2, 13, 13, 4)), jnp.float32)
    assert np.array_equal(max_pool(jnp.maximum(x, 0)), jnp.maximum(max_pool(x), 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: response_norm(x.astype(int)), "requires floating-point input, got int32"),
        (lambda x: response_norm(x, size=0), "window of at least 1"),
        (lambda x: response_norm(x, axes=(3,)), "requires distinct negative axes"),
        (lambda x: response_norm(x, axes=(-1, -1)), "requires distinct negative axes"),
        (lambda x: max_pool(x.astype(int)), "requires floating-point input"),
        (lambda x: max_pool(x[0, 0]), r"requires input of shape \[..., height, width, channels\], got \(9, 4\)"),
        (lambda x: max_pool(x, 10), "a window no larger than the image, got 10 for 9x9 pixels"),
        (lambda x: norm_pool(x, window=2, stride=-1), "stride -1"),
        (lambda x: norm_pool(x, size=-1), "window of at least 1"),
        (lambda x: norm_pool(x, segments=3), "segments that divide the channels, got 3 for 4 channels"),
        (lambda x: response_norm(x, segments=0), "segments that divide the channels, got 0 for 4 channels"),
        (lambda x: max_pool(x, implementation="cudnn"), "no implementation 'cudnn'; choose one of triton, xla"),  # type: ignore
        (lambda x: max_pool(x, implementation="triton"), "triton needs an NVIDIA GPU, but the device is cpu"),
        (
            lambda x: response_norm(x, axes=(-3, -2), implementation="triton.interpreted"),
            r"supports only axes=\(-1,\), across channels",
        ),
        (lambda x: norm_pool(x, alpha=0.0, implementation="triton.interpreted"), "needs a positive alpha, not 0.0"),
    ],
)
def test_unsupported_calls_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 9, 9, 4)))


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_segments_of_an_empty_batch(implementation):
    x = jnp.zeros((0, 3, 3, 4))
    assert response_norm(x, segments=2, implementation=implementation).shape == (0, 3, 3, 4)
    assert norm_pool(x, segments=2, implementation=implementation).shape == (0, 1, 1, 4)


def test_first_supported_implementation_is_used(rng):
    x = draw((1, 5, 5, 4), rng)
    assert np.array_equal(max_pool(x, implementation=("triton", "xla")), max_pool(x))


@pytest.mark.parametrize("op", ["max_pool", "norm_pool"])
def test_gradient_of_windows_with_more_positions_than_int8_has(op):
    x = jnp.arange(1.0, 145.0).reshape(1, 12, 12, 1)
    gradient = jax.grad(lambda x: getattr(alexnet_kernels, op)(x, window=12).sum())(x)
    assert np.flatnonzero(gradient).tolist() == [143]
