"""Four CPU devices: two towers, twice. Shapes and types of every call are checked against the signatures."""

import json
import tempfile
from dataclasses import replace

from jaxtyping import install_import_hook

with install_import_hook("alexnet_jax", "beartype.beartype"):
    from alexnet_jax.parallel import runtime as devices

    devices.set_cpu_device_count(4)

    import alexnet_jax.cli.evaluate
    import alexnet_jax.training.loop  # noqa: F401  what is imported here is checked

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from PIL import Image

from alexnet_jax.cli.train import train_with_report
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import UserError
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.loop import Options, train
from tests.tiny import TINY

# No tests; one needs PyTorch, and one is an experiment.
collect_ignore = ["parity/transcription.py", "parity/others.py", "numpy_network.py", "without_dropout.py"]

jax.devices()  # four from here on, whatever a test asks for

# Many tests compile the same step.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def tiny() -> Network:
    return TINY


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def mesh_of(network: Network, data: int, *, split: bool) -> Mesh:
    """The first devices as a mesh with `data` parts of the batch."""
    from alexnet_jax.parallel.mesh import make_mesh

    devices = data * (network.towers if split else 1)
    return make_mesh(network, jax.devices()[:devices], split_towers=split)


TINY_CONFIG = TrainConfig(TINY, epochs=3, batch_size=8, learning_rate=0.002, augmentation=Augmentation(image_size=32))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two classes that a few steps can tell apart: one is bright above, the other below."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    rng = np.random.default_rng(0)
    for split, images in (("train", 40), ("validation", 11)):
        for name in ("above", "below"):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 100, (64, 64, 3))
                pixels[slice(0, 32) if name == "above" else slice(32, 64)] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture
def options(photos, tmp_path):
    return Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=tmp_path / "runs", devices=2)


def log(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("images_per_second", "matmul_fraction")} for line in lines]


def refused(message, experiment, options):
    with pytest.raises(UserError, match=message):
        train("tiny", experiment, options)


class Stop:
    """Stands in for Ctrl-C: it comes when it has been looked for so many times, after every step and before every batch of an
    evaluation."""

    def __init__(self, looks):
        self._left = looks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def asked(self):
        self._left -= 1
        return self._left <= 0


@pytest.fixture(scope="session")
def trained_run(photos, tmp_path_factory):
    """The folder of a finished run that tells the two classes apart. Not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    options = Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=runs, devices=2)
    return train_with_report("tiny", replace(TINY_CONFIG, epochs=6), options)
