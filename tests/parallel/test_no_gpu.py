"""Tests of the message on a machine whose GPUs JAX cannot use."""

from types import SimpleNamespace

import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.parallel import runtime

ADVICE = " (you may need to uninstall the failing plugin package, or set JAX_PLATFORMS=cpu to skip this backend.)"


@pytest.fixture
def fail_with(monkeypatch):
    """Return a function that makes `jax.devices` raise an error with a message."""

    def replace_jax(message):
        def devices():
            raise RuntimeError(message)

        monkeypatch.setattr(runtime, "jax", SimpleNamespace(devices=devices, config=SimpleNamespace(jax_platforms=None)))

    return replace_jax


@pytest.mark.parametrize(
    "reason",
    ["FAILED_PRECONDITION: No visible GPU devices", "INTERNAL: CUDA driver version is insufficient for CUDA runtime version"],
)
def test_gpus_that_cannot_be_used_are_reported_in_one_line(fail_with, reason):
    """Raise the errors of JAX for CUDA if CUDA_VISIBLE_DEVICES is empty, and with an old driver."""
    fail_with(f"Unable to initialize backend 'cuda': {reason}.{ADVICE}")
    with pytest.raises(UserError) as error:
        runtime.check_platform()
    assert str(error.value) == (
        f"JAX cannot use its devices (Unable to initialize backend 'cuda': {reason}): "
        "update the driver and check CUDA_VISIBLE_DEVICES, or set JAX_PLATFORMS=cpu to use the CPU"
    )


def test_other_errors_are_raised_unchanged(fail_with):
    fail_with("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        runtime.check_platform()
