"""Tests of experiments/benchmarks/data_pipeline.py: equivalent batches of all loaders, and other measurements."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[2] / "experiments" / "benchmarks" / "data_pipeline.py"
LOADERS = [
    "alexnet_jax 2 threads",
    "alexnet_jax raw",
    "torch_pillow {workers} workers",
    "torch_simplejpeg {workers} workers",
    "torch_torchvision {workers} workers",
    "spdl_simplejpeg",
    "tf.data",
]
PACKAGES = {"torch_torchvision": "torchvision", "torch": "torch", "spdl": "spdl", "tf.data": "tensorflow"}
ONE_BATCH = f"""
import json, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
import numpy as np
from pathlib import Path
import data_pipeline

if __name__ == "__main__":
    batch = next(data_pipeline.make_loader(sys.argv[1].format(workers=data_pipeline.CORES), Path(sys.argv[2])))
    images = np.asarray(batch[0])
    print(json.dumps([images.shape, str(images.dtype), float(images.mean())]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    subprocess.run([sys.executable, str(PROGRAM), "--only", "images", str(folder), "140"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_return_equivalent_batches(folder, name, tmp_path):
    for kind, package in PACKAGES.items():
        if name.startswith(kind):
            pytest.importorskip(package, reason=f"{package} is not installed, see other_loaders.py")
    (tmp_path / "one_batch.py").write_text(ONE_BATCH)  # worker processes import the main module from a file
    command = [sys.executable, "-W", "ignore", str(tmp_path / "one_batch.py"), name, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    shape, dtype, mean = json.loads(out.splitlines()[-1])
    assert shape == [128, 224, 224, 3]
    assert dtype == "uint8"
    assert mean == pytest.approx(float(np.load(folder / "jpeg" / "mean_image.npy").mean()), abs=15)


def test_stage_and_memory_measurements(folder):
    def measure(*arguments):
        command = [sys.executable, str(PROGRAM), "--only", *map(str, arguments)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert all(rate > 0 for rate in measure("stages", "jpeg", folder).values())
    assert 0 < measure("lock", folder / "jpeg", 5) < 1e4
    assert measure("rate", "null alexnet_jax 1 threads", folder, 2) > 0
    assert measure("memory", folder, 20)["after_batches"] == list(range(1, 21))
