"""The paper's update rule (section 5) as an optax chain."""

from collections.abc import Sequence
from typing import Any

import jax
import optax


def paper_update(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9, weight_decay: float = 0.0005, bias_rate: float = 1.0
) -> optax.GradientTransformation:
    """Gradient descent with the learning rate inside the velocity, and weight decay inside it too.

        v <- momentum * v - weight_decay * rate * w - rate * g
        w <- w + v

    Args:
      learning_rate: the rate, or a function of the step.
      momentum: what remains of the velocity.
      weight_decay: of weights; biases do not decay (weights.cu and layer.cu of the original code).
      bias_rate: times the rate, for biases; the code has 2.

    >>> import jax.numpy as jnp, optax
    >>> params = {"fc8": {"kernel": jnp.ones(1)}}
    >>> update = paper_update(0.5, momentum=0.9, weight_decay=0.0)
    >>> updates, _ = update.update({"fc8": {"kernel": jnp.ones(1)}}, update.init(params), params)
    >>> optax.apply_updates(params, updates)["fc8"]["kernel"].tolist()
    [0.5]
    """
    return optax.chain(
        optax.masked(optax.add_decayed_weights(weight_decay), lambda params: _is_bias(params, False)),
        optax.scale_by_learning_rate(learning_rate),
        optax.masked(optax.scale(bias_rate), lambda params: _is_bias(params, True)),
        optax.trace(decay=momentum),
    )


def stepwise_rate(start: float, cuts: Sequence[int], steps_per_epoch: int) -> optax.Schedule:
    """A rate that is divided by ten after each epoch of `cuts`, as the paper's was by hand, three times (section 5)."""
    return optax.piecewise_constant_schedule(start, {epoch * steps_per_epoch: 0.1 for epoch in cuts})


def _is_bias(params: Any, answer: bool) -> Any:
    """Tree of whether each parameter's being a bias is `answer`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: (path[-1].key == "bias") == answer, params)
