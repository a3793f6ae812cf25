"""The paper's optimizer (section 5) as an optax chain."""

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
    function `learning_rates`), so that a change of rates does not recompile the training step. A parameter whose rate is 0 keeps
    its value and its v, as in the original code (weights.cu). The only arrays of the optimizer state are v. Other arguments of
    `update` reach every transformation of the chain, so that one which needs them can be added.

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
    layer_decays = layer_decays or {}

    def add_decay(path: Any, gradient: Any, param: Any) -> Any:
        decay = 0.0 if _is_bias(path) else layer_decays.get(path[0].key, weight_decay)
        return gradient + decay * param if decay else gradient

    return optax.chain(
        optax.stateless(lambda gradients, params: jax.tree_util.tree_map_with_path(add_decay, gradients, params)),
        scale_by_learning_rates(),
        trace_unless_frozen(momentum),
    )


def scale_by_learning_rates() -> optax.GradientTransformationExtraArgs:
    """Multiply the update of each parameter by minus its learning rate, in the argument `learning_rates` of `update`."""

    def update(updates: Any, state: Any, params: Any = None, *, learning_rates: Any, **_: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda u, rate: -rate * u, updates, learning_rates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)  # type: ignore[reportArgumentType]


def trace_unless_frozen(decay: float) -> optax.GradientTransformationExtraArgs:
    """Apply `optax.trace(decay)`, except to parameters whose learning rate is 0.

    Their update is 0, and their trace does not change. Unlike with `optax.masked`, these parameters can change from step to step:
    they follow from the argument `learning_rates`.
    """
    trace = optax.trace(decay)

    def update(updates: Any, state: Any, params: Any = None, *, learning_rates: Any, **_: Any) -> tuple[Any, Any]:
        new_trace = trace.update(updates, state, params)[0]
        new_trace = jax.tree.map(lambda new, old, rate: jnp.where(rate == 0, old, new), new_trace, state.trace, learning_rates)
        updates = jax.tree.map(lambda v, rate: jnp.where(rate == 0, 0.0, v), new_trace, learning_rates)
        return updates, optax.TraceState(new_trace)

    return optax.GradientTransformationExtraArgs(trace.init, update)  # type: ignore[reportArgumentType]


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
