"""Tests that numbers of threads follow the affinity of the process, not the number of CPUs of the machine."""

import os
import threading
import time
from typing import Any

import grain
import pytest

from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.pipeline import batches
from alexnet_jax.data.pipeline.batches import LoaderOptions
from alexnet_jax.data.prepare.convert import map_in_threads
from alexnet_jax.errors import UserError
from alexnet_jax.parallel import runtime

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the operating system has no affinity")


@pytest.fixture
def one_of_64_cpus(monkeypatch):
    """Limit this thread, and those that it starts, to one CPU of a machine that claims to have 64."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def thread_of(job):
    time.sleep(0.01)  # a second thread, if there was one, would take the next job
    return threading.get_ident()


def test_cpus_of_the_affinity_are_counted(one_of_64_cpus):
    assert available_cpus() == 1


def test_all_cpus_are_counted_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cpus() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


def test_images_are_prepared_and_loaded_in_one_thread_on_one_cpu(one_of_64_cpus):
    assert len(set(map_in_threads(thread_of, range(8), None))) == 1
    assert len(set(map_in_threads(thread_of, range(8), 4))) > 1, "an explicit number of threads is kept"
    images: Any = grain.MapDataset.range(8).map(thread_of)
    assert len(set(batches._prefetch(images, LoaderOptions()))) == 1
    assert len(set(batches._prefetch(images, LoaderOptions(threads=4)))) > 1


def test_xla_has_threads_for_the_cpus_that_may_be_used(one_of_64_cpus, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    runtime.configure_cpu(2)
    assert os.environ["PJRT_NPROC"] == "18", "16 threads that may be blocked and 2 others, not 64"
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


@pytest.mark.parametrize("devices", [0, 9, 500])
def test_number_of_virtual_devices_is_limited(one_of_64_cpus, devices):
    """Otherwise XLA aborts because not all of hundreds of devices reach a collective in time."""
    with pytest.raises(UserError, match=f"--devices must be at least 1 and at most 8, not {devices}"):
        runtime.configure_cpu(devices)


def test_xla_flags_in_a_file_are_kept(one_of_64_cpus, monkeypatch, tmp_path):
    monkeypatch.setenv("PJRT_NPROC", "18")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    runtime.configure_cpu(2)
    assert os.environ["XLA_FLAGS"] == str(tmp_path / "flags")
