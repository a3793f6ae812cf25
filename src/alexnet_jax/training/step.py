"""The training step and the evaluation step, each one jitted function over the mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from alexnet_jax.data.pipeline.augment import Crop, Example, center_crop
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import Params
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import batch_sharding, parameter_sharding, replicated, to_global_array
from alexnet_jax.parallel.runtime import compiler_options
from alexnet_jax.training.optimizer import learning_rates


@struct.dataclass
class TrainState:
    """All that a step changes: arrays, or in their place shapes or shardings.

    Attributes:
      step: steps taken, int32 [].
      params: of the network, as `tower.Params` says.
      opt_state: optax state of the optimizer: the velocity of each parameter.
    """

    step: Any
    params: Any
    opt_state: Any


@struct.dataclass
class StepHparams:
    """What changes between epochs and not between steps; arrays, so that a change compiles nothing.

    Attributes:
      learning_rates: learning rate of each parameter, a tree of float32 [] (see `optimizer.learning_rates`).
      color: whether the shifts of color in a batch count, bool [].
    """

    learning_rates: Any
    color: Any


@struct.dataclass
class TrainMetrics:
    """What a training step saw of its batch, before it changed the parameters: each float32 []."""

    loss: Any
    top1_error: Any


@struct.dataclass
class EvalSums:
    """Sums over the images of an evaluation batch, each float32 []; divide by `images`."""

    loss: Any
    top1_errors: Any
    top5_errors: Any
    images: Any


Precision = Literal["float32", "bfloat16"]
"""What activities and gradients are computed in; parameters are float32."""

MeanImage = Float[Array, "full full 3"] | Float[np.ndarray, "full full 3"]
"""Of the images that crops are taken from, so as large as they are; gray levels."""


TrainStep = Callable[[TrainState, Example, MeanImage, StepHparams], tuple[TrainState, TrainMetrics]]
"""What `make_train_step` returns."""
EvaluationStep = Callable[[Params, Example, MeanImage], EvalSums]
"""What `make_evaluation_step` returns."""


def initial_state(network: Network, mesh: Mesh, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Parameters as the network's layers start them, at rest."""
    params = placement.init(network, mesh, jax.random.key(seed))

    def at_rest(params: Params) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shardings = state_shardings(mesh, jax.eval_shape(at_rest, params))
    return jax.jit(at_rest, out_shardings=shardings)(params)


def state_shardings(mesh: Mesh, state: TrainState) -> TrainState:
    """Where each array of the state lies: those of layers with their tower, counters everywhere."""
    return jax.tree.map(lambda x: parameter_sharding(mesh) if x.ndim else replicated(mesh), state)


def make_train_step(
    network: Network,
    mesh: Mesh,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    seed: int,
    color_divisor: float = 1.0,
    precision: Precision = "float32",
) -> TrainStep:
    """A jitted `(state, batch, mean image, phase) -> (state, measured)`. The state passed in is given up: its memory is reused.

    Dropout's masks follow from the seed, the step, and an image's place in the batch. Parameters are float32 and so is their
    update, whatever the precision that activities and gradients are computed in.
    """
    forward = placement.forward(network, mesh)

    def train_step(state: TrainState, batch: Example, mean: MeanImage, hparams: StepHparams) -> tuple[TrainState, TrainMetrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        keys = lax.with_sharding_constraint(jax.random.split(key, len(batch.label)), batch_sharding(mesh))
        batch = batch._replace(color_shift=jnp.where(hparams.color, batch.color_shift, 0.0))
        images = normalize(batch, mean) / jnp.where(hparams.color, color_divisor, 1.0)
        label = jnp.asarray(batch.label)

        def mean_loss(params: Params) -> tuple[Float[Array, ""], Float[Array, ""]]:
            logits = forward(params, images.astype(precision), keys)
            return cross_entropy(logits, label).mean(), is_top1_error(logits, label).mean()

        (loss, top1_error), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, learning_rates=hparams.learning_rates)
        stepped = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
        return stepped, TrainMetrics(loss, top1_error)

    state = jax.eval_shape(partial(initial_state, network, mesh, optimizer, seed))
    out = (state_shardings(mesh, state), replicated(mesh))
    return jax.jit(train_step, donate_argnums=0, out_shardings=out, compiler_options=_options(mesh))


def constant_hparams(state: TrainState, rate: float) -> StepHparams:
    """One rate for all parameters, colors as they come."""
    return StepHparams(learning_rates(state.params, rate), np.bool_(True))


def make_evaluation_step(network: Network, mesh: Mesh, *, precision: Precision = "float32") -> EvaluationStep:
    """A jitted `(params, batch, mean image) -> sums`. Images whose label is negative are padding and count nowhere.

    Parameters are float32 and so are the sums, whatever the precision that activities are computed in.
    """
    forward = placement.forward(network, mesh)
    best = min(5, network.num_classes)

    def evaluation_step(params: Params, batch: Example, mean: MeanImage) -> EvalSums:
        real = batch.label >= 0
        label = jnp.where(real, batch.label, 0)
        logits = forward(params, normalize(batch, mean).astype(precision), None)
        hits = lax.top_k(logits, best)[1] == label[:, None]
        return EvalSums(
            loss=(cross_entropy(logits, label) * real).sum(),
            top1_errors=(~hits[:, 0] & real).sum().astype(jnp.float32),
            top5_errors=(~hits.any(axis=1) & real).sum().astype(jnp.float32),
            images=real.sum().astype(jnp.float32),
        )

    return jax.jit(evaluation_step, compiler_options=_options(mesh))


def _options(mesh: Mesh) -> dict[str, str]:
    return compiler_options(mesh.devices.flat[0].platform)


def normalize(batch: Example, mean: MeanImage) -> Float[Array, "batch size size 3"]:
    """Pixels minus their mean plus the color shift, gray levels: what the first layer reads."""
    size = batch.image.shape[1]
    part = center_crop(mean, size) if batch.crop is None else crop_mean_image(mean, batch.crop, size)
    shift = jnp.asarray(batch.color_shift)[:, None, None, :]
    return jnp.asarray(batch.image, jnp.float32) - part + shift


def crop_mean_image(mean: MeanImage, crop: Crop, size: int) -> Float[Array, "batch size size 3"]:
    """The parts of the mean image that belong to the images of a batch, flipped where they are."""
    position, flipped = jnp.asarray(crop.position), jnp.asarray(crop.flipped)
    along = jnp.arange(size)
    rows = position[:, 0, None] + along
    columns = position[:, 1, None] + jnp.where(flipped[:, None], along[::-1], along)
    return jnp.asarray(mean)[rows[:, :, None], columns[:, None, :]]


def cross_entropy(logits: Float[Array, "batch classes"], label: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """-log of the softmax at the label, nats.

    Written with sums over the classes, which the towers share, so that devices exchange a few numbers an image and never
    the logits.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.logsumexp(logits, axis=-1) - _at_label(logits, label)


def is_top1_error(logits: Float[Array, "batch classes"], label: Int[Array, " batch"]) -> Bool[Array, " batch"]:
    """Whether another class is more probable than the label; by the largest logit, not by its place, for the same reason."""
    logits = logits.astype(jnp.float32)
    return _at_label(logits, label) < logits.max(axis=-1)


def _at_label(logits: Float[Array, "batch classes"], label: Int[Array, " batch"]) -> Float[Array, " batch"]:
    return (logits * jax.nn.one_hot(label, logits.shape[-1])).sum(axis=-1)


def put_batch(batch: Example, mesh: Mesh) -> Example:
    """A batch of NumPy arrays on the devices, divided among those along the data axis.

    Where there are several processes, each passes its `local_batch_slice`.
    """
    return to_global_array(batch, batch_sharding(mesh))


def random_batch(batch_size: int, size: int) -> Example:
    """Random pixels, all of class 0: a batch to time and to compile for."""
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    return Example(images, np.zeros(batch_size, np.int32), np.zeros((batch_size, 3), np.float32))
