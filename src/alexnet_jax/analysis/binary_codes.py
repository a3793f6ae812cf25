"""Short binary codes of features, for nearest-neighbor search by Hamming distance (paper, section 6.1).

The paper suggests it without results: "This could be made efficient by training an auto-encoder to compress these vectors to
short binary codes." Here the encoder and the decoder have one hidden layer each. As in Krizhevsky and Hinton, Using Very Deep
Autoencoders for Content-Based Image Retrieval (ESANN 2011), code units are rounded in the forward pass only; noise added before
rounding pushes them away from the threshold. Random hyperplanes and signs of principal components are baselines that need no
training.
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
"""Outputs of a layer, one row per image."""
Codes = UInt8[np.ndarray, "images bytes"]
"""Binary codes, packed eight bits to a byte."""
Encoder = Callable[[Features], Codes]
"""Function that maps features to binary codes with a fixed number of bits."""


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

    def train(self, features: Features, bits: int) -> Encoder:
        """Train an autoencoder and return its encoder.

        Args:
          features: features to train on.
          bits: number of bits of a code.
        """
        mean = features.mean(axis=0)
        scale = float((features - mean).std()) or 1.0

        def normalize(features: Features) -> Float32[np.ndarray, "images features"]:
            return (features - mean) / scale

        encoder, decoder = _perceptron(self.hidden, bits), _perceptron(self.hidden, features.shape[1])
        init_key, training_key = jax.random.split(jax.random.key(self.seed))
        params = {
            "encoder": encoder.init(init_key, jnp.zeros((1, features.shape[1]))),
            "decoder": decoder.init(jax.random.fold_in(init_key, 1), jnp.zeros((1, bits))),
        }
        optimizer = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))

        def loss(params: Any, x: Float[Array, "batch features"], key: Key[Array, ""]) -> Float[Array, ""]:
            units = cast(Array, encoder.apply(params["encoder"], x))
            soft = jnp.tanh(units + self.noise * jax.random.normal(key, units.shape))
            code = soft + lax.stop_gradient(jnp.sign(soft) - soft)  # straight-through estimator
            return jnp.square(cast(Array, decoder.apply(params["decoder"], code)) - x).mean()

        @jax.jit
        def fit(params: Any, images: Float[Array, "images features"], keys: Key[Array, " steps"]) -> Any:
            def step(state: Any, key: Key[Array, ""]) -> tuple[Any, None]:
                params, opt_state = state
                batch_key, noise_key = jax.random.split(key)
                indices = jax.random.randint(batch_key, (self.batch_size,), 0, len(images))
                updates, opt_state = optimizer.update(jax.grad(loss)(params, images[indices], noise_key), opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), None

            return lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

        encoder_params = fit(params, normalize(features), jax.random.split(training_key, self.steps))["encoder"]
        apply_encoder = jax.jit(encoder.apply)

        def encode(features: Features) -> Codes:
            return np.packbits(np.asarray(apply_encoder(encoder_params, normalize(features))) > 0, axis=1)

        return encode


def _perceptron(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential([nn.Dense(hidden), nn.relu, nn.Dense(outputs)])


def random_hyperplanes(features: Features, bits: int, seed: int = 0) -> Encoder:
    """Return an encoder whose bits give the side of each of several random hyperplanes through the mean of the features.

    Args:
      features: features whose mean the hyperplanes pass through.
      bits: number of hyperplanes.
      seed: random seed of the hyperplanes.
    """
    normals = np.random.default_rng(seed).normal(size=(features.shape[1], bits)).astype(np.float32)
    return _hyperplane_encoder(features.mean(axis=0), normals)


def principal_component_signs(features: Features, bits: int) -> Encoder:
    """Return an encoder whose bits are the signs of the projections on the first principal components.

    Args:
      features: features from which the mean and the principal components are computed.
      bits: number of bits. Bits beyond the number of features are always zero.
    """
    mean = features.mean(axis=0)
    _, components = np.linalg.eigh(np.cov(features - mean, rowvar=False))  # by ascending variance
    normals = np.zeros((features.shape[1], bits), np.float32)
    used = min(bits, features.shape[1])
    normals[:, :used] = components[:, ::-1][:, :used]
    return _hyperplane_encoder(mean, normals)


def _hyperplane_encoder(mean: Float32[np.ndarray, " features"], normals: Float32[np.ndarray, "features bits"]) -> Encoder:
    def encode(features: Features) -> Codes:
        return np.packbits((features - mean) @ normals > 0, axis=1)

    return encode


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
    indices, num_neighbors = np.arange(len(codes)), min(count, len(codes))
    nearest = np.empty((len(queries), num_neighbors), np.int64)
    for row, query in zip(nearest, query_words, strict=True):
        # Summing column by column is many times faster than summing along short rows.
        distances = np.zeros(len(codes), np.int64)
        for column, query_word in zip(code_words.T, query, strict=True):
            distances += np.bitwise_count(column ^ query_word)
        sort_keys = (distances << 32) | indices
        if num_neighbors < len(sort_keys):
            sort_keys = np.partition(sort_keys, num_neighbors)[:num_neighbors]
        row[:] = np.sort(sort_keys) & 0xFFFFFFFF
    return nearest
