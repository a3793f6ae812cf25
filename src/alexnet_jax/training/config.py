"""Training config: network and hyperparameters of a training run, and the options that do not change its results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import tyro

from alexnet_jax.cpus import MAX_THREADS
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import MAX_SEED, UserError, check_at_least, check_number
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.distributed import DistributedOptions
from alexnet_jax.parallel.gradients import GradientDtype
from alexnet_jax.parallel.mesh import Placement
from alexnet_jax.training.schedule import EpochHparams, LayerRate, LearningRateSchedule, ReduceOnPlateau

Precision = Literal["float32", "bfloat16"]
"""Dtype of activations and gradients; parameters are float32."""

Tune = Literal["auto", "off", "again"]
"""When to measure the fastest form of the training step: "auto" for long trainings, once for a kind of device, "off" never,
"again" always."""


@dataclass(frozen=True)
class TrainConfig:
    """Network and hyperparameters of a training run. The defaults are those of the paper (section 5).

    A run is loaded as this class, so subclasses cannot be trained. Schedules, layers and transforms can be classes of your own.

    Attributes:
      network: network to train; its last layer is resized to the number of classes of the data set.
      default_data: data set to use without --data: a name in the data folder.
      epochs: maximum number of epochs; the schedule may end training earlier.
      batch_size: images per step, on all devices together.
      learning_rate: initial learning rate of weights.
      schedule: learning rate schedule: `ReduceOnPlateau` of the validation error, `StepDecay` at given epochs,
        `StaircaseExponential`, the `dexp` schedule of the original code, or a `LearningRateSchedule` of your own.
      momentum: momentum coefficient of the optimizer.
      weight_decay: weight decay coefficient of weights; biases are not decayed.
      layer_decays: weight decay of individual layers, as (layer name, decay) pairs, used by cuda-convnet's networks for CIFAR-10.
      bias_rate: initial learning rate of biases, as a multiple of that of weights.
      layer_rates: changes to the learning rates of individual layers, in order of their epochs.
      augmentation: data augmentation of training images.
      color_epochs: number of epochs with random color shifts; images of later epochs have no shift and are not divided by
        `PCAColor.divisor`. None uses color shifts in all epochs.
      precision: dtype of activations and gradients; parameters and their updates are float32. The paper's GPUs computed in
        float32.
      gradient_dtype: dtype in which gradients are sent between the devices that divide a batch, and summed. "float32" is exact;
        "bfloat16" halves the bytes.
      init_from: trained network from which to copy the initial parameters of layers with the same name and shape: a run folder,
        whose latest checkpoint is used, a checkpoint RUN/checkpoints/STEP, or a .safetensors file of `export` or `import`. The
        last layer is copied only if the classes are the same, too.
      init_layers: names of the layers to copy; None copies all matching layers.
      evaluate_every: epochs from one evaluation during training to the next. `ReduceOnPlateau` and the best checkpoint depend on
        the evaluated epochs only.
      evaluate_images: number of images that evaluations during training use: a random part of the evaluation split, the same
        for all epochs and runs. None uses the whole split. The final result is always measured on the whole split.
      seed: seed of initial parameters, dropout, data order and augmentation.
    """

    network: tyro.conf.Fixed[Network]
    default_data: tyro.conf.Fixed[str] = "imagenet"
    epochs: tyro.conf.Fixed[int] = 90
    batch_size: int = 128
    learning_rate: float = 0.01
    schedule: tyro.conf.Fixed[LearningRateSchedule] = field(default_factory=ReduceOnPlateau)
    momentum: float = 0.9
    weight_decay: float = 0.0005
    layer_decays: tyro.conf.Fixed[tuple[tuple[str, float], ...]] = ()
    bias_rate: float = 1.0
    layer_rates: tyro.conf.Fixed[tuple[LayerRate, ...]] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    color_epochs: tyro.conf.Fixed[int | None] = None
    precision: Precision = "float32"
    gradient_dtype: GradientDtype = "float32"
    init_from: Path | None = None
    init_layers: tuple[str, ...] | None = None
    evaluate_every: int = 1
    evaluate_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("--epochs", self.epochs, at_least=1, at_most=1_000_000)
        check_at_least(self, batch_size=1, evaluate_every=1, evaluate_images=1)
        check_at_least(self, learning_rate=0, bias_rate=0, weight_decay=0, color_epochs=0)
        check_number("--seed", self.seed, at_least=0, at_most=MAX_SEED)
        check_number("--momentum", self.momentum, at_least=0, below=1)

    def with_epochs(self, epochs: int) -> "TrainConfig":
        """Return the config with a different number of epochs and a schedule rescaled to it.

        The epochs in `schedule`, `layer_rates` and `color_epochs` are multiplied by the ratio of the new to the old number of
        epochs and rounded to at least 1; 0 stays 0.

        Args:
          epochs: maximum number of epochs of the returned config.
        """

        def rescale(epoch: int) -> int:
            return max(1, round(epoch * epochs / self.epochs)) if epoch else 0

        rates = tuple(replace(rate, after=rescale(rate.after)) for rate in self.layer_rates)
        color = None if self.color_epochs is None else rescale(self.color_epochs)
        schedule = self.schedule.rescaled(rescale)
        return replace(self, epochs=epochs, schedule=schedule, layer_rates=rates, color_epochs=color)

    @property
    def schedule_depends_on_epochs(self) -> bool:
        """Whether `with_epochs` changes more than the number of epochs."""
        return self.with_epochs(2 * self.epochs) != replace(self, epochs=2 * self.epochs)

    def check_evaluations(self) -> None:
        """Check that epochs are evaluated often enough for the schedule.

        Raises:
          UserError: if `ReduceOnPlateau` would have to reduce the learning rate between two evaluations.
        """
        if isinstance(self.schedule, ReduceOnPlateau) and self.schedule.patience < self.evaluate_every:
            every, patience = self.evaluate_every, self.schedule.patience
            problem = f"--evaluate-every {every} is more than --patience {patience}, the epochs in which the error must decrease"
            raise UserError(f"{problem}: pass --patience {every} or more, or another --schedule")

    def epoch_hparams(
        self, epochs: int, errors: Mapping[int, float] = MappingProxyType({}), majority_error: float = math.inf
    ) -> EpochHparams | None:
        """Return the hyperparameters of the next epoch.

        Args:
          epochs: number of completed epochs.
          errors: validation top-1 errors, as fractions, by evaluated epoch, in ascending order; `ReduceOnPlateau` uses them.
          majority_error: validation error of always predicting the most frequent class (see `ReduceOnPlateau`).

        Returns:
          Hyperparameters of epoch `epochs + 1`; None if the schedule has ended training.

        Raises:
          UserError: if `layer_rates` or `layer_decays` name a layer that the network does not have.
        """
        layers = self.network.named_layers
        named = [change.layer for change in self.layer_rates] + [layer for layer, _ in self.layer_decays]
        if missing := [layer for layer in named if layer not in layers]:
            raise UserError(
                f"{self.network.name} has no layer {missing[0]}: in layer_rates and layer_decays, use {', '.join(layers)}"
            )
        factors = self.schedule.factors(epochs, errors, majority_error)
        if factors is None:
            return None
        # Multiply in float32, as in the training step, so that a rate has the same value wherever it is computed.
        weights = float(np.float32(self.learning_rate) * np.float32(factors.weights))
        biases = float(np.float32(self.bias_rate * self.learning_rate) * np.float32(factors.biases))
        layer_rates: dict[str, tuple[float, float]] = {}
        for change in self.layer_rates:
            if epochs >= change.after:
                previous = layer_rates.get(change.layer, (weights, biases))
                layer_rates[change.layer] = (change.weights, previous[1] if change.biases is None else change.biases)
        color = self.augmentation.shifts_colors and (self.color_epochs is None or epochs < self.color_epochs)
        return EpochHparams(weights, biases, layer_rates, color)


@dataclass(frozen=True)
class Options:
    """Options of a training run besides its config: data, devices, folders and logging.

    Attributes:
      data: a folder of images, a prepared data set, or a name in `data_dir`; None uses the config's default data set.
      classes: names of the classes of the data to train on, without the others; empty uses all classes.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      run: run folder; None uses a folder in `runs_dir` named after the config, the data and a hash of the settings.
      fresh: start over, deleting what an earlier run wrote to the run folder.
      change_settings: continue a run with settings that differ from its own; the network, the data and the batch size cannot.
      placement: "split" runs every tower on its own devices, "single" runs all towers on every device, and "auto" splits the
        towers if the number of devices is a multiple of the number of towers.
      devices: number of devices to use in each process; None uses all GPUs. On a CPU, the commands then make one device, or
        one per tower with "split" or several processes; a program uses one per tower if JAX has them.
      tune: when to measure which form of the training step is fastest on the devices: "auto" for a long training, once for a
        kind of device; "off" never, which does not use earlier measurements either; "again" always, also for a resumed run.
      shard_update: each of the devices that divide a batch updates a part of every parameter and sends it to the others, instead
        of all of them updating all parameters (stage 1 of ZeRO). The momentum is stored once, not in every device. The results do
        not depend on it, except for rounding, and a run can be continued with the other setting.
      threads: number of threads that decode images; None uses one per CPU that this process may use, or one in
        each of the `workers`.
      workers: number of processes that decode images; 0 decodes in this process. The batches do not depend on this number.
      checkpoint_seconds: seconds between checkpoints. The state of an epoch with the smallest validation error so far is saved
        immediately if the last checkpoint is older, otherwise with the next one or at the end.
      loss_delay: number of later steps that are dispatched before the loss of a step is read. The device waits for the host only
        if the host falls this many steps behind. Losses are read four times a second at most, or after every step if this is 0. A
        non-finite loss is found that much later and is reported with its own step. Before a checkpoint, a validation or a stop,
        all losses are read, so a checkpoint contains no step whose loss has not been checked. The results do not depend on this
        number. None uses 4 on GPUs, and 1 on CPUs, whose steps take longer.
      tensorboard: also write the log to the run folder as TensorBoard events.
      processes: arguments of multi-process training: coordinator, number of processes and index of this one.
    """

    data: str | None = None
    classes: tuple[str, ...] = ()
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    run: Path | None = None
    fresh: bool = False
    change_settings: bool = False
    placement: Placement = "auto"
    devices: int | None = None
    tune: Tune = "auto"
    shard_update: bool = False
    threads: int | None = None
    workers: int = 0
    checkpoint_seconds: float = 120.0
    loss_delay: int | None = None
    tensorboard: bool = False
    processes: DistributedOptions = field(default_factory=DistributedOptions)

    def __post_init__(self) -> None:
        check_at_least(self, devices=1, threads=1, workers=0, checkpoint_seconds=0, loss_delay=0)
        check_number("--threads", self.threads, at_most=MAX_THREADS)
        check_number("--workers", self.workers, at_most=MAX_THREADS)
