"""Tests that the library changes no setting of the process, and trains in a thread after other JAX work."""

import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.parallel.runtime import configure_cpu
from tests.conftest import process_environment

ROOT = Path(__file__).parents[1]

PROGRAM = """
import logging, os, signal, sys, threading, warnings
from dataclasses import replace
from pathlib import Path
# Dependencies first: some of them change filters or the environment when they are imported.
import absl.logging, flax.linen, grain, jax, matplotlib.pyplot, optax, orbax.checkpoint, rich.console, scipy.sparse, tyro
from jax._src.config import config as jax_config

def settings():
    loggers = {name: logger.level for name, logger in logging.root.manager.loggerDict.items() if hasattr(logger, "level")}
    return {
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "root logger": (logging.root.level, list(logging.root.handlers)),
        "loggers": {name: loggers[name] for name in ("absl", "asyncio")},
        "filters": list(warnings.filters),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "jax": {name: repr(value) for name, value in jax_config.values.items()},
    }

def check(when):
    now = settings()
    for name, value in before.items():
        assert now[name] == value, (when, name, now[name], value)
    assert not alexnet_jax.console.console.quiet

logging.getLogger("asyncio"), logging.getLogger("absl")
before = settings()
import alexnet_jax
import alexnet_jax.cli.main, alexnet_jax.console
from tests.tiny import TINY

public = {name: getattr(alexnet_jax, name) for name in alexnet_jax.__all__}
check("import")
photos, folder = map(Path, sys.argv[1:])
model = alexnet_jax.initialize(TINY, classes=["above", "below"], image_size=32)
photo = next(photos.rglob("*.jpg"))
predictor = alexnet_jax.Predictor(model)
assert isinstance(predictor.classify([photo])[0][0], alexnet_jax.ClassProbability)
alexnet_jax.save(model, folder / "model.safetensors")
assert alexnet_jax.load(folder / "model.safetensors").classes == model.classes
try:
    alexnet_jax.import_weights(folder / "model.safetensors")
except alexnet_jax.UserError as error:
    assert "already in the alexnet-jax layout" in str(error)
assert alexnet_jax.load_config("quickstart").network is alexnet_jax.NETWORKS["quickstart"] is alexnet_jax.QUICKSTART
check("predictor, save and load")

config = alexnet_jax.TrainConfig(
    TINY, epochs=1, batch_size=8, learning_rate=0.002, augmentation=alexnet_jax.Augmentation(image_size=32)
)
options = alexnet_jax.Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=folder / "runs")
results = []

def run(config, **arguments):
    thread = threading.Thread(target=lambda: results.append(alexnet_jax.train("tiny", config, options, **arguments)))
    thread.start()
    thread.join()
    return results.pop()

calls = iter([False, True])
stopped = run(config, should_stop=lambda: next(calls))
assert (stopped.finished, stopped.step) == (False, 2), stopped
check("train")
result = run(config)
assert isinstance(result, alexnet_jax.TrainResult) and result.finished and result.run == stopped.run
alexnet_jax.write_training_report(result.run)
assert (result.run / "report.html").exists()
assert alexnet_jax.load(result.run).step == result.step == 10
check("resume and report")
try:
    alexnet_jax.train("diverging", replace(config, learning_rate=1e30), options)
except alexnet_jax.DivergedError:
    check("divergence")
    print("done")
"""


def test_library_leaves_the_process_alone_and_trains_in_a_thread(photos, tmp_path):
    """Use every public name in a process with one CPU device, which must not be reconfigured."""
    command = [sys.executable, "-c", PROGRAM, str(photos), str(tmp_path)]
    environment = process_environment() | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiles faster
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
    assert "mesh: 1 data\n" in done.stderr


def test_configure_cpu_too_late_is_an_error():
    configure_cpu(4)
    with pytest.raises(UserError, match=r"JAX already uses 4 CPU device\(s\).*: call configure_cpu\(devices=64\) before JAX is"):
        configure_cpu(64)
