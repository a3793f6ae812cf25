"""Numerical precision of a training run. Separate from `step`, so that reading a config does not import Optax."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
"""Dtype of activations and gradients; parameters are float32."""
