"""Where the towers run: each on a device of its own (`shard_map`), or all on one (`vmap`), with the same numbers.

A mesh has an axis `DATA`, which divides the images, and, where towers have devices of their own, an axis `TOWER`. On
everything outside the model, parameters are stacked along a first axis of towers and images are whole batches; the
shardings below say which part of them lies where.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Key

from alexnet_jax import tower
from alexnet_jax.layers import TOWER, Keys
from alexnet_jax.network import Network

DATA = "data"
"""Name of the axis of devices along which the images of a batch are divided."""

Forward = Callable[[tower.Params, Float[Array, "batch height width 3"], Keys | None], Float[Array, "batch classes"]]
"""`(params, images, keys)` of whole batches to logits, or to what a layer puts out."""


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


def forward(network: Network, mesh: Mesh, layer: str | None = None) -> Forward:
    """The network as a function `(params, images, keys) -> logits` of whole batches, placed on `mesh`.

    Pass `keys`, one for each image, for dropout in training, and None at test. With the name of a `layer`, the function
    returns what that one puts out instead, [batch, features]: everything of tower 0, then of tower 1.
    """
    split = TOWER in mesh.axis_names
    outputs = network.classes if layer is None else None

    def on_a_device(params: tower.Params, images: Array, keys: Keys | None) -> Array:
        one_tower = partial(tower.logits, network) if layer is None else partial(tower.features, network, layer)
        if split:
            return one_tower(jax.tree.map(lambda stacked: stacked[0], params), images, keys)
        share = jax.vmap(one_tower, in_axes=(0, None, None), axis_name=TOWER)(params, images, keys)
        return jnp.concatenate(list(share), axis=-1)

    # Gradients are summed over the axes that the parameters' spec leaves out. Dividing by a data axis of one device changes
    # nothing, and spares copying every gradient for a sum of one.
    divided_by = ((TOWER,) if split else ()) + ((DATA,) if mesh.shape[DATA] == 1 else ())
    placed = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(P(divided_by), P(DATA), P(DATA)),
        out_specs=P(DATA, TOWER) if split else P(DATA),
        check_vma=False,  # the check does not know axes that vmap makes; tests hold both placements to the same numbers
    )
    # Where the classes are not a multiple of the towers, the last tower has units that stand for none.
    return lambda params, images, keys: placed(params, images, keys)[..., :outputs]


def init(network: Network, mesh: Mesh, key: Key[Array, ""]) -> tower.Params:
    """Initial parameters, each tower's on its devices; the numbers do not depend on the mesh."""

    def stacked(key: Key[Array, ""]) -> tower.Params:
        return jax.vmap(partial(tower.init, network), in_axes=None, axis_name=TOWER, axis_size=network.towers)(key)

    return jax.jit(stacked, out_shardings=parameter_sharding(mesh))(key)


def put(values: Any, sharding: NamedSharding) -> Any:
    """NumPy arrays on the devices, as this process has them: its part along axes that the processes divide, else whole."""
    with jax.transfer_guard("allow"):  # asked for by name, which JAX overlooks where there are several processes
        return jax.make_array_from_process_local_data(sharding, values)


def parameter_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the towers'."""
    return NamedSharding(mesh, P(TOWER) if TOWER in mesh.axis_names else P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the images'."""
    return NamedSharding(mesh, P(DATA))


def rows_here(mesh: Mesh, batch_size: int) -> slice:
    """The part of a batch that this process has to have: what its devices need, all of it if its towers share the batch."""
    of_devices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    needed = [index[0].indices(batch_size) for index in of_devices if index]
    return slice(min(start for start, _, _ in needed), max(stop for _, stop, _ in needed))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device has whole."""
    return NamedSharding(mesh, P())
