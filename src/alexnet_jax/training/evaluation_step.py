"""Evaluation step, a jitted function on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jax.sharding import Mesh

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import Params
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import mesh_platform, replicated
from alexnet_jax.parallel.runtime import compiler_options
from alexnet_jax.training.config import Precision
from alexnet_jax.training.normalization import MeanImage, normalize


@struct.dataclass
class EvalSums:
    """Sums of the metrics over evaluation images, each float32 []; divide by `images` for means."""

    loss: Any
    top1_errors: Any
    top5_errors: Any
    images: Any


@struct.dataclass
class EvalOutputs:
    """Results of an evaluation step.

    Attributes:
      sums: sums of the metrics.
      labels: true classes of the global batch, int32 [batch]; negative for padding.
      predictions: most probable classes, int32 [batch]; ties are ordered by label.
    """

    sums: EvalSums
    labels: Any
    predictions: Any


EvaluationStep = Callable[[Params, Example, MeanImage], EvalOutputs]
"""Function returned by `make_evaluation_step`."""


def make_evaluation_step(network: Network, mesh: Mesh, *, precision: Precision = "float32") -> EvaluationStep:
    """Return a jitted evaluation step `(params, batch, mean_image) -> EvalOutputs`.

    Images with a negative label are padding and are not counted. Parameters and sums are float32 with either precision.
    """
    forward = placement.forward(network, mesh)
    k = min(5, network.num_classes)

    def evaluation_step(params: Params, batch: Example, mean: MeanImage) -> EvalOutputs:
        valid = batch.label >= 0
        labels = jnp.where(valid, batch.label, 0)
        logits = forward(params, normalize(batch, mean).astype(precision), None).astype(jnp.float32)
        top = lax.top_k(logits, k)[1]
        hits = top == labels[:, None]
        sums = EvalSums(
            loss=(optax.softmax_cross_entropy_with_integer_labels(logits, labels) * valid).sum(),
            top1_errors=(~hits[:, 0] & valid).sum().astype(jnp.float32),
            top5_errors=(~hits.any(axis=1) & valid).sum().astype(jnp.float32),
            images=valid.sum().astype(jnp.float32),
        )
        return EvalOutputs(sums, batch.label, top[:, 0])

    # Replicated, so that every process can read the predictions of the whole batch.
    return jax.jit(evaluation_step, out_shardings=replicated(mesh), compiler_options=compiler_options(mesh_platform(mesh)))
