"""The paper's update rule (section 5) as an optax transformation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def paper_update(
    *, momentum: float = 0.9, weight_decay: float = 0.0005, layer_decays: Mapping[str, float] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with the learning rate inside the velocity, and weight decay inside it too.

        v <- momentum * v - weight_decay * rate * w - rate * g
        w <- w + v

    `update` takes the rates as an argument, a number for each parameter (see `learning_rates`): a cut changes numbers and compiles
    nothing. The state is v, a tree like the parameters.

    Args:
      momentum: what remains of the velocity.
      weight_decay: of weights; biases do not decay (weights.cu and layer.cu of the original code).
      layer_decays: of the weights of layers that have another.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> params = {"fc8": {"kernel": jnp.ones(1)}}
      >>> update = paper_update(momentum=0.9, weight_decay=0.0)
      >>> gradients = {"fc8": {"kernel": jnp.ones(1)}}
      >>> updates, velocity = update.update(gradients, update.init(params), params, learning_rates=learning_rates(params, 0.5))
      >>> optax.apply_updates(params, updates)["fc8"]["kernel"].tolist()
      [0.5]
    """

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None, *, learning_rates: Any = None, **_: Any) -> tuple[Any, Any]:
        def next_velocity(path: Any, g: jax.Array, v: jax.Array, w: jax.Array, rate: Any) -> jax.Array:
            decay = (layer_decays or {}).get(path[0].key, weight_decay)
            decayed = g if _is_bias(path) else g + decay * w
            return decayed * -rate + momentum * v

        velocity = jax.tree_util.tree_map_with_path(next_velocity, updates, state, params, learning_rates)
        return velocity, velocity

    return optax.GradientTransformationExtraArgs(init, update)


def learning_rates(
    params: Any, weights: float, biases: float | None = None, layers: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, dict[str, np.float32]]:
    """The learning rate of every parameter, float32 [], as a tree like `params`.

    Args:
      params: of the network, or their shapes.
      weights: rate of weights.
      biases: rate of biases; None is that of weights.
      layers: rates of weights and biases of the layers that have others.
    """
    biases = weights if biases is None else biases

    def one(path: Any, _: Any) -> np.float32:
        of_layer = (layers or {}).get(path[0].key, (weights, biases))
        return np.float32(of_layer[_is_bias(path)])

    return jax.tree_util.tree_map_with_path(one, params)


def _is_bias(path: Any) -> bool:
    return path[-1].key == "bias"
