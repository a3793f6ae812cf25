"""The paper's optimizer (section 5) as an optax transformation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def paper_update(
    *, momentum: float = 0.9, weight_decay: float = 0.0005, layer_decays: Mapping[str, float] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the paper's SGD with momentum and weight decay.

    Unlike in `optax.sgd`, the learning rate is part of the momentum buffer v:

        v <- momentum * v - weight_decay * rate * w - rate * g
        w <- w + v

    `update` takes the learning rates of all parameters as the argument `learning_rates`, a tree like the parameters (see the
    function `learning_rates`), so that a change of rates does not recompile the training step. The optimizer state is v, a tree
    like the parameters.

    Args:
      momentum: momentum coefficient.
      weight_decay: weight decay coefficient of weights; biases are not decayed (weights.cu and layer.cu of the original code).
      layer_decays: weight decay coefficients of layers with a different coefficient, by layer name.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> params = {"fc8": {"kernel": jnp.ones(1)}}
      >>> update = paper_update(momentum=0.9, weight_decay=0.0)
      >>> gradients = {"fc8": {"kernel": jnp.ones(1)}}
      >>> updates, opt_state = update.update(gradients, update.init(params), params, learning_rates=learning_rates(params, 0.5))
      >>> optax.apply_updates(params, updates)["fc8"]["kernel"].tolist()
      [0.5]
    """

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None, *, learning_rates: Any = None, **_: Any) -> tuple[Any, Any]:
        def updated_momentum(path: Any, g: jax.Array, v: jax.Array, w: jax.Array, rate: Any) -> jax.Array:
            decay = (layer_decays or {}).get(path[0].key, weight_decay)
            decayed = g if _is_bias(path) else g + decay * w
            return decayed * -rate + momentum * v

        new_state = jax.tree_util.tree_map_with_path(updated_momentum, updates, state, params, learning_rates)
        return new_state, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def learning_rates(
    params: Any, weights: float, biases: float | None = None, layers: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, dict[str, np.float32]]:
    """Return the learning rate of every parameter, float32 [], as a tree like `params`.

    Args:
      params: parameters of the network, or their shapes.
      weights: learning rate of weights.
      biases: learning rate of biases; None uses that of weights.
      layers: learning rates (weights, biases) of layers with different rates, by layer name.
    """
    biases = weights if biases is None else biases

    def parameter_rate(path: Any, _: Any) -> np.float32:
        rates = (layers or {}).get(path[0].key, (weights, biases))
        return np.float32(rates[_is_bias(path)])

    return jax.tree_util.tree_map_with_path(parameter_rate, params)


def _is_bias(path: Any) -> bool:
    return path[-1].key == "bias"
