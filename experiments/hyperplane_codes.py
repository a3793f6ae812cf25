"""Binary codes of features that need no training: baselines for the autoencoder of `alexnet_jax.analysis.binary_codes`."""

import numpy as np
from jaxtyping import Float32

from alexnet_jax.analysis.binary_codes import Codes, Encoder, Features


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
