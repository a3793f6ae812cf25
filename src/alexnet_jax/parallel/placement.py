"""Where the towers run: each on a device of its own (`shard_map`), or all on one (`vmap`), with the same numbers.

A mesh has an axis `DATA`, which divides the images, and, where towers have devices of their own, an axis `TOWER`. On
everything outside the model, parameters are stacked along a first axis of towers and images are whole batches; the
shardings below say which part of them lies where.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Key

from alexnet_jax.model import tower
from alexnet_jax.model.layers import TOWER, Keys
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.mesh import DATA, parameter_sharding

Forward = Callable[[tower.Params, Float[Array, "batch height width 3"], Keys | None], Float[Array, "batch classes"]]
"""`(params, images, keys)` of whole batches to logits, or to what a layer puts out."""


def forward(network: Network, mesh: Mesh, layer: str | None = None) -> Forward:
    """The network as a function `(params, images, keys) -> logits` of whole batches, placed on `mesh`.

    Pass `keys`, one for each image, for dropout in training, and None at test. With the name of a `layer`, the function
    returns what that one puts out instead, [batch, features]: everything of tower 0, then of tower 1.
    """
    split = TOWER in mesh.axis_names
    outputs = network.num_classes if layer is None else None

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
