"""Training config: the network and the hyperparameters of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.model.network import Network
from alexnet_jax.training.schedule import EpochHparams, LayerRate, ReduceOnPlateau, StaircaseExponential, StepDecay
from alexnet_jax.training.step import Precision


@dataclass(frozen=True)
class TrainConfig:
    """Network and hyperparameters of a training run. The defaults are those of the paper (section 5).

    Attributes:
      network: network to train; its last layer is resized to the number of classes of the data set.
      default_data: data set to use without --data: a name in the data folder.
      epochs: maximum number of epochs; the schedule may end training earlier.
      batch_size: images per step, on all devices together.
      learning_rate: initial learning rate of weights.
      schedule: learning rate schedule: `ReduceOnPlateau` of the validation error, `StepDecay` at given epochs, or
        `StaircaseExponential`, the `dexp` schedule of the original code.
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
      init_from: run folder or checkpoint of a trained network from which to copy the initial parameters of layers with the same
        name and shape; the last layer is copied only if the classes are the same, too.
      init_layers: names of the layers to copy; None copies all matching layers.
      seed: seed of initial parameters, dropout, data order and augmentation.
    """

    network: tyro.conf.Fixed[Network]
    default_data: tyro.conf.Fixed[str] = "imagenet"
    epochs: int = 90
    batch_size: int = 128
    learning_rate: float = 0.01
    schedule: ReduceOnPlateau | StepDecay | StaircaseExponential = field(default_factory=ReduceOnPlateau)
    momentum: float = 0.9
    weight_decay: float = 0.0005
    layer_decays: tyro.conf.Fixed[tuple[tuple[str, float], ...]] = ()
    bias_rate: float = 1.0
    layer_rates: tyro.conf.Fixed[tuple[LayerRate, ...]] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    color_epochs: int | None = None
    precision: Precision = "float32"
    init_from: Path | None = None
    init_layers: tuple[str, ...] | None = None
    seed: int = 0

    def with_epochs(self, epochs: int) -> "TrainConfig":
        """Return the config with a different number of epochs and a schedule rescaled to it.

        The epochs in `StepDecay`, `StaircaseExponential`, `layer_rates` and `color_epochs` are multiplied by the ratio of the new
        to the old number of epochs and rounded to at least 1; 0 stays 0.

        Args:
          epochs: maximum number of epochs of the returned config.
        """

        def rescale(epoch: int) -> int:
            return max(1, round(epoch * epochs / self.epochs)) if epoch else 0

        schedule = self.schedule
        if isinstance(schedule, StepDecay):
            biases = schedule.bias_milestones
            schedule = StepDecay(
                tuple(map(rescale, schedule.milestones)), None if biases is None else tuple(map(rescale, biases))
            )
        elif isinstance(schedule, StaircaseExponential):
            schedule = replace(schedule, decay_epochs=rescale(schedule.decay_epochs))
        rates = tuple(replace(rate, after=rescale(rate.after)) for rate in self.layer_rates)
        color = None if self.color_epochs is None else rescale(self.color_epochs)
        return replace(self, epochs=epochs, schedule=schedule, layer_rates=rates, color_epochs=color)

    def epoch_hparams(self, errors: Sequence[float]) -> EpochHparams | None:
        """Return the hyperparameters of the next epoch.

        Args:
          errors: validation top-1 errors, as fractions, after each of the preceding epochs.

        Returns:
          Hyperparameters of epoch `len(errors) + 1`; None if the schedule has ended training.

        Raises:
          UserError: if `layer_rates` or `layer_decays` name a layer that the network does not have.
        """
        layers = self.network.named_layers
        named = [change.layer for change in self.layer_rates] + [layer for layer, _ in self.layer_decays]
        if missing := [layer for layer in named if layer not in layers]:
            raise UserError(
                f"{self.network.name} has no layer {missing[0]}: in layer_rates and layer_decays, use {', '.join(layers)}"
            )
        factors, epoch = self.schedule.factors(errors), len(errors)
        if factors is None:
            return None
        # Multiply in float32, as in the training step, so that a rate has the same value wherever it is computed.
        weights = float(np.float32(self.learning_rate) * np.float32(factors.weights))
        biases = float(np.float32(self.bias_rate * self.learning_rate) * np.float32(factors.biases))
        layer_rates: dict[str, tuple[float, float]] = {}
        for change in self.layer_rates:
            if epoch >= change.after:
                previous = layer_rates.get(change.layer, (weights, biases))
                layer_rates[change.layer] = (change.weights, previous[1] if change.biases is None else change.biases)
        color = self.augmentation.shifts_colors and (self.color_epochs is None or epoch < self.color_epochs)
        return EpochHparams(weights, biases, layer_rates, color)
