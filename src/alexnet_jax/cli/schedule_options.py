"""Options of the number of epochs and the learning rate schedule, for the commands `train` and `schedule`."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from alexnet_jax.console import count
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LearningRateSchedule, ReduceOnPlateau, StaircaseExponential, StepDecay

ScheduleName = Literal["reduce-on-plateau", "step-decay", "staircase-exponential"]
"""Name of a schedule on the command line."""
SCHEDULES: dict[str, type[LearningRateSchedule]] = {
    "reduce-on-plateau": ReduceOnPlateau,
    "step-decay": StepDecay,
    "staircase-exponential": StaircaseExponential,
}
"""Schedules by their name on the command line."""
DEFAULT_EPOCHS = 90
"""Number of epochs for which the defaults of the schedules are meant: that of the paper."""


@dataclass(frozen=True)
class ScheduleOptions:
    """Number of epochs, and changes of the learning rate. An option that is not given keeps the value of the config.

    Attributes:
      epochs: maximum number of epochs; the schedule may end training earlier. The epochs of the config's schedule are moved in
        proportion.
      keep_schedule: do not move the epochs of the schedule. With --run, keep the schedule of that run.
      schedule: schedule of the learning rate; an option of one of them selects it, too.
      milestones: (step-decay) epochs after which the learning rate of weights is divided by ten.
      bias_milestones: (step-decay) the same for biases, if it differs.
      patience: (reduce-on-plateau) epochs without improvement before the learning rate is divided by ten.
      min_delta: (reduce-on-plateau) smallest decrease of the validation top-1 error, as a fraction, that is an improvement.
      max_reductions: (reduce-on-plateau) number of reductions of the learning rate before training ends.
      decay_factor: (staircase-exponential) initial learning rate of weights divided by the final one.
      num_levels: (staircase-exponential) number of levels of the learning rate of weights.
      bias_decay_factor: (staircase-exponential) initial learning rate of biases divided by the final one.
      bias_num_levels: (staircase-exponential) number of levels of the learning rate of biases.
      decay_epochs: (staircase-exponential) number of epochs over which the learning rates decay.
      color_epochs: number of epochs with random color shifts; None uses them in all epochs, unless the config ends them.
    """

    epochs: int | None = None
    keep_schedule: bool = False
    schedule: ScheduleName | None = None
    milestones: tuple[int, ...] | None = None
    bias_milestones: tuple[int, ...] | None = None
    patience: int | None = None
    min_delta: float | None = None
    max_reductions: int | None = None
    decay_factor: float | None = None
    num_levels: int | None = None
    bias_decay_factor: float | None = None
    bias_num_levels: int | None = None
    decay_epochs: int | None = None
    color_epochs: int | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> "ScheduleOptions":
        """Return the options with the values of a config, to show them as defaults in the help."""
        name = next((name for name, kind in SCHEDULES.items() if kind is type(config.schedule)), None)
        options = vars(config.schedule) if name else {}  # a schedule of another module has none
        return cls(config.epochs, schedule=name, color_epochs=config.color_epochs, **options)  # type: ignore[reportArgumentType]

    def apply(self, config: TrainConfig) -> TrainConfig:
        """Return the config with these options.

        Raises:
          UserError: if options of two schedules are given, or one is out of range.
        """
        scaled = self._scale(self._select_schedule(config))
        schedule = replace(scaled.schedule, **self._given(type(scaled.schedule)))
        color_epochs = scaled.color_epochs if self.color_epochs is None else self.color_epochs
        return replace(scaled, schedule=schedule, color_epochs=color_epochs)

    def notes(self, config: TrainConfig) -> list[str]:
        """Return lines that say which epochs `apply` moves, and which ones the training does not reach."""
        selected, applied = self._select_schedule(config), self.apply(config)
        before, scaled, after = (_change_epochs(each) for each in (selected, self._scale(selected), applied))
        moved = {name: epochs for name, epochs in after.items() if epochs == scaled.get(name) != before.get(name)}
        lines = []
        if moved:
            from_to = f"from {config.epochs} to {applied.epochs} epochs"
            lines.append(f"schedule scaled {from_to}: {_join(moved)} (--keep-schedule does not scale it)")
        # A change after the last epoch has no effect, but a decay and color shifts may last until then.
        last = {name: applied.epochs + ("until" in name) for name in after}
        late = {name: tuple(epoch for epoch in epochs if epoch >= last[name]) for name, epochs in after.items()}
        if any(late.values()):
            lines.append(f"not reached in {count(applied.epochs, 'epoch')}: {_join(late)}")
        return lines

    def _given(self, kind: type[LearningRateSchedule]) -> dict[str, Any]:
        """Return the given options of a schedule; one of another module has none."""
        values = {field.name: getattr(self, field.name) for field in (fields(kind) if kind in SCHEDULES.values() else ())}
        return {name: value for name, value in values.items() if value is not None}

    def _select_schedule(self, config: TrainConfig) -> TrainConfig:
        """Return the config with the schedule that the options are for: its own, or one with default values."""
        given = {name: option for name, kind in SCHEDULES.items() for option in self._given(kind)}
        if self.schedule is not None:
            given[self.schedule] = "schedule"
        if len(given) > 1:
            (first, option), (second, other), *_ = given.items()
            problem = f"--{_dashes(option)} is for {first}, --{_dashes(other)} for {second}"
            raise UserError(f"{problem}: pass options of one schedule")
        kind = SCHEDULES[next(iter(given))] if given else type(config.schedule)
        if kind is type(config.schedule):
            return config
        default = replace(config, epochs=DEFAULT_EPOCHS, schedule=kind())
        return replace(config, schedule=default.with_epochs(config.epochs).schedule)

    def _scale(self, config: TrainConfig) -> TrainConfig:
        epochs = config.epochs if self.epochs is None else self.epochs
        return replace(config, epochs=epochs) if self.keep_schedule else config.with_epochs(epochs)


def _change_epochs(config: TrainConfig) -> dict[str, tuple[int, ...]]:
    """Return the epochs after which something changes, by description."""
    schedule, epochs = config.schedule, dict[str, tuple[int, ...]]()
    if isinstance(schedule, StepDecay):
        epochs = {"milestones": schedule.milestones, "milestones of biases": schedule.bias_milestones or ()}
    elif isinstance(schedule, StaircaseExponential):
        epochs["decay until epoch"] = (schedule.decay_epochs,)
    for change in config.layer_rates:
        name = f"learning rate of {change.layer} after epoch"
        epochs[name] = (*epochs.get(name, ()), change.after)
    if config.color_epochs is not None:
        epochs["color shifts until epoch"] = (config.color_epochs,)
    return epochs


def _join(epochs: dict[str, tuple[int, ...]]) -> str:
    return "; ".join(f"{name} {' '.join(map(str, dict.fromkeys(numbers)))}" for name, numbers in epochs.items() if numbers)


def _dashes(option: str) -> str:
    return option.replace("_", "-")
