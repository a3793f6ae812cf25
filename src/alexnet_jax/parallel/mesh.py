"""The device mesh and the shardings of what lies on it.

A mesh has an axis `DATA`, along which the images of a batch are divided, and, where each tower has devices of its own, an axis
`TOWER`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import TOWER
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.runtime import retain_freed_memory, set_cpu_device_count

DATA = "data"
"""Name of the axis of devices along which the images of a batch are divided."""


def make_mesh(network: Network, devices: Sequence[Any], *, split_towers: bool) -> Mesh:
    """Devices as a (data, tower) mesh, or as a (data,) mesh on which every device runs all towers.

    Raises:
      ValueError: if the towers are to be split and the devices are not a multiple of them.
    """
    if not split_towers:
        return jax.make_mesh((len(devices),), (DATA,), (AxisType.Auto,), devices=devices)
    if len(devices) % network.towers:
        raise ValueError(f"{network.name} has {network.towers} towers, which {len(devices)} device(s) cannot share evenly")
    shape = (len(devices) // network.towers, network.towers)
    return jax.make_mesh(shape, (DATA, TOWER), (AxisType.Auto,) * 2, devices=devices)


def to_global_array(values: Any, sharding: NamedSharding) -> Any:
    """NumPy arrays on the devices, as this process has them: its part along axes that the processes divide, else whole."""
    with jax.transfer_guard("allow"):  # asked for by name, which JAX overlooks where there are several processes
        return jax.make_array_from_process_local_data(sharding, values)


def parameter_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the towers'."""
    return NamedSharding(mesh, P(TOWER) if TOWER in mesh.axis_names else P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the images'."""
    return NamedSharding(mesh, P(DATA))


def local_batch_slice(mesh: Mesh, batch_size: int) -> slice:
    """The part of a batch that this process has to have: what its devices need, all of it if its towers share the batch."""
    of_devices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    needed = [index[0].indices(batch_size) for index in of_devices if index]
    return slice(min(start for start, _, _ in needed), max(stop for _, stop, _ in needed))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device has whole."""
    return NamedSharding(mesh, P())


Placement = Literal["auto", "split", "single"]
"""Each tower on devices of its own ("split"), or all towers on every device ("single"); "auto" splits where it can."""


def choose_mesh(network: Network, placement: Placement = "auto", devices: int | None = None) -> Mesh:
    """The mesh to train on.

    Args:
      network: whose towers are to be placed.
      placement: "split" gives each tower devices of its own, "single" runs all towers on every device; "auto" splits where
        the devices can be divided evenly among the towers.
      devices: how many of each process to use; None takes every GPU, or as many CPU devices as there are towers. The CPU's
        cores can pose as any number of devices; how one and two compare is in experiments/results/bench.json.

    Raises:
      UserError: if there are too few devices, or "split" cannot divide them.
    """
    if devices is not None or placement != "single":
        set_cpu_device_count(
            devices or network.towers, data_parallel=placement == "single" or devices not in (None, network.towers)
        )
    retain_freed_memory()
    if devices is None and jax.default_backend() == "cpu":
        # Who has used JAX before, in a program or a notebook, may have only one: both towers run there unless told otherwise.
        few = placement == "auto" and jax.local_device_count() < network.towers
        devices = 1 if placement == "single" or few else network.towers
    used = []
    for process in range(jax.process_count()):
        found = jax.local_devices(process_index=process)
        if devices is not None and devices > len(found):
            raise UserError(f"{devices} devices are asked for, and there are {len(found)}: {', '.join(map(str, found))}")
        used += found[:devices]
    split = placement == "split" or (placement == "auto" and network.towers > 1 and len(used) % network.towers == 0)
    try:
        return make_mesh(network, used, split_towers=split)
    except ValueError as error:
        raise UserError(f"{error}: choose another number with --devices, or --placement single") from error
