"""Choice of the fastest form of the training step: measured once on a kind of device, stored, and kept by a resumed run."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import UserError
from alexnet_jax.files import write_json
from alexnet_jax.parallel.distributed import from_main_process, is_main_process
from alexnet_jax.parallel.mesh import mesh_platform
from alexnet_jax.parallel.runtime import user_cache_folder
from alexnet_jax.training.config import Tune
from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step_form import StepForm
from alexnet_jax.training.step_trials import Trial, TuningTask, measure_forms, print_line
from alexnet_jax.version import __version__

MIN_TRAINING_S = 600.0
"""Estimated seconds of the shortest training that is tuned."""
MAX_FRACTION = 0.05
"""Largest part of the estimated time of a training that tuning takes."""
MAX_SECONDS = {"cpu": 30.0, "gpu": 120.0}
"""Time limits of tuning by platform: no form is started that is expected to exceed it. On a GPU, compilation takes most of it."""
MIN_GAIN = {"cpu": 0.05, "gpu": 0.02}
"""Smallest reduction of the time of a step, by platform, for which another form than the default is used: less may be noise."""
MATMUL_FRACTION = 0.5
"""Assumed FLOP/s of training as a fraction of those of a matrix product, to estimate the time of a training."""


@dataclass(frozen=True)
class Tuning:
    """Form of the training step of a run, and what it depends on (`tuning_key`); stored in config.json."""

    key: dict[str, Any]
    form: StepForm


def tuning_key(task: TuningTask, mesh: Mesh) -> dict[str, Any]:
    """Return what the fastest form depends on, as JSON. A run that is resumed with another key is tuned again."""
    network = json.dumps(task.network.to_json(), sort_keys=True)
    return {
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
        "placement": task.requested_placement,
        "jax": jax.__version__,
        "network": hashlib.sha256(network.encode()).hexdigest()[:16],
        "batch_size": task.batch_size,
        "precision": task.precision,
        "gradient_sum": asdict(task.gradient_sum),
    }


def choose_form(run: RunDirectory, task: TuningTask, mesh: Mesh, tune: Tune, *, steps: int) -> Tuning:
    """Return the form of the training step of a run: its own, if it is resumed, or a stored or a measured one.

    All processes use the form that process 0 chooses. The estimated time of the training's steps limits that of tuning.
    """
    key = tuning_key(task, mesh)
    stored = _stored_form(run, task, key, tune) if is_main_process() else None
    form = from_main_process(stored and asdict(stored))
    if form is not None:
        return Tuning(key, StepForm(**form))
    platform = "cpu" if mesh_platform(mesh) == "cpu" else "gpu"
    if tune == "auto" and platform == "cpu":
        # The defaults of the other fields have been measured on CPUs.
        task = replace(task, alternatives={name: task.alternatives[name] for name in task.alternatives.keys() & {"placement"}})
    limit = _time_limit(task, mesh, tune, steps, MAX_SECONDS[platform]) if task.alternatives else 0.0
    if not limit:
        return Tuning(key, task.default)
    device = f"{mesh.size} × {key['device']}, batch {task.batch_size}, {task.precision}"
    print_line(f"tuning the training step ({device}) for at most {limit:.0f} s; --tune off skips this")
    trials = measure_forms(task, limit)
    fastest = min(trials, key=lambda trial: trial.seconds * (1 - MIN_GAIN[platform] if trial.form == task.default else 1))
    if math.isinf(fastest.seconds):
        print_line(f"no form can be measured; using {task.default}")
        return Tuning(key, task.default)
    tuning = Tuning(key, StepForm(**from_main_process(asdict(fastest.form))))
    print_line(f"fastest: {tuning.form}{_store(tuning, trials)}")
    return tuning


def _stored_form(run: RunDirectory, task: TuningTask, key: dict[str, Any], tune: Tune) -> StepForm | None:
    """Return the form of a resumed run, so that its numbers stay the same, or else the cached one, or None."""
    if tune == "again":
        return None
    own = run.config.get("tuning")
    if own is None and any(run.checkpoints.glob("[0-9]*")):
        return task.default  # the run is older than tuning
    form = _matching_form(own, task, key)
    if form is None and tune == "auto" and (file := _cache_file(key)) is not None:
        with suppress(OSError, ValueError):
            form = _matching_form(json.loads(file.read_text(encoding="utf-8")), task, key)
    return form


def _matching_form(record: Any, task: TuningTask, key: dict[str, Any]) -> StepForm | None:
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    return StepForm.from_json(record.get("form"), task.default, task.alternatives)


def _cache_file(key: dict[str, Any]) -> Path | None:
    """Return the file of a key in the user's cache folder; other versions of this package and other CPUs have their own."""
    folder, cpus = user_cache_folder(), available_cpus() if key["device"] == "cpu" else None
    digest = hashlib.sha256(json.dumps([key, cpus, __version__], sort_keys=True).encode()).hexdigest()[:16]
    return folder and folder / "tuning" / f"{digest}.json"


def _store(tuning: Tuning, trials: list[Trial]) -> str:
    """Write the choice and its measurements to the cache in process 0, and return the end of a message about it.

    Nothing is written if there was no time to compare forms.
    """
    file = _cache_file(tuning.key)
    record = {**asdict(tuning), "trials": [str(trial) for trial in trials]}
    if is_main_process() and file is not None and len(trials) > 1:
        with suppress(OSError, UserError):
            write_json(file, record)
            return f"; stored in {file}, --tune again measures again"
    return ""


def _time_limit(task: TuningTask, mesh: Mesh, tune: Tune, steps: int, limit: float) -> float:
    """Return the number of seconds that tuning may take, in all processes that of process 0; 0 if it is not worth it."""
    if tune != "auto":
        return limit if tune == "again" else 0.0
    flops_per_second = MATMUL_FRACTION * measure_matmul_flops(mesh, task.precision)
    training_seconds = steps * task.batch_size * training_flops_per_image(task.network) / flops_per_second
    return from_main_process(min(limit, MAX_FRACTION * training_seconds) if training_seconds >= MIN_TRAINING_S else 0.0)
