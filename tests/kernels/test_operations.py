"""Every implementation of an operation: values and gradients against the reference in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from alexnet_kernels import max_pool, reference, response_norm

NORMS = [
    {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "axes": (-1,)},
    {"size": 9, "k": 1.0, "alpha": 0.01, "beta": 0.75, "axes": (-1,)},
    {"size": 4, "k": 1.5, "alpha": 0.1, "beta": 0.6, "axes": (-1,)},
    {"size": 5, "k": 1.0, "alpha": 0.001, "beta": 0.75, "axes": (-3, -2)},
]
POOLS = [(3, 2), (2, 2), (3, 1), (3, 3), (5, 3)]
SHAPES = [(2, 13, 13, 48), (1, 7, 8, 5), (3, 6, 5, 1)]


def with_gradient(operation, x, g):
    y, vjp = jax.vjp(operation, x)
    return y, vjp(g(y.shape).astype(y.dtype))[0]


def against_reference(operation, in_float64, x, rtol):
    g = lambda shape: jnp.asarray(np.random.default_rng(1).normal(size=shape))  # noqa: E731
    ours = with_gradient(operation, x, g)
    with jax.enable_x64(True):
        expected = with_gradient(in_float64, jnp.asarray(np.asarray(x, np.float64)), g)
    for ours_part, expected_part in zip(ours, expected, strict=True):
        assert ours_part.dtype == x.dtype
        np.testing.assert_allclose(
            np.asarray(ours_part, np.float64), expected_part, rtol=rtol, atol=rtol * float(np.abs(expected_part).max())
        )


@pytest.mark.parametrize("implementation", ["xla", "reference"])
class TestEveryImplementation:
    @pytest.mark.parametrize("settings", NORMS, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_response_norm(self, implementation, settings, shape, rng):
        x = jnp.asarray(rng.normal(0, 40, shape), jnp.float32)
        against_reference(
            lambda x: response_norm(x, **settings, implementation=implementation),
            lambda x: reference.response_norm(x, **settings),
            x,
            rtol=2e-5,
        )

    @pytest.mark.parametrize(("window", "stride"), POOLS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_max_pool(self, implementation, window, stride, shape, rng):
        # Distinct values: where two are equal, "the" gradient depends on which of them comes first.
        x = jnp.asarray(rng.permutation(np.prod(shape)).reshape(shape), jnp.float32)
        against_reference(
            lambda x: max_pool(x, window, stride, implementation=implementation),
            lambda x: reference.max_pool(x, window, stride),
            x,
            rtol=1e-6,
        )


def test_first_of_equal_maxima_takes_the_gradient():
    x = jnp.asarray([1.0, 7, 7, 0, 7, 2, 0, 0, 7]).reshape(1, 3, 3, 1)
    gradient = jax.grad(lambda x: max_pool(x, 3, 2).sum())(x)
    assert gradient.ravel().tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_relu_and_pool_commute(rng):
    """source_145 pools before it rectifies, the prose after: the same function."""
    x = jnp.asarray(rng.normal(size=(2, 13, 13, 4)), jnp.float32)
    assert np.array_equal(max_pool(jnp.maximum(x, 0)), jnp.maximum(max_pool(x), 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_not_lost(bad, rng):
    x = jnp.asarray(rng.normal(size=(1, 7, 7, 9)), jnp.float32).at[0, 3, 3, 4].set(bad)
    np.testing.assert_array_equal(max_pool(x), reference.max_pool(x, 3, 2))
    ours = np.isfinite(response_norm(x))
    assert np.array_equal(ours, np.isfinite(reference.response_norm(x, 5, 2.0, 1e-4, 0.75, (-1,))))


def test_bfloat16_is_computed_in_float32(rng):
    x = jnp.asarray(rng.normal(0, 40, (2, 5, 5, 48)), jnp.bfloat16)
    y = response_norm(x, alpha=0.01)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, response_norm(x.astype(jnp.float32), alpha=0.01).astype(jnp.bfloat16))


def test_gradients_equal_finite_differences(rng):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(0, 2, (1, 7, 7, 6)))
        check_grads(lambda x: response_norm(jnp.asarray(x), alpha=0.1), (x,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
        check_grads(
            lambda x: response_norm(jnp.asarray(x), size=4, alpha=0.1, beta=0.6),
            (x,),
            order=1,
            modes=["rev"],
            atol=1e-6,
            rtol=1e-6,
        )
        check_grads(lambda x: max_pool(jnp.asarray(x)), (x,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-6)


def test_vmap_is_one_more_batch_axis(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 9, 9, 8)), jnp.float32)
    np.testing.assert_array_equal(jax.vmap(max_pool)(x), max_pool(x))
    np.testing.assert_allclose(jax.vmap(response_norm)(x), response_norm(x), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_pool_shapes_follow_the_ceiling_rule(stride, more, height, width, channels):
    window = stride + more - 1
    x = jnp.ones((1, window + height, window + width, channels))
    y = max_pool(x, window, stride)
    assert y.shape == (1, -(-height // stride) + 1, -(-width // stride) + 1, channels)
    assert np.array_equal(y, reference.max_pool(x, window, stride))
    assert float(jax.grad(lambda x: max_pool(x, window, stride).sum())(x).sum()) == y.size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: response_norm(jnp.ones((1, 3, 3, 4), jnp.int32)), "needs floating-point input, not int32"),
        (lambda: response_norm(jnp.ones((1, 3, 3, 4)), size=0), "window of at least 1"),
        (lambda: response_norm(jnp.ones((1, 3, 3, 4)), axes=(3,)), "counted from the end"),
        (lambda: max_pool(jnp.ones((1, 3, 3, 4), jnp.int32)), "needs floating-point input"),
        (lambda: max_pool(jnp.ones((1, 2, 2, 4))), "larger than the 2x2 image"),
        (lambda: max_pool(jnp.ones((1, 9, 9, 4)), 2, -1), "stride -1"),
        (lambda: max_pool(jnp.ones((1, 9, 9, 4)), implementation="cudnn"), "no implementation 'cudnn'; there are: xla"),  # type: ignore
    ],
)
def test_what_is_not_supported_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
