"""Learning rate schedules: by validation error, as described in the paper, or at fixed epochs, as in the original code.

A schedule is a function of the number of completed epochs and of the validation errors of those that were evaluated, and has no
other state. A resumed run therefore restores only these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from alexnet_jax.class_registry import ClassRegistry
from alexnet_jax.errors import check_at_least, check_number

LEARNING_MARGIN = 0.01
"""Decrease of the validation error below that of the most frequent class by which a network has begun to learn."""


class Factors(NamedTuple):
    """Multiplicative factors of the initial learning rates of weights and biases."""

    weights: float
    biases: float


@dataclass(frozen=True)
class LearningRateSchedule:
    """Base class of the schedules.

    A subclass in any module is a frozen dataclass whose fields can be stored as JSON. A run stores the name of its class, in
    lower case, so a module that defines a subclass must be imported before such a run is loaded, and its name must not be that of
    another schedule.

    Attributes:
      registry: subclasses by name in lower case.
    """

    registry: ClassVar["ClassRegistry[LearningRateSchedule]"] = ClassRegistry("schedule")

    def __init_subclass__(cls) -> None:
        LearningRateSchedule.registry.add(cls.__name__.lower(), cls)

    def factors(self, epochs: int, errors: Mapping[int, float], majority_error: float = math.inf) -> Factors | None:
        """Return the factors for the next epoch.

        Args:
          epochs: number of completed epochs.
          errors: validation top-1 errors, as fractions, by evaluated epoch, in ascending order.
          majority_error: validation error of always predicting the most frequent class.

        Returns:
          Factors of the initial learning rates; None if training has ended.
        """
        raise NotImplementedError

    def rescaled(self, rescale: Callable[[int], int]) -> "LearningRateSchedule":
        """Return the schedule with `rescale` applied to every number of epochs at which it changes a rate."""
        return self


@dataclass(frozen=True)
class ReduceOnPlateau(LearningRateSchedule):
    """Divide the learning rate by ten when the validation error stops improving at the current rate (section 5).

    After `max_reductions` reductions, the next plateau ends training. Epochs are counted from the first error that is less than
    `majority_error` by `LEARNING_MARGIN`, because the network of the paper's text predicts the most frequent class of a small
    data set for several epochs, with a constant error. If not every epoch is evaluated, the rate is reduced after the first
    evaluated epoch that is at least `patience` epochs later than the last improvement.

    Attributes:
      patience: epochs without improvement before the learning rate is reduced; the paper gives no number.
      min_delta: smallest decrease of the top-1 error, as a fraction, that counts as an improvement; the paper gives no number.
      max_reductions: number of reductions of the learning rate before training ends.
    """

    patience: int = 5
    min_delta: float = 0.001
    max_reductions: int = 3

    def __post_init__(self) -> None:
        check_at_least(self, patience=1, min_delta=0)
        check_number("--max-reductions", self.max_reductions, at_least=0, at_most=100)

    def factors(self, epochs: int, errors: Mapping[int, float], majority_error: float = math.inf) -> Factors | None:
        reductions, last_change, best, learned = 0, 0, math.inf, False
        for epoch, error in errors.items():
            learned = learned or error < majority_error - LEARNING_MARGIN
            if not learned:
                continue
            if error < best - self.min_delta:
                last_change, best = epoch, error
            if epoch - last_change >= self.patience:
                # Reset the best error: only improvements at the current rate count.
                reductions, last_change, best = reductions + 1, epoch, math.inf
        return Factors(0.1**reductions, 0.1**reductions) if reductions <= self.max_reductions else None


@dataclass(frozen=True)
class StepDecay(LearningRateSchedule):
    """Divide the learning rate by ten after given epochs.

    Attributes:
      milestones: numbers of epochs after which the learning rate of weights is divided; the defaults are those of the original
        log of net 145.
      bias_milestones: the same for biases; None uses `milestones`.
    """

    milestones: tuple[int, ...] = (25, 51, 79)
    bias_milestones: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for epoch in self.milestones:
            check_number("--milestones", epoch, at_least=1)
        for epoch in self.bias_milestones or ():
            check_number("--bias-milestones", epoch, at_least=1)

    def factors(self, epochs: int, errors: Mapping[int, float], majority_error: float = math.inf) -> Factors | None:
        def factor(milestones: Sequence[int]) -> float:
            return 0.1 ** sum(epochs >= epoch for epoch in milestones)

        return Factors(factor(self.milestones), factor(self.milestones if self.bias_milestones is None else self.bias_milestones))

    def rescaled(self, rescale: Callable[[int], int]) -> "StepDecay":
        biases = None if self.bias_milestones is None else tuple(map(rescale, self.bias_milestones))
        return replace(self, milestones=tuple(map(rescale, self.milestones)), bias_milestones=biases)


@dataclass(frozen=True)
class StaircaseExponential(LearningRateSchedule):
    """Decay the learning rate exponentially in discrete levels: `dexp` of the original code's later networks (lr.cu).

    Level k of n, counted from 0, divides the initial rate by `decay_factor ** (k / (n - 1))`. The `decay_epochs` are divided
    equally among the levels; a change that falls within an epoch takes effect at the next one. With the defaults, which are
    those of net 170, weights have 1, 1/6.3, 1/40 and 1/250 of their initial rate in the four quarters of training, and biases
    have 1 and 1/10 of theirs in the two halves.

    Attributes:
      decay_factor: initial rate of weights divided by the final one.
      num_levels: number of levels of weights.
      bias_decay_factor: initial rate of biases divided by the final one.
      bias_num_levels: number of levels of biases.
      decay_epochs: number of epochs over which the rates decay; later epochs use the final rates.
    """

    decay_factor: float = 250.0
    num_levels: int = 4
    bias_decay_factor: float = 10.0
    bias_num_levels: int = 2
    decay_epochs: int = 90

    def __post_init__(self) -> None:
        check_number("--decay-factor", self.decay_factor, above=0)
        check_number("--bias-decay-factor", self.bias_decay_factor, above=0)
        check_at_least(self, num_levels=1, bias_num_levels=1, decay_epochs=1)

    def factors(self, epochs: int, errors: Mapping[int, float], majority_error: float = math.inf) -> Factors | None:
        def factor(decay_factor: float, num_levels: int) -> float:
            level = min(epochs * num_levels // self.decay_epochs, num_levels - 1)
            return decay_factor ** (-level / max(num_levels - 1, 1))

        return Factors(factor(self.decay_factor, self.num_levels), factor(self.bias_decay_factor, self.bias_num_levels))

    def rescaled(self, rescale: Callable[[int], int]) -> "StaircaseExponential":
        return replace(self, decay_epochs=rescale(self.decay_epochs))


@dataclass(frozen=True)
class LayerRate:
    """Learning rates of a layer from a given epoch on, independent of the schedule.

    A later `LayerRate` of the same layer replaces an earlier one.

    Attributes:
      layer: name of the layer.
      after: number of epochs after which the rates are used.
      weights: learning rate of the layer's weights; 0 freezes them.
      biases: learning rate of the layer's biases; None leaves it unchanged.
    """

    layer: str
    after: int
    weights: float
    biases: float | None = None


class EpochHparams(NamedTuple):
    """Hyperparameters of an epoch.

    Attributes:
      weights: learning rate of weights.
      biases: learning rate of biases.
      layers: learning rates (weights, biases) of layers with different rates, by layer name.
      color: whether training images have random color shifts.
    """

    weights: float
    biases: float
    layers: dict[str, tuple[float, float]]
    color: bool

    def __str__(self) -> str:
        layer_rates = [f"{layer}: weights {weights:g}, biases {biases:g}" for layer, (weights, biases) in self.layers.items()]
        rates = "; ".join([f"learning rate of weights {self.weights:g}, of biases {self.biases:g}", *layer_rates])
        return f"{rates}; color shifts {'on' if self.color else 'off'}"
