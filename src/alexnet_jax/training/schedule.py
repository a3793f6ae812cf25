"""When the learning rate falls: by the validation error, as the paper says, or at epochs fixed before, as its code did.

A rule is a function of the validation errors after every epoch so far, and of nothing else. So a run that goes on needs only
those errors to be where it was, and rules that do not look at them count them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexnet_jax.errors import UserError


class Factors(NamedTuple):
    """What the rates at the start of training are multiplied by."""

    weights: float
    biases: float


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Divide the rate by ten when the validation error stops improving with the current rate; in the end, stop (section 5).

    Attributes:
      patience: epochs without an improvement that make the error one that has stopped; the paper names no number.
      min_delta: improvement of the top-1 error, as a fraction, that counts as one; the paper names no number.
      max_reductions: how often the rate is divided before the error may stop for the last time, which ends training.
    """

    patience: int = 5
    min_delta: float = 0.001
    max_reductions: int = 3

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0 or self.max_reductions < 0:
            raise UserError("a plateau takes a patience of one epoch or more, a smallest improvement and cuts not below 0")

    def factors(self, errors: Sequence[float]) -> Factors | None:
        """For the epoch after the last of `errors`; None if training is over."""
        cuts, waited, best = 0, 0, math.inf
        for error in errors:
            waited += 1
            if error < best - self.min_delta:
                waited, best = 0, error
            if waited == self.patience:
                cuts, waited, best = cuts + 1, 0, math.inf  # what counts is improvement with the current rate
        return Factors(0.1**cuts, 0.1**cuts) if cuts <= self.max_reductions else None


@dataclass(frozen=True)
class StepDecay:
    """Divide the rate by ten after epochs named before.

    Attributes:
      milestones: these epochs, for weights; the default is what the log of the original net 145 says.
      bias_milestones: these epochs, for biases; None is as for weights.
    """

    milestones: tuple[int, ...] = (25, 51, 79)
    bias_milestones: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(epoch < 1 for epoch in (*self.milestones, *(self.bias_milestones or ()))):
            raise UserError("the rate is cut after epoch 1 or later ones")

    def factors(self, errors: Sequence[float]) -> Factors | None:
        """For the epoch after the last of `errors`."""

        def factor(cuts: Sequence[int]) -> float:
            return 0.1 ** sum(len(errors) >= epoch for epoch in cuts)

        return Factors(factor(self.milestones), factor(self.milestones if self.bias_milestones is None else self.bias_milestones))


@dataclass(frozen=True)
class StaircaseExponential:
    """Let the rate fall in equal steps of its logarithm: `dexp` of the original code (lr.cu), in its later networks.

    The defaults are those of net 170: the weights' rate is 1, 1/6.3, 1/40 and 1/250 of the first in the four quarters of
    training, the biases' 1 and 1/10 in its halves. A step falls on the next whole epoch.

    Attributes:
      factor: what the weights' rate has been divided by in the end.
      steps: how many rates weights have.
      biases_factor: the same for biases.
      biases_steps: the same for biases.
      over: epochs that the steps share evenly; later the rate stays.
    """

    factor: float = 250.0
    steps: int = 4
    biases_factor: float = 10.0
    biases_steps: int = 2
    over: int = 90

    def __post_init__(self) -> None:
        if min(self.factor, self.biases_factor) <= 0 or min(self.steps, self.biases_steps, self.over) < 1:
            raise UserError("dexp takes factors above 0, one step or more, and one epoch or more to take them over")

    def factors(self, errors: Sequence[float]) -> Factors | None:
        """For the epoch after the last of `errors`."""

        def factor(whole: float, steps: int) -> float:
            step = min(len(errors) * steps // self.over, steps - 1)
            return whole ** (-step / max(steps - 1, 1))

        return Factors(factor(self.factor, self.steps), factor(self.biases_factor, self.biases_steps))


@dataclass(frozen=True)
class LayerRate:
    """From some epoch on, a layer's own rates, whatever the others'; 0 freezes it. A later one takes its place.

    Attributes:
      layer: name of the layer.
      after: epoch after which they hold.
      weights: rate of its weights.
      biases: rate of its biases; None leaves it as it is.
    """

    layer: str
    after: int
    weights: float
    biases: float | None = None


class EpochHparams(NamedTuple):
    """What holds in an epoch: the rates of weights and biases, those of layers with their own, whether colors vary."""

    weights: float
    biases: float
    layers: dict[str, tuple[float, float]]
    color: bool

    def __str__(self) -> str:
        own = [f"{layer} {weights:g}, biases {biases:g}" for layer, (weights, biases) in self.layers.items()]
        rates = "; ".join([f"rate {self.weights:g}, biases {self.biases:g}", *own])
        return f"{rates}; color noise {'on' if self.color else 'off'}"
