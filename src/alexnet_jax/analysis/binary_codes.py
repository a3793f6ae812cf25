"""Short binary codes of features, for nearest-neighbor search by Hamming distance (paper, section 6.1).

The paper suggests it without results: "This could be made efficient by training an auto-encoder to compress these vectors to
short binary codes." Here the encoder and the decoder have one hidden layer each. As in Krizhevsky and Hinton, Using Very Deep
Autoencoders for Content-Based Image Retrieval (ESANN 2011), code units are rounded in the forward pass only; noise added before
rounding pushes them away from the threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from alexnet_jax.console import track_progress

Features = Float32[np.ndarray, "images features"]
"""Outputs of a layer, one row per image."""
Codes = UInt8[np.ndarray, "images bytes"]
"""Binary codes, packed eight bits to a byte."""
Encoder = Callable[[Features], Codes]
"""Function that maps features to binary codes with a fixed number of bits."""


ENCODED_ROWS = 64
"""Number of images that `PerceptronEncoder` encodes at a time."""
CODE_CHUNK = 1 << 16
"""Number of codes that are compared with a query at a time."""


@dataclass(frozen=True)
class PerceptronEncoder:
    """Encoder with one hidden layer, whose bits are the signs of its outputs.

    Raises:
      ValueError: if a tensor is missing, or has another type or shape.
    """

    tensors: dict[str, np.ndarray]

    SHAPES: ClassVar[dict[str, tuple[str, ...]]] = {
        "mean": ("features",),
        "scale": (),
        "hidden.kernel": ("features", "hidden"),
        "hidden.bias": ("hidden",),
        "code.kernel": ("hidden", "bits"),
        "code.bias": ("bits",),
    }
    """Shapes of the tensors, float32: features are divided by `scale` after `mean` is subtracted."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, shape in self.SHAPES.items():
            tensor = self.tensors.get(name)
            if tensor is None or tensor.dtype != np.float32 or tensor.ndim != len(shape):
                raise ValueError(f"{name} is missing or not float32 [{', '.join(shape)}]")
            for size, axis in zip(tensor.shape, shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"{name} has {size} {axis}, expected {sizes[axis]}")

    @property
    def bits(self) -> int:
        """Number of bits of a code."""
        return len(self.tensors["code.bias"])

    @cached_property
    def _device_tensors(self) -> dict[str, Array]:
        return {name: jax.device_put(self.tensors[name]) for name in self.SHAPES}

    def __call__(self, features: Features) -> Codes:
        """Encode features.

        `ENCODED_ROWS` images are encoded at a time, and fewer are padded, so that rounding errors, and thereby the code of an
        image, do not depend on how many are encoded together.
        """
        codes = np.empty((len(features), -(-self.bits // 8)), np.uint8)
        for start in range(0, len(features), ENCODED_ROWS):
            chunk = features[start : start + ENCODED_ROWS]
            padded = np.pad(chunk, ((0, ENCODED_ROWS - len(chunk)), (0, 0)))
            outputs = np.asarray(_perceptron_outputs(self._device_tensors, padded))
            codes[start : start + ENCODED_ROWS] = np.packbits(outputs[: len(chunk)] > 0, axis=1)
        return codes


@jax.jit
def _perceptron_outputs(tensors: dict[str, Array], features: Float[Array, "images features"]) -> Float[Array, "images bits"]:
    normalized = (features - tensors["mean"]) / tensors["scale"]
    hidden = nn.relu(normalized @ tensors["hidden.kernel"] + tensors["hidden.bias"])
    return hidden @ tensors["code.kernel"] + tensors["code.bias"]


@dataclass(frozen=True)
class Autoencoder:
    """Hyperparameters of an autoencoder.

    It is trained with Adam and a cosine schedule from `learning_rate` to zero.

    Attributes:
      hidden: number of units in the hidden layer of the encoder, and in that of the decoder.
      noise: standard deviation of the noise added to the code units before rounding, during training.
      steps: training steps.
      batch_size: images per step.
      learning_rate: initial learning rate.
      seed: random seed of the initial parameters, batches and noise.
    """

    hidden: int = 512
    noise: float = 0.5
    steps: int = 3000
    batch_size: int = 256
    learning_rate: float = 0.001
    seed: int = 0

    def train(self, features: Features, bits: int) -> PerceptronEncoder:
        """Train an autoencoder and return its encoder."""
        images = jax.device_put(features)
        mean, scale = _mean_and_scale(images)
        init_key, training_key = jax.random.split(jax.random.key(self.seed))
        settings = _Settings(replace(self, seed=0), features.shape[1], bits)  # one compilation for all seeds
        state = _initial_state(settings, init_key)
        for key in track_progress(jax.random.split(training_key, self.steps), "Training an autoencoder", self.steps, "step"):
            state = _train_step(settings, state, images, mean, scale, key)
        hidden, code = (state[0]["encoder"]["params"][layer] for layer in ("layers_0", "layers_2"))
        tensors = {"mean": mean, "scale": scale}
        tensors |= {f"hidden.{kind}": array for kind, array in hidden.items()}
        tensors |= {f"code.{kind}": array for kind, array in code.items()}
        return PerceptronEncoder({name: np.asarray(tensor) for name, tensor in tensors.items()})


class _Settings(NamedTuple):
    """Autoencoder, number of features and number of bits, for which the functions below are compiled."""

    autoencoder: Autoencoder
    features: int
    bits: int

    @property
    def encoder(self) -> nn.Sequential:
        return _perceptron(self.autoencoder.hidden, self.bits)

    @property
    def decoder(self) -> nn.Sequential:
        return _perceptron(self.autoencoder.hidden, self.features)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(self.autoencoder.learning_rate, self.autoencoder.steps))


def _perceptron(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential([nn.Dense(hidden), nn.relu, nn.Dense(outputs)])


@partial(jax.jit, static_argnums=0)
def _initial_state(settings: _Settings, key: Key[Array, ""]) -> Any:
    """Return the initial parameters and optimizer state."""
    params = {
        "encoder": settings.encoder.init(key, jnp.zeros((1, settings.features))),
        "decoder": settings.decoder.init(jax.random.fold_in(key, 1), jnp.zeros((1, settings.bits))),
    }
    return params, settings.optimizer.init(params)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train_step(
    settings: _Settings,
    state: Any,
    images: Float[Array, "images features"],
    mean: Float[Array, " features"],
    scale: Float[Array, ""],
    key: Key[Array, ""],
) -> Any:
    """Return the parameters and the optimizer state after a step."""
    params, opt_state = state
    batch_key, noise_key = jax.random.split(key)
    indices = jax.random.randint(batch_key, (settings.autoencoder.batch_size,), 0, len(images))
    x = (images[indices] - mean) / scale

    def loss(params: Any) -> Float[Array, ""]:
        units = cast(Array, settings.encoder.apply(params["encoder"], x))
        soft = jnp.tanh(units + settings.autoencoder.noise * jax.random.normal(noise_key, units.shape))
        code = soft + lax.stop_gradient(jnp.sign(soft) - soft)  # straight-through estimator
        return jnp.square(cast(Array, settings.decoder.apply(params["decoder"], code)) - x).mean()

    updates, opt_state = settings.optimizer.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@jax.jit
def _mean_and_scale(features: Float[Array, "images features"]) -> tuple[Float[Array, " features"], Float[Array, ""]]:
    """Return the mean of each feature, and the root mean square of all features' deviations from it, or 1 if that is 0."""
    mean = features.mean(axis=0)
    scale = jnp.sqrt(jnp.square(features - mean).mean(axis=0).mean())
    return mean, jnp.where(scale > 0, scale, 1)


def nearest_codes(queries: Codes, codes: Codes, count: int) -> Int[np.ndarray, "queries neighbors"]:
    """Return the indices of the codes with the smallest Hamming distance to each query.

    Args:
      queries: codes to search for.
      codes: codes to search. If a code has a multiple of 8 bytes, 64 bits are compared at a time.
      count: number of neighbors per query; all codes are returned if there are fewer.

    Returns:
      Indices, nearest first. Ties, which are frequent, are ordered by index.
    """
    word = np.uint64 if codes.shape[1] % 8 == 0 else np.uint8
    query_words, code_words = (np.ascontiguousarray(packed).view(word) for packed in (queries, codes))
    num_neighbors = min(count, len(codes))
    nearest = np.empty((len(queries), num_neighbors), np.int64)
    distances = np.empty(len(codes), np.uint16)
    for row, query in zip(nearest, query_words, strict=True):
        # The distances are few distinct numbers, so counting them is faster than sorting the codes.
        counts = np.zeros(8 * codes.shape[1] + 1, np.int64)
        for start in range(0, len(codes), CODE_CHUNK):
            chunk = distances[start : start + CODE_CHUNK]
            chunk[:] = 0
            # Summing column by column is many times faster than summing along short rows.
            for column, query_word in zip(code_words[start : start + CODE_CHUNK].T, query, strict=True):
                chunk += np.bitwise_count(column ^ query_word)
            counts += np.bincount(chunk, minlength=len(counts))
        radius = np.searchsorted(np.cumsum(counts), num_neighbors)
        within = np.flatnonzero(distances <= radius)
        row[:] = within[np.argsort(distances[within], kind="stable")[:num_neighbors]]
    return nearest
