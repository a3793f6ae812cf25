"""What an experiment is: a network and how to train it, in a file of `experiments/` that is also its record."""

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
    """A network and its training; the defaults are those of the paper (section 5).

    Attributes:
      network: which network; its last layer takes the number of classes of the data.
      default_data: data set when none is asked for: a name under the data folder.
      epochs: cycles through the training set, at most: the schedule may end training before.
      batch_size: images in a step, all devices together.
      learning_rate: of the update rule, at the start.
      schedule: when the rate falls: by a plateau of the validation error, by cuts at fixed epochs, or by the code's dexp.
      momentum: of the update rule.
      weight_decay: of the update rule, on weights.
      layer_decays: weight decay of single layers, (name, decay), as in cuda-convnet's networks for CIFAR-10.
      bias_rate: learning rate of biases, as a multiple of that of weights.
      layer_rates: changes of the rates of single layers, in the order of their epochs.
      augmentation: how training images vary.
      color_epochs: epochs with shifts of color; later images have none, and are not divided to make up for them. None is all.
      precision: what activities and gradients are computed in; parameters and their update are float32. The paper's GPUs
        computed in float32.
      init_from: a run, or one of its checkpoints, whose layers take the place of initial weights where name and shape are the
        same; the last one only where the classes are, too.
      init_layers: names of the layers to take; None is all that can be.
      seed: of initial weights, dropout, order and augmentation.
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

    def in_epochs(self, epochs: int) -> "TrainConfig":
        """The same in so many epochs, with every change that its schedule makes at the same share of them."""

        def scaled(after: int) -> int:
            return max(1, round(after * epochs / self.epochs)) if after else 0

        schedule = self.schedule
        if isinstance(schedule, StepDecay):
            biases = schedule.bias_milestones
            schedule = StepDecay(tuple(map(scaled, schedule.milestones)), None if biases is None else tuple(map(scaled, biases)))
        elif isinstance(schedule, StaircaseExponential):
            schedule = replace(schedule, over=scaled(schedule.over))
        rates = tuple(replace(rate, after=scaled(rate.after)) for rate in self.layer_rates)
        color = None if self.color_epochs is None else scaled(self.color_epochs)
        return replace(self, epochs=epochs, schedule=schedule, layer_rates=rates, color_epochs=color)

    def epoch_hparams(self, errors: Sequence[float]) -> EpochHparams | None:
        """What holds in the epoch after those whose validation top-1 errors are `errors`; None if the schedule ends before.

        Raises:
          UserError: if `layer_rates` or `layer_decays` name a layer that the network does not have.
        """
        there = self.network.named_layers
        named = [change.layer for change in self.layer_rates] + [layer for layer, _ in self.layer_decays]
        if missing := [layer for layer in named if layer not in there]:
            raise UserError(f"{self.network.name} has no layer {missing[0]} to change the rate of; it has {', '.join(there)}")
        factors, epoch = self.schedule.factors(errors), len(errors)
        if factors is None:
            return None
        # Multiplied in float32, which the step has them in: what 0.1 of 0.004 is does not depend on who reckons it.
        weights = float(np.float32(self.learning_rate) * np.float32(factors.weights))
        biases = float(np.float32(self.bias_rate * self.learning_rate) * np.float32(factors.biases))
        layers: dict[str, tuple[float, float]] = {}
        for change in self.layer_rates:
            if epoch >= change.after:
                before = layers.get(change.layer, (weights, biases))
                layers[change.layer] = (change.weights, before[1] if change.biases is None else change.biases)
        color = self.augmentation.color is not None and (self.color_epochs is None or epoch < self.color_epochs)
        return EpochHparams(weights, biases, layers, color)
