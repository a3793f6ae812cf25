"""Decoded images are kept where they fit and nowhere else."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline import memory
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shards import new_dataset
from alexnet_jax.data.records import Record, open_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pictures"
    rng = np.random.default_rng(0)
    with new_dataset(path, [str(i) for i in range(40)], size=64) as writer:
        for i in range(40):
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)
    return open_dataset(path)


def test_images_are_kept_if_all_fit_in_the_share(dataset, monkeypatch):
    takes = 40 * 64 * 64 * 3
    monkeypatch.setattr("alexnet_jax.data.pipeline.loading.available_memory", lambda: 4 * takes)
    assert DecodedImages(dataset, "train", 64, memory_share=0.25).in_memory
    assert not DecodedImages(dataset, "train", 64, memory_share=0.24).in_memory
    assert DecodedImages(dataset, "train", 32, memory_share=0.07).in_memory


def test_kept_images_are_decoded_once(dataset, monkeypatch):
    decoded = []
    original = DecodedImages.pixels
    monkeypatch.setattr(DecodedImages, "pixels", lambda self, *args: decoded.append(args[0].name) or original(self, *args))
    one = LoaderOptions(threads=1)  # at the end of an epoch, two may come upon the same image
    batches = training_batches(dataset, Augmentation(image_size=64), input_size=48, batch_size=20, seed=0, readers=one)
    list(itertools.islice(batches, 10))
    assert sorted(decoded) == sorted(f"{i}.jpg" for i in range(40))


@pytest.mark.parametrize(("kind", "gigabytes"), [("RLIMIT_DATA", 2), ("RLIMIT_AS", 8)])
def test_a_limit_of_the_process_counts(kind, gigabytes):
    program = f"""
import resource
from alexnet_jax.data.pipeline.memory import available_memory
resource.setrlimit(resource.{kind}, ({gigabytes << 30}, {gigabytes << 30}))
print(available_memory())
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(out.stdout) < gigabytes << 30


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
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


LARGER = """
import resource, sys
from pathlib import Path
from alexnet_jax.data.pipeline import memory
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.records import open_dataset

dataset = open_dataset(Path(sys.argv[1]))

def sum_of_labels(batches, memory_share):
    readers = LoaderOptions(threads=2, memory_share=memory_share)
    stream = training_batches(dataset, Augmentation(), input_size=224, batch_size=16, seed=0, readers=readers)
    return sum(next(stream).label.sum() for _ in range(batches))

sum_of_labels(1, 0.0)  # so that threads have their stacks
used = memory._kilobytes(memory.PROC / "self/status", "VmData")
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20),) * 2)
print(sum_of_labels(2 * 1024 // 16, float(sys.argv[2])))
"""


def test_a_data_set_larger_than_memory_is_read(tmp_path):
    """192 MB of pixels in a process that may take 96: read through twice, unless it is told to keep them all the same."""
    rng = np.random.default_rng(0)
    with new_dataset(tmp_path / "large", [str(i) for i in range(1024)], size=256) as writer:
        for i in range(1024):
            pixels = np.full((256, 256, 3), rng.integers(0, 256, 3), np.uint8)
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)

    def reading(memory_share):
        command = [sys.executable, "-c", LARGER, str(tmp_path / "large"), str(memory_share)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert int(reading(0.25).stdout) == 2 * sum(range(1024))
    assert "MemoryError" in reading(1e6).stderr
