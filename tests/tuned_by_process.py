"""Config for two processes that measure different forms of the training step as the fastest.

Importing this module makes a process print the form of its training steps.
"""

import sys
from dataclasses import replace
from typing import Any

import jax

from alexnet_jax.model.convolution import current_conv_lowering
from alexnet_jax.training import setup, tuning
from alexnet_jax.training.step_trials import Trial, TuningTask
from tests.without_dropout import CONFIG as CONFIG

measure_forms, make_train_step = tuning.measure_forms, setup.make_train_step


def measure_differently(task: TuningTask, limit: float) -> list[Trial]:
    """Measure the forms, and add that of process 0 or of process 1 as the fastest."""
    conv1 = "direct" if jax.process_index() else "space_to_depth"
    return [*measure_forms(task, limit), Trial(replace(task.default, conv1=conv1), 1e-9, 0.0)]


def make_and_print(*args: Any, **kwargs: Any) -> Any:
    """Make a training step and print its form."""
    print("step with conv1", current_conv_lowering(), file=sys.stderr)
    return make_train_step(*args, **kwargs)


tuning.MAX_SECONDS["cpu"] = 1000.0  # also on a busy machine
tuning.measure_forms, setup.make_train_step = measure_differently, make_and_print
