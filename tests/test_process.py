"""Tests that the library changes no setting of the process, and trains in a thread after other JAX work."""

import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import pytest

import alexnet_jax as alexnet
from alexnet_jax.cli.process import _print_warning
from alexnet_jax.errors import UserError
from alexnet_jax.parallel.runtime import configure_cpu
from alexnet_jax.training.preemption import StopOnSignal
from tests.conftest import TINY_CONFIG, StopAfter, process_environment
from tests.process_settings import process_settings
from tests.tiny import TINY

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys, threading
from pathlib import Path
# Dependencies first: some of them change filters or the environment when they are imported.
import absl.logging, flax.linen, grain, jax, matplotlib.pyplot, optax, orbax.checkpoint, rich.console, scipy.sparse, tyro
from tests.process_settings import process_settings

def check(when):
    now = process_settings()
    for name, value in before.items():
        assert now[name] == value, (when, name, now[name], value)

before = process_settings()
import alexnet_jax as alexnet
import alexnet_jax.cli.main
from tests.tiny import TINY

public = {name: getattr(alexnet, name) for name in alexnet.__all__}
check("import")
photos, folder = map(Path, sys.argv[1:])
model = alexnet.initialize(TINY, classes=["above", "below"], image_size=32)
photo = next(photos.rglob("*.jpg"))
assert isinstance(alexnet.Predictor(model).classify([photo])[0][0], alexnet.ClassProbability)
assert alexnet.Ensemble([model, model])([photo]).shape == (1, 2)
assert isinstance(model, alexnet.TrainedModel) and isinstance(model.network, alexnet.Network)
augmentation = alexnet.Augmentation(transforms=(alexnet.RandomCrop(), alexnet.RandomFlip(), alexnet.PCAColor()))
assert all(isinstance(transform, alexnet.Transform) for transform in augmentation.transforms)
assert alexnet.SOURCE_AUGMENTATION != augmentation
for network in (alexnet.TWO_TOWER, alexnet.ONE_GPU, alexnet.SIXTH_CONV, alexnet.SOURCE_145):
    assert alexnet.NETWORKS[network.name] is network
assert issubclass(alexnet.DivergedError, alexnet.UserError)
alexnet.save(model, folder / "model.safetensors")
assert alexnet.load(folder / "model.safetensors").classes == model.classes
try:
    alexnet.import_weights(folder / "model.safetensors")
except alexnet.UserError as error:
    assert "already in the alexnet-jax layout" in str(error)
assert alexnet.load_config("quickstart").network is alexnet.NETWORKS["quickstart"] is alexnet.QUICKSTART
check("predict, save and load")
"""

TRAINING = """
config = alexnet.TrainConfig(TINY, epochs=1, batch_size=8, learning_rate=0.002, augmentation=alexnet.Augmentation(image_size=32))
options = alexnet.Options(data=str(photos), data_dir=photos.parent / "data", runs_dir=folder / "runs")
results = []
thread = threading.Thread(target=lambda: results.append(alexnet.train("tiny", config, options)))
thread.start()
thread.join()
(result,) = results
assert isinstance(result, alexnet.TrainResult) and result.finished
alexnet.write_training_report(result.run)
assert (result.run / "report.html").exists()
assert alexnet.load(result.run).step == result.step == 10
check("train and report")
"""


@pytest.mark.parametrize("program", [PROGRAM, pytest.param(PROGRAM + TRAINING, marks=pytest.mark.slow)], ids=["predict", "train"])
def test_library_leaves_a_new_process_alone(program, photos, tmp_path):
    """Use every public name in a process with one CPU device, which must not be reconfigured."""
    command = [sys.executable, "-c", program, str(photos), str(tmp_path)]
    environment = process_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (", 1 device (cpu)\n" in done.stderr) == (program != PROGRAM)


def test_training_in_a_thread_after_a_predictor_leaves_the_process_alone(options, rng):
    model = alexnet.initialize(TINY, classes=["above", "below"], image_size=32)
    images = rng.integers(0, 256, (2, 32, 32, 3), "uint8")
    alexnet.Predictor(model)(images)
    before = process_settings()
    results = []

    def train(**arguments):
        config = replace(TINY_CONFIG, epochs=1)
        thread = threading.Thread(target=lambda: results.append(alexnet.train("tiny", config, options, **arguments)))
        thread.start()
        thread.join()
        return results.pop()

    stopped = train(should_stop=StopAfter(2))
    assert (stopped.finished, stopped.step) == (False, 2)
    result = train()
    assert (result.finished, result.step, result.run) == (True, 10, stopped.run)
    alexnet.Predictor(alexnet.load(result.run))(images)
    after = process_settings()
    assert {name: after[name] for name in before} == before


def test_configure_cpu_too_late_is_an_error():
    configure_cpu(4)
    with pytest.raises(UserError, match=r"JAX already uses 4 CPU devices.*: call configure_cpu\(devices=8\) before JAX is"):
        configure_cpu(8)


@pytest.mark.parametrize(("name", "value"), [("jax_disable_jit", True), ("jax_numpy_rank_promotion", "raise")])
def test_settings_for_debugging_are_refused(name, value, run_command):
    previous = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        error = run_command("evaluate", "run", code=1).err
    finally:
        jax.config.update(name, previous)
    assert error == f"error: {name.upper()} is {value}, which the commands do not support: unset it\n"


def test_warnings_of_libraries_are_printed_in_one_line(capsys):
    _print_warning(UserWarning("first\n  second"), UserWarning, "file.py", 3)
    _print_warning(UserWarning("Error reading persistent compilation cache entry for 'jit_f': x"), UserWarning, "file.py", 3)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: first second"
    assert second.endswith(f"'jit_f': x): delete {jax.config.jax_compilation_cache_dir}")  # type: ignore[reportAttributeAccessIssue]


@pytest.fixture
def default_sigint():
    """Python's own handler, also if pytest is a background job of a shell, which ignores SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_signal_requests_a_stop_once_training_has_asked(default_sigint):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopOnSignal(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with StopOnSignal() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


BIND = """
import os, sys, jax
from pathlib import Path
from alexnet_jax.parallel.runtime import bind_threads, configure_cpu
configure_cpu(2, data_parallel=False)
jax.devices()
bind_threads(Path(sys.argv[1]))
for task in os.listdir("/proc/self/task"):
    if Path(f"/proc/self/task/{task}/comm").read_text().startswith("tf_XLAEigen"):
        print(*sorted(os.sched_getaffinity(int(task))))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no threads")
@pytest.mark.parametrize("virtual", [True, False])
def test_threads_are_bound_on_virtual_machines_only(virtual, tmp_path):
    cpuinfo, cpus = tmp_path / "cpuinfo", sorted(os.sched_getaffinity(0))
    cpuinfo.write_text("flags : fpu hypervisor lahf_lm" if virtual else "flags : fpu lahf_lm")
    command = [sys.executable, "-c", BIND, str(cpuinfo)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=process_environment())
    threads = [[int(cpu) for cpu in line.split()] for line in process.stdout.splitlines()]
    assert len(threads) >= 2
    if virtual and len(threads) >= len(cpus):
        assert all(len(bound) == 1 for bound in threads)
        assert sorted({cpu for bound in threads for cpu in bound}) == cpus
    else:
        assert all(bound == cpus for bound in threads)


RETAIN = """
import resource
from pathlib import Path
from alexnet_jax.parallel.runtime import retain_freed_memory

retain_freed_memory()
pages = bytearray(b"x") * 2**26
print(*(line.split()[1] for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHugePages" in line))
del pages
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
pages = bytearray(b"x") * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these options")
def test_freed_memory_is_retained_in_huge_pages():
    command = [sys.executable, "-c", RETAIN]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=process_environment())
    huge_kilobytes, faults = map(int, process.stdout.split())
    assert faults < 100  # 16,384 pages of 4 kB
    if HUGE_PAGES.exists() and "[never]" not in HUGE_PAGES.read_text():
        assert huge_kilobytes >= 2**15


HEAPS = """
import ctypes, sys
import jax
from alexnet_jax.parallel.runtime import configure_cpu

configure_cpu(int(sys.argv[1]), data_parallel=False)
x = jax.numpy.ones((1024, 1024))
jax.block_until_ready(x @ x)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w")))
libc.fflush(None)
print("asynchronous" if jax.config.values["jax_cpu_enable_async_dispatch"] else "in the calling thread")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these options")
@pytest.mark.parametrize("devices", [1, 2])
def test_functions_run_in_the_calling_thread_and_threads_have_their_own_heaps_on_one_device(devices):
    command = [sys.executable, "-c", HEAPS, str(devices)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=process_environment())
    assert (process.stdout.count("<heap nr=") > 1) == (devices == 1)
    assert process.stdout.endswith("in the calling thread\n" if devices == 1 else "asynchronous\n")
