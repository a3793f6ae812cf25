"""Plain Flax baseline of the benchmarks: the two-tower network as one tower with grouped convolutions, from Flax's and XLA's own
operations."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import Array, lax

TrainStep = Callable[[TrainState, Array, Array], tuple[TrainState, Array]]
"""Function returned by `make_train_step`: (state, images, labels) -> (state, loss)."""


class AlexNet(nn.Module):
    """Two-tower network, from images [batch, height, width, 3] minus their mean to logits [batch, classes].

    Attributes:
      num_classes: number of classes.
      width: number of kernels and units relative to the paper's.
      dropout_rate: probability that a unit of fc6 and fc7 is dropped.
    """

    num_classes: int = 1000
    width: float = 1.0
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv(name: str, features: int, size: int, padding: Any = "SAME", **settings: Any) -> nn.Module:
            return nn.Conv(int(features * self.width), (size, size), padding=padding, name=name, **settings)

        def dense(name: str, features: int) -> nn.Module:
            return nn.Dense(int(features * self.width), name=name)

        dropout = nn.Dropout(self.dropout_rate, deterministic=False)
        x = max_pool(response_norm(nn.relu(conv("conv1", 96, 11, ((0, 3), (0, 3)), strides=4)(x))))
        x = max_pool(response_norm(nn.relu(conv("conv2", 256, 5, feature_group_count=2)(x))))
        x = nn.relu(conv("conv3", 384, 3)(x))
        x = nn.relu(conv("conv4", 384, 3, feature_group_count=2)(x))
        x = max_pool(nn.relu(conv("conv5", 256, 3, feature_group_count=2)(x)))
        x = dropout(nn.relu(dense("fc6", 4096)(x.reshape(len(x), -1))))
        x = dropout(nn.relu(dense("fc7", 4096)(x)))
        return nn.Dense(self.num_classes, name="fc8")(x)


def response_norm(x: Array) -> Array:
    """Apply response normalization across the channels of each tower, [batch, height, width, channels]."""
    towers = x.reshape(*x.shape[:-1], 2, -1)
    sums = lax.reduce_window(jnp.square(towers), 0.0, lax.add, (1, 1, 1, 1, 5), (1,) * 5, "SAME")
    return (towers * (2 + 1e-4 * sums) ** -0.75).reshape(x.shape)


def max_pool(x: Array) -> Array:
    """Apply overlapping max-pooling, [batch, height, width, channels]."""
    return nn.max_pool(x, (3, 3), (2, 2))


def initial_state(model: AlexNet, size: int) -> TrainState:
    """Return the state before the first step, with SGD with the paper's momentum and weight decay; biases have no weight decay.

    Args:
      model: model to train.
      size: side of the images, pixels.
    """
    optimizer = optax.chain(
        optax.add_decayed_weights(0.0005, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.sgd(0.01, momentum=0.9),
    )
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    params = jax.jit(model.init)(keys, jnp.zeros((1, size, size, 3)))["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)


def make_train_step(compiler_options: Mapping[str, str]) -> TrainStep:
    """Return a jitted training step for uint8 images, which donates the state.

    Args:
      compiler_options: XLA option names and values.
    """

    @partial(jax.jit, donate_argnums=0, compiler_options=dict(compiler_options))
    def train_step(state: TrainState, images: Array, labels: Array) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(jax.random.key(0), state.step)

        def mean_loss(params: Any) -> Array:
            logits = state.apply_fn({"params": params}, images.astype(jnp.float32) - 128, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        return state.apply_gradients(grads=gradients), loss

    return train_step
