"""Result of a training run."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.console import console
from alexnet_jax.training.metrics import EvalMetrics
from alexnet_jax.training.run_logger import format_result
from alexnet_jax.training.setup import TrainContext


@dataclass(frozen=True)
class TrainResult:
    """Result of a call of `train`.

    Attributes:
      run: run folder, which `load` accepts; if training is finished, it contains `result.json`.
      finished: whether training is finished; otherwise it was interrupted with its state saved, and the same call resumes it.
      step: number of completed steps.
      metrics: validation metrics of the final parameters; None if training was interrupted.
    """

    run: Path
    finished: bool
    step: int
    metrics: EvalMetrics | None


def finished_result(context: TrainContext) -> TrainResult | None:
    """Return the result of a run that an earlier call has finished, and print it; None if there are steps left."""
    record = context.run.result
    if record is None or not (record["ended_by_schedule"] or record["steps"] >= context.steps):
        return None
    if context.run.is_writer:
        more = f"more than {record['epochs']} --epochs" if record["epochs"] > context.config.epochs else "a larger --epochs"
        if context.config.schedule_depends_on_epochs:
            more += f" with --run {shlex.quote(str(context.run.folder))} --keep-schedule"
        more_epochs = "" if record["ended_by_schedule"] else f", or {more} to continue"
        advice = f"Pass --fresh to train it again{more_epochs}."
        console.print(f"{context.run.folder} is finished: {format_result(record)}. {advice}")
    errors = record["top1_error"], record["top5_error"], record["loss"]
    metrics = EvalMetrics(*errors, record["images"], record.get("predicted_classes"))
    return TrainResult(context.run.folder, True, record["steps"], metrics)
