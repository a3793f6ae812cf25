"""Sums of gradients over the data axis of a mesh, in bfloat16 or sharded; `placement.forward` computes the exact sum by itself.

Each device has the gradients of its images. With `GradientSum.sharded`, a device receives the sums of a part of every parameter
only, updates that part, and sends it to the others: Rajbhandari et al., "ZeRO", SC 2020, stage 1; Xu et al., "Automatic
Cross-Replica Sharding of Weight Update in Data-Parallel Training", arXiv:2004.13336.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.model.layers import DATA, TOWER

GradientDtype = Literal["float32", "bfloat16"]
"""Dtype in which gradients are sent between devices."""


@dataclass(frozen=True)
class GradientSum:
    """Form of the sum of gradients over the devices that divide a batch; without effect if there is one.

    Attributes:
      dtype: dtype in which gradients are sent and summed. "bfloat16" halves the bytes and rounds every gradient to 8 bits.
      sharded: whether each device sums and updates a part of every parameter (reduce-scatter), instead of all devices all of it
        (all-reduce). The values are the same, except for the order of summation.
    """

    dtype: GradientDtype = "float32"
    sharded: bool = False

    def is_exact_on(self, mesh: Mesh) -> bool:
        """Return whether this is the sum in float32 on all devices that differentiating `placement.forward` gives."""
        return self == GradientSum() or mesh.shape[DATA] == 1


def copy_per_device(params: Any, mesh: Mesh) -> Any:
    """Return the parameters as arrays with a first axis of data x towers, of which each device has its own copy.

    No data moves. The gradient with respect to these copies is that of the images of each device.

    Args:
      params: parameters, stacked along a first axis of towers.
      mesh: device mesh.
    """
    in_specs, out_specs = (_spec(mesh, None),), copies_spec(mesh)
    return jax.shard_map(lambda x: x, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(params)


def copies_spec(mesh: Mesh) -> P:
    """Return the partition of the first axis of the arrays that `copy_per_device` returns."""
    return P((DATA, TOWER) if TOWER in mesh.axis_names else DATA)


def sum_gradients(gradients: Any, mesh: Mesh, form: GradientSum) -> Any:
    """Return the sum over the data axis of gradients with respect to `copy_per_device`, in float32, stacked by tower.

    Args:
      gradients: gradients of each device, with a first axis of data x towers.
      mesh: device mesh.
      form: form of the sum; with `sharded`, the sums have the shardings of `update_sharding`.
    """
    leaves, structure = jax.tree.flatten(gradients)
    axes = [_divided_axis(leaf.shape, mesh) if form.sharded else None for leaf in leaves]

    def device_sum(*gradients: Array) -> list[Array]:
        return [_sum(g.astype(form.dtype), axis).astype(jnp.float32) for g, axis in zip(gradients, axes, strict=True)]

    out_specs = [_spec(mesh, axis) for axis in axes]
    sums = jax.shard_map(device_sum, mesh=mesh, in_specs=copies_spec(mesh), out_specs=out_specs, check_vma=False)(*leaves)
    return jax.tree.unflatten(structure, sums)


def _sum(gradient: Array, axis: int | None) -> Array:
    if axis is None:
        return lax.psum(gradient, DATA)
    return lax.psum_scatter(gradient, DATA, scatter_dimension=axis, tiled=True)


def gather_updated(params: Any, mesh: Mesh) -> Any:
    """Return parameters with the shardings of `update_sharding` on all devices of the data axis, stacked by tower.

    Args:
      params: updated parameters, which are sent in their dtype.
      mesh: device mesh.
    """
    leaves, structure = jax.tree.flatten(params)
    axes = [_divided_axis(leaf.shape, mesh) for leaf in leaves]

    def device_gather(*params: Array) -> list[Array]:
        parts = zip(params, axes, strict=True)
        return [w if axis is None else lax.all_gather(w, DATA, axis=axis, tiled=True) for w, axis in parts]

    in_specs, out_specs = tuple(_spec(mesh, axis) for axis in axes), _spec(mesh, None)
    gathered = jax.shard_map(device_gather, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*leaves)
    return jax.tree.unflatten(structure, gathered)


def update_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Return the sharding of a parameter of which each device updates a part, or all if no axis can be divided evenly.

    Args:
      mesh: device mesh.
      shape: shape of the parameter, with a first axis of towers.
    """
    return NamedSharding(mesh, _spec(mesh, _divided_axis(shape, mesh)))


def _divided_axis(shape: Sequence[int], mesh: Mesh) -> int | None:
    """Return the first axis after that of the towers which the devices can divide evenly, whose parts are the most contiguous."""
    return next((axis for axis, size in enumerate(shape) if axis and size % mesh.shape[DATA] == 0), None)


def _spec(mesh: Mesh, axis: int | None) -> P:
    first = TOWER if TOWER in mesh.axis_names else None
    return P(first) if axis is None else P(first, *[None] * (axis - 1), DATA)
