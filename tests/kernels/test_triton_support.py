"""Tests of where the Triton kernels can be used: devices, arguments, and the self-test on the GPU at hand."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import alexnet_kernels
from alexnet_kernels import reference, triton
from alexnet_kernels.specs import OPERATIONS
from alexnet_kernels.triton import self_test


@pytest.mark.parametrize("op", OPERATIONS)
def test_kernels_can_be_traced_under_the_default_shard_map(op):
    """Check that the outputs vary across the mesh like the inputs, which `shard_map` checks; the interpreter fails it."""
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    kernel = partial(getattr(alexnet_kernels, op), implementation="triton.interpreted")
    mapped = jax.shard_map(kernel, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    x = jax.ShapeDtypeStruct((4, 7, 7, 8), jnp.float32)
    assert jax.eval_shape(jax.grad(lambda x: mapped(x).sum()), x).shape == x.shape


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 30, 30, 8), {"window": 6}, "windows of at most"),
        ((1, 30, 30, 8), {"size": 10}, "normalization over at most"),
        ((0, 30, 30, 8), {}, "at least one element"),
        ((2**15, 256, 256, 1), {}, r"fewer than 2\*\*31 elements"),
    ],
    ids=str,
)
def test_kernels_do_not_support_arguments_that_exceed_their_limits(shape, settings, message):
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    assert re.search(message, triton.unsupported_arguments("norm_pool", x, None, **settings) or "")  # type: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("capability", "supported"), [("7.5", False), ("8.0", True), ("9.0", True), ("10.0", True), ("gfx942", False)]
)
def test_required_compute_capability(capability, supported):
    """Check that the kernels require compute capability 8.0 (Ampere); a T4 has 7.5."""

    class Gpu:
        platform = "gpu"
        device_kind = "a GPU"
        compute_capability = capability

    assert (triton.unsupported_reason("max_pool", jnp.ones((1, 9, 9, 4)), Gpu()) is None) == supported


def test_self_test_of_the_kernels_passes():
    """Also if all implicit transfers are errors, as a user can set for the process."""
    transfers = jax.config.jax_transfer_guard  # type: ignore[reportAttributeAccessIssue]
    try:
        jax.config.update("jax_transfer_guard", "disallow")
        assert self_test.compare(jax.devices()[0], "bfloat16", interpret=True) is None
    finally:
        jax.config.update("jax_transfer_guard", transfers)


@pytest.mark.parametrize(
    ("factor", "message"),
    [(None, "raised NotImplementedError: no lowering"), (2.0, "relative error of"), (np.nan, "relative error of nan")],
)
def test_kernels_that_fail_their_self_test_are_not_used(factor, message, monkeypatch, request):
    """Run the self-test on a CPU in the place of a GPU, while a function is traced."""

    def faulty(x, **_):
        if factor is None:
            raise NotImplementedError("no\nlowering")
        return reference.max_pool(x, 3, 2) * factor

    monkeypatch.setattr(self_test.pool, "max_pool", faulty)
    self_test.failure.cache_clear()
    request.addfinalizer(self_test.failure.cache_clear)
    with pytest.warns(UserWarning, match=f"the Triton kernels are not used: on cpu, a test of them .*{message}"):
        jax.jit(lambda x: x if self_test.failure("cpu", "float32") else 1 / 0).lower(1.0)
    assert re.search(message, self_test.failure("cpu", "float32") or "")
    assert self_test.failure("no platform", "float32") is None
