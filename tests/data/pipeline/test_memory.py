"""Tests of the available memory and of the cache of decoded images."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline import memory
from alexnet_jax.data.pipeline.augment import Augmentation, Crop
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Record, open_dataset
from tests.dataset_writer import create_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images"
    rng = np.random.default_rng(0)
    with create_dataset(path, [str(i) for i in range(40)], size=64) as writer:
        for i in range(40):
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)
    return open_dataset(path)


def test_images_are_cached_if_all_fit(dataset, monkeypatch):
    num_bytes = 40 * 64 * 64 * 3
    monkeypatch.setattr("alexnet_jax.data.pipeline.loading.available_memory", lambda: 4 * num_bytes)
    assert DecodedImages(dataset, "train", 64, memory_fraction=0.25).in_memory
    assert not DecodedImages(dataset, "train", 64, memory_fraction=0.24).in_memory
    assert DecodedImages(dataset, "train", 32, memory_fraction=0.07).in_memory


@pytest.mark.parametrize("memory", [1, 1.9, 2, 8], ids="memory for {} copies".format)
def test_cached_images_equal_decoded_ones(dataset, monkeypatch, memory):
    monkeypatch.setattr("alexnet_jax.data.pipeline.loading.available_memory", lambda: memory * 40 * 64 * 64 * 3)
    cached, decoded = (DecodedImages(dataset, "train", 64, memory_fraction=fraction) for fraction in (1.0, 0.0))
    assert cached.in_memory
    assert not decoded.in_memory
    for flipped in (False, True, True, False):
        crop = Crop(np.array([[3, 11]]), np.array([flipped]))
        (cached_crop, cached_label), (decoded_crop, label) = (images.crops([7], crop, 48) for images in (cached, decoded))
        assert cached_label == label == [7]
        np.testing.assert_array_equal(cached_crop, decoded_crop)


def test_cached_images_are_decoded_once(dataset, monkeypatch):
    decoded = []
    decode = DecodedImages._decode
    monkeypatch.setattr(DecodedImages, "_decode", lambda self, image: decoded.append(bytes(image)) or decode(self, image))
    one_thread = LoaderOptions(threads=1)  # at the end of an epoch, two threads could decode the same image
    batches = training_batches(
        dataset, Augmentation(image_size=64), input_size=48, batch_size=20, seed=0, loader_options=one_thread
    )
    list(itertools.islice(batches, 10))
    assert len(decoded) == len(set(decoded)) == 40


@pytest.mark.parametrize(("limit", "gigabytes"), [("RLIMIT_DATA", 2), ("RLIMIT_AS", 8)])
def test_available_memory_with_resource_limit(limit, gigabytes):
    program = f"""
import resource
from alexnet_jax.data.pipeline.memory import available_memory
resource.setrlimit(resource.{limit}, ({gigabytes << 30}, {gigabytes << 30}))
print(available_memory())
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(process.stdout) < gigabytes << 30


def test_available_memory_with_cgroup_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    group = tmp_path / "groups" / "pod" / "box"
    (tmp_path / "proc" / "self").mkdir(parents=True)
    group.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   8000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/pod/box\n")
    assert memory.available_memory() == 8000 * 1024
    (group / "memory.max").write_text("max\n")
    for folder, maximum in ((group.parent, 3_000_000), (group, 4_000_000)):
        (folder / "memory.max").write_text(f"{maximum}\n")
        (folder / "memory.current").write_text("1500000\n")
        (folder / "memory.stat").write_text("anon 1000\ninactive_file 500000\n")
    assert memory.available_memory() == 2_000_000


READ_TWICE = """
import resource, sys
from pathlib import Path
from alexnet_jax.data.pipeline import memory
from alexnet_jax.data.pipeline.augment import Augmentation, Crop
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.records import open_dataset

dataset = open_dataset(Path(sys.argv[1]))

def sum_labels(num_batches, memory_fraction):
    loader_options = LoaderOptions(threads=2, memory_fraction=memory_fraction)
    stream = training_batches(dataset, Augmentation(), input_size=224, batch_size=16, seed=0, loader_options=loader_options)
    return sum(next(stream).label.sum() for _ in range(num_batches))

sum_labels(1, 0.0)  # allocates the stacks of the threads
used = memory._read_proc_bytes(memory.PROC / "self/status", "VmData")
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20),) * 2)
print(sum_labels(2 * 1024 // 16, float(sys.argv[2])))
"""


def test_dataset_larger_than_memory(tmp_path):
    """Read 192 MB of pixels twice with 96 MB of free memory; the process fails only if it is forced to cache all pixels."""
    rng = np.random.default_rng(0)
    with create_dataset(tmp_path / "large", [str(i) for i in range(1024)], size=256) as writer:
        for i in range(1024):
            pixels = np.full((256, 256, 3), rng.integers(0, 256, 3), np.uint8)
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)

    def read_in_subprocess(memory_fraction):
        command = [sys.executable, "-c", READ_TWICE, str(tmp_path / "large"), str(memory_fraction)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert int(read_in_subprocess(0.25).stdout) == 2 * sum(range(1024))
    assert "MemoryError" in read_in_subprocess(1e6).stderr
