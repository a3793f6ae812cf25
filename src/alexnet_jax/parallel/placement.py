"""Forward pass and initialization of all towers, on separate devices (`shard_map`) or on the same device (`vmap`).

Both placements compute the same values. Outside the model, parameters are stacked along a first axis of towers, and images are
global batches; the shardings are in `parallel.mesh`.
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
"""Function `(params, images, keys)` that returns the logits of a global batch, or the outputs of a layer."""


def forward(network: Network, mesh: Mesh, layer: str | None = None) -> Forward:
    """Return the network as a function `(params, images, keys) -> logits` of global batches on `mesh`.

    The function takes one random key per image for dropout in training, and None for evaluation.

    Args:
      network: network to run.
      mesh: device mesh; with a tower axis, every tower runs on its own devices.
      layer: name of a layer whose outputs are returned instead of the logits, [batch, features], concatenated in the order of
        the towers.
    """
    split = TOWER in mesh.axis_names
    outputs = network.num_classes if layer is None else None

    def device_forward(params: tower.Params, images: Array, keys: Keys | None) -> Array:
        tower_forward = partial(tower.logits, network) if layer is None else partial(tower.features, network, layer)
        if split:
            return tower_forward(jax.tree.map(lambda stacked: stacked[0], params), images, keys)
        tower_outputs = jax.vmap(tower_forward, in_axes=(0, None, None), axis_name=TOWER)(params, images, keys)
        return jnp.concatenate(list(tower_outputs), axis=-1)

    # Gradients are summed over the mesh axes that are missing in the spec of the parameters. A data axis of size one is included
    # in the spec: it leaves the shards unchanged and avoids copying every gradient for a sum over one device.
    param_axes = ((TOWER,) if split else ()) + ((DATA,) if mesh.shape[DATA] == 1 else ())
    sharded_forward = jax.shard_map(
        device_forward,
        mesh=mesh,
        in_specs=(P(param_axes), P(DATA), P(DATA)),
        out_specs=P(DATA, TOWER) if split else P(DATA),
        check_vma=False,  # the check does not support axes of vmap; tests compare the results of both placements
    )
    # If the towers do not divide the number of classes, the last tower has padding units.
    return lambda params, images, keys: sharded_forward(params, images, keys)[..., :outputs]


def init(network: Network, mesh: Mesh, key: Key[Array, ""]) -> tower.Params:
    """Return initial parameters, stacked along a first axis of towers and sharded over `mesh`.

    The values do not depend on the mesh.
    """

    def init_towers(key: Key[Array, ""]) -> tower.Params:
        return jax.vmap(partial(tower.init, network), in_axes=None, axis_name=TOWER, axis_size=network.towers)(key)

    return jax.jit(init_towers, out_shardings=parameter_sharding(mesh))(key)
