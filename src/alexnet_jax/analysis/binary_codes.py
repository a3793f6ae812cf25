"""Short binary codes of features, so that likeness is a matter of counting bits: what section 6.1 of the paper left for later.

"This could be made efficient by training an auto-encoder to compress these vectors to short binary codes." Ours has one hidden
layer on either side. As in Krizhevsky and Hinton, Using Very Deep Autoencoders for Content-Based Image Retrieval (ESANN 2011),
units of the code are rounded on the way forward and not on the way back; noise before the rounding pushes them away from the
threshold. Random hyperplanes and the signs of principal components need no training and are there to compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

Features = Float32[np.ndarray, "images features"]
"""What a layer puts out, a row for each image."""
Codes = UInt8[np.ndarray, "images bytes"]
"""Eight bits a byte."""
Encoder = Callable[[Features], Codes]
"""Features to codes of the same number of bits, eight in a byte."""


@dataclass(frozen=True)
class Autoencoder:
    """How the autoencoder is trained.

    Attributes:
      hidden: units of the hidden layer on either side of the code.
      noise: standard deviation of what is added to the code's units before they are rounded, in training.
      steps: of Adam, whose rate falls from `rate` to zero as a cosine does.
      batch_size: features in a step.
      rate: of learning, at the start.
      seed: of initial weights, order and noise.
    """

    hidden: int = 512
    noise: float = 0.5
    steps: int = 3000
    batch_size: int = 256
    rate: float = 0.001
    seed: int = 0

    def train(self, features: Features, bits: int) -> Encoder:
        """The encoder half of an autoencoder that has been trained to bring features through so many bits."""
        mean = features.mean(axis=0)
        scale = float((features - mean).std()) or 1.0

        def normalized(features: Features) -> Float32[np.ndarray, "images features"]:
            return (features - mean) / scale

        encoder, decoder = _perceptron(self.hidden, bits), _perceptron(self.hidden, features.shape[1])
        start, order = jax.random.split(jax.random.key(self.seed))
        params = {
            "encoder": encoder.init(start, jnp.zeros((1, features.shape[1]))),
            "decoder": decoder.init(jax.random.fold_in(start, 1), jnp.zeros((1, bits))),
        }
        adam = optax.adam(optax.cosine_decay_schedule(self.rate, self.steps))

        def error(params: Any, x: Float[Array, "batch features"], key: Key[Array, ""]) -> Float[Array, ""]:
            units = cast(Array, encoder.apply(params["encoder"], x))
            soft = jnp.tanh(units + self.noise * jax.random.normal(key, units.shape))
            rounded = soft + lax.stop_gradient(jnp.sign(soft) - soft)
            return jnp.square(cast(Array, decoder.apply(params["decoder"], rounded)) - x).mean()

        @jax.jit
        def trained(params: Any, images: Float[Array, "images features"], keys: Key[Array, " steps"]) -> Any:
            def step(state: Any, key: Key[Array, ""]) -> tuple[Any, None]:
                params, velocity = state
                of_batch, of_noise = jax.random.split(key)
                chosen = jax.random.randint(of_batch, (self.batch_size,), 0, len(images))
                updates, velocity = adam.update(jax.grad(error)(params, images[chosen], of_noise), velocity, params)
                return (optax.apply_updates(params, updates), velocity), None

            return lax.scan(step, (params, adam.init(params)), keys)[0][0]

        weights = trained(params, normalized(features), jax.random.split(order, self.steps))["encoder"]
        units = jax.jit(encoder.apply)

        def encode(features: Features) -> Codes:
            return np.packbits(np.asarray(units(weights, normalized(features))) > 0, axis=1)

        return encode


def _perceptron(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential([nn.Dense(hidden), nn.relu, nn.Dense(outputs)])


def random_hyperplanes(features: Features, bits: int, seed: int = 0) -> Encoder:
    """On which side of random hyperplanes through the mean of `features` others lie."""
    normals = np.random.default_rng(seed).normal(size=(features.shape[1], bits)).astype(np.float32)
    return _sides(features.mean(axis=0), normals)


def principal_signs(features: Features, bits: int) -> Encoder:
    """On which side of the mean of `features` others lie, along each of so many of their principal components.

    There are no more components than features: more bits are left zero.
    """
    mean = features.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(features - mean, rowvar=False))  # from the least to the most important
    normals = np.zeros((features.shape[1], bits), np.float32)
    used = min(bits, features.shape[1])
    normals[:, :used] = directions[:, ::-1][:, :used]
    return _sides(mean, normals)


def _sides(mean: Float32[np.ndarray, " features"], normals: Float32[np.ndarray, "features bits"]) -> Encoder:
    def encode(features: Features) -> Codes:
        return np.packbits((features - mean) @ normals > 0, axis=1)

    return encode


def nearest_codes(queries: Codes, codes: Codes, count: int) -> Int[np.ndarray, "queries found"]:
    """For each query the numbers of the `count` codes that differ from it in fewest bits, or of all if there are fewer.

    Nearest first; of those equally near, and there are many, the lower number. A number of bytes that is a multiple of 8 is
    counted 64 bits at a time.
    """
    word = np.uint64 if codes.shape[1] % 8 == 0 else np.uint8
    of_queries, of_codes = (np.ascontiguousarray(of).view(word) for of in (queries, codes))
    numbers, found = np.arange(len(codes)), min(count, len(codes))
    nearest = np.empty((len(queries), found), np.int64)
    for row, query in zip(nearest, of_queries, strict=True):
        # Columns one after the other: a sum along short rows is many times slower.
        bits = np.zeros(len(codes), np.int64)
        for column, of_query in zip(of_codes.T, query, strict=True):
            bits += np.bitwise_count(column ^ of_query)
        keys = (bits << 32) | numbers
        if found < len(keys):
            keys = np.partition(keys, found)[:found]
        row[:] = np.sort(keys) & 0xFFFFFFFF
    return nearest
