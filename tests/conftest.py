"""Shared fixtures and configuration of the tests.

Tests run on four CPU devices, with the shapes and types of all annotated arguments checked. The CPU is the default platform on
every machine; tests marked `gpu` select the GPUs explicitly and are skipped on machines without one.
"""

import atexit
import gc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Tests, pytest-xdist workers and the processes that tests start share compiled programs. They inherit these variables, so only
# the process that sets them deletes the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="alexnet-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["XDG_CACHE_HOME"] = os.environ["JAX_COMPILATION_CACHE_DIR"]  # not the user's choices of `training.tuning`
os.environ["JAX_PLATFORMS"] = "cpu"
# The networks in the tests are small, so compilation takes most of the time; it is eight times faster without optimization. `make
# parity` compiles with optimization. XLA aborts on unknown flags, and versions after 0.10 have only the first of these.
COMPILER_FLAGS = ""
if os.environ.get("ALEXNET_TESTS_OPTIMIZE") != "1":
    COMPILER_FLAGS = "--xla_backend_optimization_level=0"
    if version("jaxlib").startswith("0.10."):
        COMPILER_FLAGS += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COMPILER_FLAGS}".strip()

from jaxtyping import install_import_hook

with install_import_hook("alexnet_jax", "beartype.beartype"):
    import alexnet_jax.cli.evaluate
    import alexnet_jax.training.train  # noqa: F401  (to check calls within these modules, too)
    from alexnet_jax.parallel import runtime

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

from alexnet_jax.cli import main as cli
from alexnet_jax.cli.train import train_with_report
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import Transform
from alexnet_jax.errors import UserError
from alexnet_jax.model.convolution import current_conv_lowering
from alexnet_jax.model.layers import Layer
from alexnet_jax.model.lowering import current_lowering
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import Params, stacked_towers
from alexnet_jax.training import setup
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.evaluation_step import make_evaluation_step
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.schedule import LearningRateSchedule
from alexnet_jax.training.step import make_train_step
from alexnet_jax.training.train import train
from alexnet_kernels.dispatch import current_order
from tests.tiny import TINY

# Helper modules without tests, some of which need PyTorch.
collect_ignore = [
    "parallel/launcher.py",
    "parity/transcription.py",
    "process_settings.py",
    "parity/others.py",
    "numpy_network.py",
    "without_dropout.py",
    "tiny_config.py",
    "tuned_by_process.py",
]

HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*")) and any(
    importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
)
jax.config.update("jax_platforms", "cpu,cuda" if HAS_GPU else "cpu")
runtime.configure_cpu(4)
gc.freeze()  # the imported modules: garbage collections that search their many objects take several percent of the time
gc.set_threshold(100_000, 20, 20)
jax.devices()  # initialize the backend: the number of devices cannot change afterwards


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and the jax-cuda plugin"))


def process_environment(*, shared_cache: bool = True, platform: str | None = "cpu") -> dict[str, str]:
    """Return the environment for a subprocess, without the number of devices and threads of this process.

    Args:
      shared_cache: whether the process uses the compilation cache of the tests.
      platform: JAX platform; None lets JAX choose.
    """
    environment = dict(os.environ) | {"XLA_FLAGS": COMPILER_FLAGS}
    names = ["PJRT_NPROC"]
    if not shared_cache:
        names += ["JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]
    if platform is None:
        names.append("JAX_PLATFORMS")
    for name in names:
        environment.pop(name, None)
    return environment | ({"JAX_PLATFORMS": platform} if platform else {})


# Most of the time of a short training is tracing and lowering, so trainings of the same network in one process share their steps.
@cache
def shared_update(momentum: float, weight_decay: float, layer_decays: tuple[tuple[str, float], ...]) -> Any:
    return paper_update(momentum=momentum, weight_decay=weight_decay, layer_decays=dict(layer_decays))


setup.paper_update = lambda *, momentum, weight_decay, layer_decays: shared_update(  # pyright: ignore[reportAttributeAccessIssue]
    momentum, weight_decay, tuple(layer_decays.items())
)


def shared_in_context(make: Any) -> Any:
    """Return `make` with a cache of its results; the key includes the context managers that determine the compiled operations."""
    cached = cache(lambda context, args, kwargs: make(*args, **dict(kwargs)))

    def shared(*args, **kwargs):
        context = current_order(), current_lowering(), current_conv_lowering()
        return cached(context, args, tuple(sorted(kwargs.items())))

    return shared


setup.make_train_step = shared_in_context(make_train_step)
setup.make_evaluation_step = shared_in_context(make_evaluation_step)


@pytest.fixture
def run_command(capsys, monkeypatch):
    """Return a function that runs a command in this process, checks its exit code and returns its output."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["alexnet-jax", *map(str, arguments)])
        exit_code = 0
        try:
            cli.main()
        except SystemExit as error:
            exit_code = error.code
        captured = capsys.readouterr()
        assert exit_code == code, captured.err
        return captured

    return run


@pytest.fixture
def registered_classes(monkeypatch):
    """Forget the layers, transforms and schedules that a test defines: their names may be those of another test's."""
    for base in (Layer, Transform, LearningRateSchedule):
        classes = {name: dict(defined) for name, defined in base.registry.classes.items()}
        monkeypatch.setattr(base.registry, "classes", classes)


@pytest.fixture
def tiny() -> Network:
    return TINY


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def cpu_mesh(network: Network, data: int, *, split: bool) -> Mesh:
    """Return a mesh of the first CPU devices.

    Args:
      network: network whose towers are placed on the mesh.
      data: size of the data axis.
      split: whether each tower is on its own device.
    """
    from alexnet_jax.parallel.mesh import make_mesh

    devices = data * (network.towers if split else 1)
    return make_mesh(network, jax.devices()[:devices], split_towers=split)


def layer_outputs(network: Network, params: Params, images: jax.Array, key: jax.Array | None = None) -> dict[str, jax.Array]:
    """Return the outputs of every layer by name, stacked along a leading tower axis; with a key for dropout, as in training."""

    @jax.jit
    def intermediates(params, images, key):
        rngs = {} if key is None else {"dropout": key}
        _, state = stacked_towers(network).apply({"params": params}, images, rngs=rngs, capture_intermediates=True)
        return state["intermediates"]

    return {name: values["__call__"][0] for name, values in intermediates(params, images, key).items() if name != "__call__"}


TINY_CONFIG = TrainConfig(TINY, epochs=3, batch_size=8, learning_rate=0.002, augmentation=Augmentation(image_size=32))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folder of images of two classes that are easy to separate: brighter in the upper half, or in the lower half."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    rng = np.random.default_rng(0)
    for split, num_images in (("train", 40), ("validation", 11)):
        for name in ("above", "below"):
            (root / split / name).mkdir(parents=True)
            for i in range(num_images):
                pixels = rng.integers(0, 100, (64, 64, 3))
                pixels[slice(0, 32) if name == "above" else slice(32, 64)] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture
def options(photos, tmp_path):
    return Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path / "runs", devices=2)


def read_log(folder):
    """Return the lines of a run's log, without the measured throughput."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("images_per_second", "matmul_fraction")} for line in lines]


def assert_train_raises(message, config, options):
    """Check that `train` raises a UserError whose message matches a regular expression."""
    with pytest.raises(UserError, match=message):
        train("tiny", config, options)


class StopAfter(nullcontext):
    """Value of `should_stop`, or replacement for `StopOnSignal`, that requests a stop at the n-th call.

    The training loop calls it after every training step and before every validation batch.
    """

    def __init__(self, calls):
        super().__init__(self)
        self._remaining = calls

    def __call__(self):
        self._remaining -= 1
        return self._remaining <= 0


@pytest.fixture(scope="session")
def trained_run(photos, tmp_path_factory):
    """Folder of a finished run with a low error on `photos`; tests must not modify it."""
    runs = tmp_path_factory.mktemp("runs")
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=runs, devices=2)
    return train_with_report("tiny", replace(TINY_CONFIG, epochs=6), options)
