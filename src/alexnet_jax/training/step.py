"""Training step, a jitted function on the mesh, and the state that it updates."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.model.layers import TOWER
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import Params
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.gradients import GradientSum, copy_per_device, gather_updated, sum_gradients, update_sharding
from alexnet_jax.parallel.mesh import batch_sharding, mesh_platform, parameter_sharding, replicated, to_global_array
from alexnet_jax.parallel.runtime import compiler_options
from alexnet_jax.training.config import Precision
from alexnet_jax.training.normalization import MeanImage, normalize
from alexnet_jax.training.optimizer import learning_rates


@struct.dataclass
class TrainState:
    """State that a training step updates; also used as a pytree of shapes or shardings.

    Attributes:
      step: number of completed steps, int32 [].
      params: parameters of the network, see `tower.Params`.
      opt_state: optax state of the optimizer: the momentum buffer of each parameter.
    """

    step: Any
    params: Any
    opt_state: Any


@struct.dataclass
class Bfloat16TrainState(TrainState):
    """State with a copy of the parameters that a step in bfloat16 reads, which saves casting them in every step.

    The copy follows from the parameters and is not saved in checkpoints; see `for_precision`.

    Attributes:
      rounded_params: `params` in bfloat16.
    """

    rounded_params: Any


@struct.dataclass
class StepHparams:
    """Hyperparameters of a step that can change between epochs.

    They are device arrays, so that a change does not recompile the step.

    Attributes:
      learning_rates: learning rate of each parameter, a tree of float32 [] (see `optimizer.learning_rates`).
      color: whether to apply the color shifts of the batch, bool [].
      color_divisor: divisor of images with a color shift, which reduces their variance to that of images without one, float32 [].
    """

    learning_rates: Any
    color: Any
    color_divisor: Any = np.float32(1.0)


@struct.dataclass
class TrainMetrics:
    """Mean cross-entropy (nats) and top-1 error of a training batch, computed before the update; each float32 []."""

    loss: Any
    top1_error: Any


TrainStep = Callable[[TrainState, Example, MeanImage, StepHparams], tuple[TrainState, TrainMetrics]]
"""Function returned by `make_train_step`."""


def initial_state(network: Network, mesh: Mesh, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Return the state before the first step: initial parameters and optimizer state, sharded over the mesh."""
    params = placement.init(network, mesh, jax.random.key(seed))

    def create_state(params: Params) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shardings = state_shardings(mesh, jax.eval_shape(create_state, params))
    return jax.jit(create_state, donate_argnums=0, out_shardings=shardings)(params)


def for_precision(state: TrainState, precision: Precision) -> TrainState:
    """Return the state that `make_train_step` takes: in bfloat16, with the copy of the parameters that the step reads."""
    if precision == "float32":
        return state
    return Bfloat16TrainState(state.step, state.params, state.opt_state, _rounded(state.params))


@jax.jit
def _rounded(params: Params) -> Params:
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


def state_shardings(
    mesh: Mesh,
    state: TrainState,
    gradient_sum: GradientSum = GradientSum(),  # noqa: B008 (frozen)
) -> TrainState:
    """Return the sharding of each array of the state: parameters are sharded by tower, and scalars are replicated.

    With `gradient_sum.sharded`, what only the update reads is sharded over the data axis, too: the momentum buffers, and, in
    bfloat16, the parameters in float32.

    Args:
      mesh: device mesh.
      state: arrays or their shapes.
      gradient_sum: form of the sum of gradients over devices.
    """
    # Of the optimizer's arrays, some may not be like a parameter, such as the factors of `optax.adafactor`, which can be [1].
    towers = mesh.shape.get(TOWER, 1)
    shardings = jax.tree.map(
        lambda x: parameter_sharding(mesh) if x.ndim and x.shape[0] % towers == 0 else replicated(mesh), state
    )
    if not gradient_sum.sharded:
        return shardings
    opt_state, params = _update_shardings(mesh, (state.opt_state, state.params))
    shardings = shardings.replace(opt_state=opt_state)
    return shardings.replace(params=params) if isinstance(state, Bfloat16TrainState) else shardings


def _update_shardings(mesh: Mesh, tree: Any) -> Any:
    return jax.tree.map(lambda x: update_sharding(mesh, x.shape) if x.ndim else replicated(mesh), tree)


def make_train_step(
    network: Network,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    precision: Precision = "float32",
    gradient_sum: GradientSum = GradientSum(),  # noqa: B008 (frozen)
) -> TrainStep:
    """Return a jitted training step `(state, batch, mean_image, hparams) -> (state, metrics)`.

    The state is that of `for_precision`, with the shardings of `state_shardings`. It is donated: its buffers are reused for the
    returned state. Dropout masks depend on the seed, the step and the index of the image in the batch. Parameters and their
    updates are float32 with either precision.

    Args:
      network: network to train.
      mesh: device mesh.
      optimizer: `optimizer.paper_update`, or a different transformation. One that does not use the argument `learning_rates` of
        `update`, such as `optax.adamw`, uses the rates that it was created with.
      seed: seed of the dropout masks.
      precision: dtype of activations and gradients.
      gradient_sum: form of the sum of gradients over the devices that divide a batch.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    exact = gradient_sum.is_exact_on(mesh)
    forward = placement.forward(network, mesh, sums_gradients=exact)

    def train_step(state: TrainState, batch: Example, mean: MeanImage, hparams: StepHparams) -> tuple[TrainState, TrainMetrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        batch = batch._replace(color_shift=jnp.where(hparams.color, batch.color_shift, 0.0))
        images = normalize(batch, mean) / jnp.where(hparams.color, hparams.color_divisor, 1.0)
        labels = jnp.asarray(batch.label)
        rounded_params = state.rounded_params if isinstance(state, Bfloat16TrainState) else None

        def mean_loss(params: Params, rounded_params: Params | None) -> tuple[Float[Array, ""], Float[Array, ""]]:
            logits = forward(params, images.astype(precision), key, rounded_params).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), is_top1_error(logits, labels).mean()

        loss_and_gradients, params = jax.value_and_grad(mean_loss, has_aux=True), state.params
        if exact:
            (loss, top1_error), gradients = loss_and_gradients(params, rounded_params)
        else:
            # The gradients of parameters in float32 are cast where they are computed, as in the exact form.
            copies = jax.tree.map(lambda w: w.astype(jnp.float32), params if rounded_params is None else rounded_params)
            copies = copy_per_device(copies, mesh)
            (loss, top1_error), gradients = loss_and_gradients(copies, None)
            gradients = sum_gradients(gradients, mesh, gradient_sum)
        if gradient_sum.sharded:
            params = lax.with_sharding_constraint(params, _update_shardings(mesh, params))
        updates, opt_state = optimizer.update(gradients, state.opt_state, params, learning_rates=hparams.learning_rates)
        new_state = TrainState(state.step + 1, optax.apply_updates(params, updates), opt_state)
        new_state = for_precision(new_state, precision)
        if gradient_sum.sharded:
            new_state = _gather_updated(new_state, mesh)
        return new_state, TrainMetrics(loss, top1_error)

    state = jax.eval_shape(lambda: for_precision(initial_state(network, mesh, optimizer, seed), precision))
    out = (state_shardings(mesh, state, gradient_sum), replicated(mesh))
    return jax.jit(train_step, donate_argnums=0, out_shardings=out, compiler_options=compiler_options(mesh_platform(mesh)))


def _gather_updated(state: TrainState, mesh: Mesh) -> TrainState:
    """Send the updated parameters that the next step reads to all devices."""
    if isinstance(state, Bfloat16TrainState):
        return replace(state, rounded_params=gather_updated(state.rounded_params, mesh))
    return replace(state, params=gather_updated(state.params, mesh))


def constant_hparams(state: TrainState, rate: float) -> StepHparams:
    """Return hyperparameters with the same learning rate for all parameters, and with color shifts."""
    return StepHparams(learning_rates(state.params, rate), np.bool_(True))


def is_top1_error(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Bool[Array, " batch"]:
    """Return whether the label does not have a larger logit than all other classes. NaNs are errors.

    Compares with the maximum of the logits instead of using argmax, so that devices do not exchange the logits.
    """
    is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
    others = jnp.where(is_label, -jnp.inf, logits).max(axis=-1)
    return ~(jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0] > others)


def put_batch(batch: Example, mesh: Mesh) -> Example:
    """Transfer a batch of NumPy arrays to the devices, sharded along the data axis.

    Args:
      batch: global batch; in multi-process training, this process's `local_batch_slice` of it.
      mesh: device mesh.
    """
    on_devices = to_global_array(batch, batch_sharding(mesh))
    # On one CPU device, a step whose arguments are still being copied runs in another thread, see `runtime.configure_cpu`.
    return jax.block_until_ready(on_devices) if mesh_platform(mesh) == "cpu" else on_devices


def random_batch(batch_size: int, size: int) -> Example:
    """Return a batch of images with random pixels and label 0, for benchmarks and compilation.

    Args:
      batch_size: number of images.
      size: side of the images, pixels.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    return Example(images, np.zeros(batch_size, np.int32), np.zeros((batch_size, 3), np.float32))
