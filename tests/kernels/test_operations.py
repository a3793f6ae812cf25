"""One class of tests that every implementation passes: values and gradients against the reference in float64."""

from functools import partial

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
from alexnet_kernels import default_implementation, max_pool, norm_pool, reference, response_norm, triton
from alexnet_kernels.dispatch import Name
from alexnet_kernels.specs import EVERY, OPERATIONS, SAME_MAP, SOME, Spec

from ..conftest import TINY, mesh_of


def draw(shape, rng, dtype=jnp.float32):
    """Activities around zero, as convolutions put out, no two of them equal: where two are, gradients depend on the order."""
    size = np.prod(shape)
    return jnp.asarray((rng.permutation(size) - 0.4 * size).reshape(shape) * (80 / size), dtype)


def with_gradient(operation, x):
    """Values, and the gradient for gradients that the shape decides."""

    @jax.jit
    def both(x):
        y, vjp = jax.vjp(operation, x)
        return y, vjp(jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype))[0]

    return both(x)


class Operations:
    """The tests. A class below gives the implementation."""

    implementation: Name
    also: tuple[Spec, ...] = ()

    def op(self, name, **settings):
        return partial(getattr(alexnet_kernels, name), implementation=self.implementation, **settings)

    def compare(self, spec: Spec, x, rtol):
        ours = with_gradient(self.op(spec.op, **spec.settings), x)
        in_float64 = partial(getattr(alexnet_kernels, spec.op), implementation="reference", **spec.settings)
        with jax.enable_x64(True):
            expected = with_gradient(in_float64, jnp.asarray(np.asarray(x, np.float64)))
        for ours_part, expected_part in zip(ours, expected, strict=True):
            assert ours_part.dtype == x.dtype
            np.testing.assert_allclose(
                np.asarray(ours_part, np.float64), expected_part, rtol=rtol, atol=rtol * float(np.abs(expected_part).max())
            )

    def test_values_and_gradients(self, rng, subtests):
        for spec in SOME + self.also:
            with subtests.test(str(spec)):
                self.compare(spec, draw(spec.shape, rng), rtol=2e-5)

    @pytest.mark.slow
    def test_every_setting_on_every_shape(self, rng, subtests):
        for spec in (spec for spec in EVERY if spec not in SOME):
            with subtests.test(str(spec)):
                self.compare(spec, draw(spec.shape, rng), rtol=2e-5)

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_bfloat16_is_computed_in_float32(self, op, rng):
        """The result is float32's, rounded once."""
        x = draw((2, 7, 8, 24), rng, jnp.bfloat16)
        y = self.op(op)(x)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(y, self.op(op)(x.astype(jnp.float32)).astype(jnp.bfloat16))

    @pytest.mark.parametrize("op", ["max_pool", "norm_pool"])
    def test_first_of_equal_maxima_takes_the_gradient(self, op):
        x = jnp.asarray([1.0, 7, 7, 0, 7, 2, 0, 0, 7]).reshape(1, 3, 3, 1)
        gradient = jax.grad(lambda x: self.op(op)(x).sum())(x)
        assert np.flatnonzero(gradient).tolist() == [1]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("op", OPERATIONS)
    def test_what_is_not_a_number_is_not_lost(self, op, bad, rng):
        x = draw((1, 7, 7, 9), rng).at[0, 3, 3, 4].set(bad)
        y, expected = self.op(op)(x), getattr(alexnet_kernels, op)(x, implementation="reference")
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        np.testing.assert_allclose(y, expected, rtol=1e-5)

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_vmap_is_one_more_batch_axis(self, op, rng):
        x = draw((2, 3, 5, 5, 8), rng)
        for ours, expected in zip(with_gradient(jax.vmap(self.op(op)), x), with_gradient(self.op(op), x), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-6)

    def test_towers_on_two_devices_or_one(self, rng):
        """The whole network by way of `shard_map` and of `vmap`: the same numbers, and no communication but the model's."""
        images = jnp.asarray(rng.normal(0, 50, (2, 29, 29, 3)), jnp.float32)
        logits, gathers = [], []
        for mesh in (mesh_of(TINY, 1, split=False), mesh_of(TINY, 1, split=True)):
            params = placement.init(TINY, mesh, jax.random.key(0))
            with default_implementation(self.implementation):
                compiled = jax.jit(placement.forward(TINY, mesh)).lower(params, images, None).compile()
            logits.append(compiled(params, images, None))
            gathers.append(str(compiled.as_text()).count(" all-gather("))
        np.testing.assert_allclose(*logits, rtol=1e-4)
        assert gathers == [0, 4]  # conv3, fc6, fc7, and the logits, which seven classes make uneven

    def test_inside_shard_map(self, rng):
        x = draw((4, 7, 7, 8), rng)
        mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
        spread = jax.shard_map(self.op("norm_pool"), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
        for ours, expected in zip(with_gradient(spread, x), with_gradient(self.op("norm_pool"), x), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-6)


class TestXla(Operations):
    implementation = "xla"
    also = SAME_MAP


class TestTriton(Operations):
    implementation = "triton.interpreted"


@pytest.mark.parametrize("implementation", ["xla", "triton.interpreted"])
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(0, 6), st.integers(0, 6), st.integers(1, 9))
def test_pool_shapes_follow_the_ceiling_rule(implementation, stride, more, height, width, channels):
    window = stride + more
    x = jnp.ones((1, window + height, window + width, channels))
    y = max_pool(x, window, stride, implementation=implementation)
    assert y.shape == (1, -(-height // stride) + 1, -(-width // stride) + 1, channels)
    assert np.array_equal(y, reference.max_pool(x, window, stride))
    assert float(jax.grad(lambda x: max_pool(x, window, stride, implementation=implementation).sum())(x).sum()) == y.size


@pytest.mark.parametrize("op", ["response_norm", "norm_pool"])
@pytest.mark.parametrize("part", [1, 3000])  # bytes: one image at a time, and two of six
def test_a_few_images_at_a_time_are_all_images(op, part, rng, monkeypatch):
    x = draw((6, 7, 7, 6), rng)
    whole = with_gradient(partial(getattr(alexnet_kernels, op), implementation="xla"), x)
    monkeypatch.setattr("alexnet_kernels.xla.chunked.CHUNK_BYTES", part)
    for ours, expected in zip(with_gradient(partial(getattr(alexnet_kernels, op), implementation="xla"), x), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_gradients_equal_finite_differences(rng):
    """In float64, where kernels do not run; they are held to these by the class above."""
    check = partial(check_grads, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(0, 2, (1, 7, 7, 6)))
        check(lambda x: response_norm(jnp.asarray(x), alpha=0.1), (x,))
        check(lambda x: response_norm(jnp.asarray(x), size=4, alpha=0.1, beta=0.6), (x,))
        check(lambda x: max_pool(jnp.asarray(x)), (x,), eps=1e-6)
        check(lambda x: norm_pool(jnp.asarray(x), alpha=0.1), (x,), eps=1e-6)


def test_relu_and_pool_commute(rng):
    """source_145 pools before it rectifies, the prose after: the same function."""
    x = jnp.asarray(rng.normal(size=(2, 13, 13, 4)), jnp.float32)
    assert np.array_equal(max_pool(jnp.maximum(x, 0)), jnp.maximum(max_pool(x), 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: response_norm(x.astype(int)), "needs floating-point input, not int32"),
        (lambda x: response_norm(x, size=0), "window of at least 1"),
        (lambda x: response_norm(x, axes=(3,)), "counted from the end"),
        (lambda x: max_pool(x.astype(int)), "needs floating-point input"),
        (lambda x: max_pool(x[0, 0]), r"needs \[..., height, width, channels\], not the shape \(9, 4\)"),
        (lambda x: max_pool(x, 10), "window of 10 is larger than the 9x9 image"),
        (lambda x: norm_pool(x, window=2, stride=-1), "stride -1"),
        (lambda x: norm_pool(x, size=-1), "window of at least 1"),
        (lambda x: max_pool(x, implementation="cudnn"), "no implementation 'cudnn'; there are: triton, xla"),  # type: ignore
        (lambda x: max_pool(x, implementation="triton"), "triton needs an NVIDIA GPU, and this is cpu"),
        (lambda x: response_norm(x, axes=(-3, -2), implementation="triton.interpreted"), "normalizes across channels"),
        (lambda x: norm_pool(x, alpha=0.0, implementation="triton.interpreted"), "needs a positive alpha, not 0.0"),
    ],
)
def test_what_is_not_supported_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 9, 9, 4)))


def test_of_several_implementations_the_first_that_can_runs(rng):
    x = draw((1, 5, 5, 4), rng)
    assert np.array_equal(max_pool(x, implementation=("triton", "xla")), max_pool(x))


@pytest.mark.parametrize(
    ("capability", "kernels"), [("7.5", False), ("8.0", True), ("9.0", True), ("10.0", True), ("gfx942", False)]
)
def test_the_device_decides(capability, kernels):
    """A T4 has no compiler for the kernels; Ampere and what came after have."""

    class Gpu:
        device_kind = "a GPU"
        compute_capability = capability

    assert (triton.unsupported_reason("max_pool", jnp.ones((1, 9, 9, 4)), Gpu()) is None) == kernels
