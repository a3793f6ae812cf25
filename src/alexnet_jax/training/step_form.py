"""Forms of the training step, which compute the same numbers up to rounding. Which one is fastest depends on the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from alexnet_jax.model.convolution import ConvLowering, conv_lowering, current_conv_lowering
from alexnet_jax.model.layers import TOWER, Conv
from alexnet_jax.model.lowering import Lowering, current_lowering, tower_lowering
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.mesh import Placement, mesh_platform
from alexnet_jax.parallel.placement import default_lowering
from alexnet_jax.training.config import Precision
from alexnet_kernels import default_implementation
from alexnet_kernels.dispatch import DEFAULT_ORDER, ImplementationName, current_order, unsupported_reason

Alternatives = dict[str, tuple[str, ...]]
"""Values to compare for each field of `StepForm`, in the order in which the fields are tuned."""


@dataclass(frozen=True)
class StepForm:
    """Form of the training step.

    Attributes:
      kernels: implementation of normalization and pooling, if it supports a call; otherwise "xla".
      placement: "split" runs every tower on its own devices, "single" runs all towers on every device.
      towers: lowering of towers that share a device.
      conv1: lowering of the first convolution.
    """

    kernels: ImplementationName
    placement: Literal["split", "single"]
    towers: Lowering
    conv1: ConvLowering

    def __str__(self) -> str:
        values = asdict(self)
        if self.placement == "split":
            del values["towers"]  # they share no device
        return ", ".join(f"{name} {value}" for name, value in values.items())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager in which networks and training steps are made in this form, except for their placement."""
        implementations = dict.fromkeys((self.kernels, "xla"))
        with default_implementation(*implementations), tower_lowering(self.towers), conv_lowering(self.conv1):
            yield

    @classmethod
    def from_json(cls, record: Any, default: "StepForm", alternatives: Alternatives) -> "StepForm | None":
        """Return the form with the fields in `record`; None if a value is neither that of `default` nor one of `alternatives`."""
        names = [field.name for field in fields(cls)]
        if not isinstance(record, dict) or sorted(record) != sorted(names):
            return None
        if any(record[name] not in (getattr(default, name), *alternatives.get(name, ())) for name in names):
            return None
        return cls(**record)


def default_form(mesh: Mesh, precision: Precision) -> StepForm:
    """Return the form of steps that are made on `mesh` in the current context."""
    supported: list[ImplementationName] = [name for name in current_order() if _supports(name, mesh, precision)]
    placement = "split" if TOWER in mesh.axis_names else "single"
    return StepForm(supported[0] if supported else "xla", placement, default_lowering(mesh), current_conv_lowering())


def alternative_forms(
    network: Network, mesh: Mesh, placement: Placement, *, devices: int | None = None, precision: Precision, batch_size: int
) -> Alternatives:
    """Return the values of the fields of `StepForm` that may be faster on `mesh`. A field that is set by the user has none.

    Args:
      network: network to train.
      mesh: device mesh of the default form.
      placement: placement that the user requests.
      devices: number of devices that the user requests; None if "single" uses one CPU device.
      precision: dtype of activations and gradients.
      batch_size: images per step.
    """
    alternatives: Alternatives = {}
    on_gpu = mesh_platform(mesh) == "gpu"
    if current_order() == DEFAULT_ORDER and _supports("triton", mesh, precision):
        alternatives["kernels"] = ("triton", "xla")
    split = TOWER in mesh.axis_names
    divisible = batch_size % mesh.size == 0 if on_gpu else devices is None
    if split and placement == "auto" and jax.process_count() == 1 and divisible:
        alternatives["placement"] = ("split", "single")
    share_gpu = on_gpu and network.towers > 1 and (not split or "placement" in alternatives)
    if share_gpu and current_lowering() is None:  # on CPUs, "grouped" is several times slower, see `Lowering`
        alternatives["towers"] = ("grouped", "separate")
    first = network.layers[0]
    if isinstance(first, Conv) and first.stride > 1 and first.groups == 1 and current_conv_lowering() == "direct":
        alternatives["conv1"] = ("direct", "space_to_depth")
    return alternatives


def _supports(name: ImplementationName, mesh: Mesh, precision: Precision) -> bool:
    x = jax.ShapeDtypeStruct((1, 3, 3, 8), precision)
    return unsupported_reason(name, "max_pool", x, mesh.devices.flat[0], window=3, stride=2) is None
