"""Device mesh and shardings.

A mesh has an axis `DATA`, over which the images of a batch are sharded. If every tower runs on its own devices, the mesh also
has an axis `TOWER`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.console import count
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import DATA, TOWER
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.runtime import check_platform


def make_mesh(network: Network, devices: Sequence[Any], *, split_towers: bool) -> Mesh:
    """Return a (data, tower) mesh of the devices, or a (data,) mesh on which every device runs all towers.

    Args:
      network: network to place.
      devices: JAX devices of all processes.
      split_towers: whether to run every tower on its own devices.

    Raises:
      ValueError: if the towers are to be split and the number of devices is not a multiple of the number of towers.
    """
    if not split_towers:
        return jax.make_mesh((len(devices),), (DATA,), (AxisType.Auto,), devices=devices)
    if len(devices) % network.towers:
        number = count(len(devices), "device")
        raise ValueError(f"the {network.towers} towers of {network.name} cannot be divided evenly among {number}")
    shape = (len(devices) // network.towers, network.towers)
    return jax.make_mesh(shape, (DATA, TOWER), (AxisType.Auto,) * 2, devices=devices)


def check_mesh(network: Network, mesh: Mesh | AbstractMesh) -> None:
    """Check that a mesh, which `make_mesh` need not have made, has the axes that a network needs.

    Args:
      network: network to place.
      mesh: mesh with an axis `DATA` and, to run every tower on its own devices, an axis `TOWER`, in any order.

    Raises:
      ValueError: if the axis `DATA` is missing, the size of `TOWER` is not the number of towers, another axis has more than one
        device, which would all compute the same, or the axes are not of type Auto.
    """
    shape = dict(mesh.shape)
    if DATA not in shape or any(size > 1 for name, size in shape.items() if name not in (DATA, TOWER)):
        raise ValueError(
            f"mesh {shape}: name its axes {DATA!r}, which divides the images, and {TOWER!r}, which divides the towers"
        )
    if shape.get(TOWER, network.towers) != network.towers:
        raise ValueError(f"mesh {shape}: axis {TOWER!r} must have size {network.towers}, the number of towers of {network.name}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            f"mesh {shape}: pass axis_types=(AxisType.Auto,) * {len(shape)} to jax.make_mesh, whose default is Explicit"
        )


def mesh_platform(mesh: Mesh) -> str:
    """Return the platform of the devices of a mesh, such as "cpu" or "gpu"."""
    return mesh.devices.flat[0].platform


def to_global_array(values: Any, sharding: NamedSharding) -> Any:
    """Convert this process's NumPy arrays to global JAX arrays.

    On a CPU, JAX can use the memory of an array instead of copying it, so that it must not be changed afterwards.

    Args:
      values: pytree of NumPy arrays: the local slice of axes that are sharded over processes, and all elements of other axes.
      sharding: sharding of the global arrays.
    """
    with jax.transfer_guard("allow"):  # JAX counts these explicit transfers as implicit ones
        if jax.process_count() > 1:
            return jax.make_array_from_process_local_data(sharding, values)
        # The function for several processes would take several times as long.
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), values)


def place_like(like: Any, values: np.ndarray) -> jax.Array:
    """Return a JAX array with the shape and sharding of `like`, from NumPy values of which every process has all."""
    return jax.make_array_from_callback(like.shape, like.sharding, lambda part: values[part])


def parameter_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays with a first axis of towers."""
    return NamedSharding(mesh, P(TOWER) if TOWER in mesh.axis_names else P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays with a first axis of images."""
    return NamedSharding(mesh, P(DATA))


def local_batch_slice(mesh: Mesh, batch_size: int) -> slice:
    """Return the slice of a global batch that the devices of this process read.

    A process that holds only some of the towers reads the whole batch.
    """
    device_indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    ranges = [index[0].indices(batch_size) for index in device_indices if index]
    return slice(min(start for start, _, _ in ranges), max(stop for _, stop, _ in ranges))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, P())


Placement = Literal["auto", "split", "single"]
"""Placement of the towers: "split" runs every tower on its own devices, "single" runs all towers on every device, and "auto"
splits them if the number of devices is a multiple of the number of towers."""


def choose_mesh(network: Network, placement: Placement = "auto", devices: int | None = None) -> Mesh:
    """Return the mesh to train on, over the devices that JAX has.

    Args:
      network: network to place.
      placement: placement of the towers.
      devices: number of devices to use in every process. None uses all GPUs, or one CPU device per tower; with fewer CPU devices,
        "auto" runs all towers on one. `runtime.configure_cpu` divides a CPU into several virtual devices;
        experiments/results/bench.json compares one and two.

    Raises:
      UserError: if there are fewer devices than requested, none of the platform in JAX_PLATFORMS, or the towers cannot be divided
        evenly among them.
    """
    check_platform()
    on_cpu = jax.default_backend() == "cpu"
    if devices is None and on_cpu:
        too_few = placement == "auto" and jax.local_device_count() < network.towers
        devices = 1 if placement == "single" or too_few else network.towers
    selected = []
    for process in range(jax.process_count()):
        available = jax.local_devices(process_index=process)
        if devices is not None and devices > len(available):
            names = ", ".join(map(str, available))
            advice = f"call configure_cpu(devices={devices}) before JAX is first used, or " if on_cpu else ""
            raise UserError(
                f"{devices} devices requested, {len(available)} available ({names}): {advice}choose a smaller --devices"
            )
        selected += available[:devices]
    split = placement == "split" or (placement == "auto" and network.towers > 1 and len(selected) % network.towers == 0)
    try:
        return make_mesh(network, selected, split_towers=split)
    except ValueError as error:
        raise UserError(f"{error}: choose a different --devices, or --placement single") from error
