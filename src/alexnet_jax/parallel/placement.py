"""Forward pass and initialization of all towers, on separate devices (`shard_map`) or on the same device (`vmap`).

Both placements compute the same values. Outside the model, parameters are stacked along a first axis of towers, and images are
global batches; the shardings are in `parallel.mesh`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Key

from alexnet_jax.model import tower
from alexnet_jax.model.convolution import conv_lowering, current_conv_lowering
from alexnet_jax.model.layers import DATA, TOWER
from alexnet_jax.model.lowering import Lowering, current_lowering
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.gradients import copies_spec
from alexnet_jax.parallel.mesh import check_mesh, mesh_platform, parameter_sharding
from alexnet_kernels import default_implementation, dispatch

Forward = Callable[..., Float[Array, "batch outputs"]]
"""Function `(params, images, key, rounded_params=None)` that returns the logits of a global batch, or the outputs of a layer.

`params` are in float32. The layers compute in the dtype of the images, [batch, height, width, 3]. `key` is the random key for
dropout in training, and None for evaluation. `rounded_params` are the parameters in the dtype of the images, which layers read
if given instead of casting `params`; the gradient with respect to `params` is the same.
"""


def forward(
    network: Network,
    mesh: Mesh,
    layer: str | None = None,
    *,
    lowering: Lowering | None = None,
    sums_gradients: bool = True,
) -> Forward:
    """Return the network as a function `(params, images, key) -> logits` of global batches on `mesh`, see `Forward`.

    The function keeps the values that `tower_lowering`, `conv_lowering` and `default_implementation` have when it is created.

    Args:
      network: network to run.
      mesh: device mesh, as `make_mesh` returns it or with the same axes; with a tower axis, every tower runs on its own devices.
      layer: name of a layer whose outputs are returned instead of the logits, [batch, features], concatenated in the order of
        the towers.
      lowering: form of the layers of towers that share a device; None for `default_lowering(mesh)`.
      sums_gradients: whether the gradients of parameters are summed over the data axis, in float32. If not, the function takes
        the parameters of `gradients.copy_per_device` and no `rounded_params`.

    Raises:
      ValueError: if the mesh has other axes, see `mesh.check_mesh`.
    """
    check_mesh(network, mesh)
    split, conv_form, implementations = TOWER in mesh.axis_names, current_conv_lowering(), dispatch.current_order()
    classes = network.num_classes if layer is None else None
    network = tower.rewrite_pooling(network if layer is None else network.up_to(layer))
    module = tower.Tower(network) if split else tower.stacked_towers(network, lowering or default_lowering(mesh))

    def device_forward(params: tower.Params, rounded_params: tower.Params | None, images: Array, key: Array | None) -> Array:
        if split:
            params, rounded_params = jax.tree.map(lambda stacked: stacked[0], (params, rounded_params))
        if rounded_params is not None:
            params = jax.tree.map(_replace_value, params, rounded_params)
        with conv_lowering(conv_form), default_implementation(*implementations):
            outputs = cast(Array, module.apply({"params": params}, images, rngs=None if key is None else {"dropout": key}))
        per_tower = [outputs] if split else list(outputs)
        return jnp.concatenate([outputs.reshape(len(images), -1) for outputs in per_tower], axis=-1)

    # Gradients are summed over the mesh axes that are missing in the spec of the parameters. A data axis of size one is included
    # in the spec: it leaves the shards unchanged and avoids copying every gradient for a sum over one device.
    param_spec = P(((TOWER,) if split else ()) + ((DATA,) if mesh.shape[DATA] == 1 else ()))
    if not sums_gradients:
        param_spec = copies_spec(mesh)
    sharded_forward = jax.shard_map(
        device_forward,
        mesh=mesh,
        in_specs=(param_spec, param_spec, P(DATA), P()),
        out_specs=P(DATA, TOWER) if split else P(DATA),
        check_vma=False,  # the check does not support axes of vmap; tests compare the results of both placements
    )

    def global_forward(
        params: tower.Params,
        images: Float[Array, "batch height width 3"],
        key: Key[Array, ""] | None,
        rounded_params: tower.Params | None = None,
    ) -> Float[Array, "batch outputs"]:
        # If the towers do not divide the number of classes, the last tower has padding units.
        return sharded_forward(params, rounded_params, images, key)[..., :classes]

    return global_forward


@jax.custom_vjp
def _replace_value(x: Array, value: Array) -> Array:
    """Return `value`, a rounded copy of the float32 array `x`, whose gradient becomes that of `x`."""
    return value


# The gradient is cast inside `shard_map`, so that it is summed over devices in float32, as if `x` had been cast to `value` there.
_replace_value.defvjp(lambda x, value: (value, None), lambda _, g: (g.astype(jnp.float32), None))


def default_lowering(mesh: Mesh) -> Lowering:
    """Return the lowering set by `tower_lowering`, or else the one that moves the fewest bytes on GPUs and is fastest on CPUs."""
    return current_lowering() or ("grouped" if mesh_platform(mesh) == "gpu" else "separate")


def init(network: Network, mesh: Mesh, key: Key[Array, ""]) -> tower.Params:
    """Return initial parameters, stacked along a first axis of towers and sharded over `mesh`.

    The values do not depend on the mesh.

    Raises:
      ValueError: if the mesh has other axes, see `mesh.check_mesh`.
    """
    check_mesh(network, mesh)
    return _jitted_init(network, mesh)(key)


@cache
def _jitted_init(network: Network, mesh: Mesh) -> Callable[[Key[Array, ""]], tower.Params]:
    return jax.jit(partial(tower.init, network), out_shardings=parameter_sharding(mesh))
