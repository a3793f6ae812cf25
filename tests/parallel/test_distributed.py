"""The same training on any number of devices, in one process and in two, from one checkpoint to another."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import alexnet_jax.training.run_logger
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dropout
from alexnet_jax.parallel import distributed as processes
from alexnet_jax.parallel.distributed import DistributedOptions
from alexnet_jax.training.loop import train
from tests.conftest import TINY_CONFIG, log
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]


def losses(folder):
    return {line["step"]: line["loss"] for line in log(folder) if "epoch" not in line}


def assert_same(found, expected, steps):
    assert list(found) == list(range(1, steps + 1))
    np.testing.assert_allclose([found[step] for step in found], [expected[step] for step in found], rtol=1e-5)


def test_a_run_goes_on_where_there_are_more_devices_or_fewer(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)
    layers = tuple(layer for layer in TINY.layers if not isinstance(layer, Dropout))
    experiment = replace(TINY_CONFIG, network=replace(TINY, layers=layers))
    run, alone = options.runs_dir / "run", options.runs_dir / "alone"
    for epochs, devices in enumerate((2, 4, 1, 2), 1):
        train("tiny", replace(experiment, epochs=epochs), replace(options, devices=devices, run=run))
    train("tiny", replace(experiment, epochs=4), replace(options, devices=1, run=alone))
    assert_same(losses(run), losses(alone), 40)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (DistributedOptions(num_processes=2), "--coordinator-address, --num-processes and --process-id go together"),
        (DistributedOptions(coordinator_address="host:1", num_processes=2, process_id=2), "there is no process 2 of 2"),
        (
            DistributedOptions(coordinator_address="host", num_processes=2, process_id=1),
            "'host' is no address: give .* HOST:PORT",
        ),
        (DistributedOptions(coordinator_address="127.0.0.1:9", num_processes=2, process_id=1), "nobody answers at 127.0.0.1:9"),
        (
            DistributedOptions(coordinator_address="no.such.host.invalid:9", num_processes=2, process_id=1),
            "nobody answers at no.such",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_processes_that_cannot_meet_say_why(told, message, options, monkeypatch):
    monkeypatch.setattr(processes, "INITIALIZATION_TIMEOUT_S", 0)
    with pytest.raises(UserError, match=message):
        train("tiny", TINY_CONFIG, replace(options, processes=told))


def free_port(ports):
    """One of `ports` that nobody listens at; 0 stands for any."""
    for port in ports:
        with socket.socket() as found:
            try:
                found.bind(("localhost", port))
            except OSError:
                continue
            return found.getsockname()[1]
    raise AssertionError("no port is free")


@dataclass(frozen=True)
class Place:
    """DistributedOptions, each with a number of CPU devices, started by hand or by SLURM."""

    processes: int
    devices: int
    slurm: bool = False

    def start(self, arguments, cache, others=()):
        """The processes; those but the first get `others` besides."""
        environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
        command = [sys.executable, "-m", "alexnet_jax", "train", "tests/without_dropout.py", "--devices", str(self.devices)]
        port = free_port(range(61440, 65536) if self.slurm else [0])
        started = []
        for process in range(self.processes):
            more = []
            if self.slurm:
                job = {"JOB_ID": port - 61440, "STEP_NODELIST": "localhost", "NTASKS": self.processes, "PROCID": process}
                environment |= {f"SLURM_{name}": str(value) for name, value in {**job, "LOCALID": process}.items()}
                more = ["--distributed"]
            elif self.processes > 1:
                more = ["--coordinator-address", f"localhost:{port}", "--num-processes", str(self.processes)]
                more += ["--process-id", str(process)]
            whole = [*command, *more, *arguments, *(others if process else ())]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(whole, cwd=ROOT, env=environment, **pipes))
        return started

    def run(self, arguments, cache):
        for process in self.start(arguments, cache):
            _, said = process.communicate(timeout=600)
            assert process.returncode == 0, said


ALONE = Place(1, 1)
OTHERS = [Place(1, 8), Place(2, 1), Place(2, 2, slurm=True)]


@pytest.fixture
def arguments(photos, tmp_path):
    return ["--data", str(photos), "--data-dir", str(photos.parent / "data"), "--runs-dir", str(tmp_path / "runs")]


@pytest.mark.slow
def test_eight_devices_and_two_processes_train_alike_and_go_on_for_one_another(arguments, tmp_path):
    """With two processes of one device each, the towers are in two processes; with two of two, the batch is."""
    ALONE.run([*arguments, "--run", str(tmp_path / "alone"), "--epochs", "3"], tmp_path)
    for place, next_place in zip(OTHERS, [*OTHERS[1:], ALONE], strict=True):
        run = tmp_path / str(place)
        for epochs, there in ((2, place), (3, next_place)):
            there.run([*arguments, "--run", str(run), "--epochs", str(epochs)], tmp_path)
            mesh = json.loads((run / "config.json").read_text())["mesh"]
            assert np.prod(list(mesh.values())) == there.processes * there.devices
        assert_same(losses(run), losses(tmp_path / "alone"), 15)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step_and_go_on(arguments, tmp_path):
    """Asked by SIGTERM to one of them, then to both."""
    place, run = Place(2, 1), tmp_path / "run"
    arguments += ["--checkpoint-seconds", "0.5"]
    for asked in ([1], [0, 1]):
        both = place.start([*arguments, "--run", str(run), "--epochs", "4000"], tmp_path)
        assert any(line.startswith("epoch ") for line in both[0].stderr)
        for process in asked:
            both[process].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=600)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert "stopped at step" in said[0]
        assert "stopped at step" not in said[1], "one tells"
        stopped = max(losses(run))
        assert str(stopped) in os.listdir(run / "checkpoints")
    epochs = max(losses(run)) // 5 + 1
    for there, folder in ((place, run), (ALONE, tmp_path / "alone")):
        there.run([*arguments, "--run", str(folder), "--epochs", str(epochs)], tmp_path)
    assert_same(losses(run), losses(tmp_path / "alone"), 5 * epochs)


@pytest.mark.slow
def test_two_processes_begin_with_what_one_has_learned(arguments, tmp_path):
    ALONE.run([*arguments, "--run", str(tmp_path / "source"), "--epochs", "1"], tmp_path)
    begin = [*arguments, "--epochs", "1", "--init-from", str(tmp_path / "source")]
    for there, folder in ((Place(2, 1), "both"), (ALONE, "alone")):
        there.run([*begin, "--run", str(tmp_path / folder)], tmp_path)
    assert_same(losses(tmp_path / "both"), losses(tmp_path / "alone"), 5)
    assert losses(tmp_path / "both")[1] < losses(tmp_path / "source")[1]


@pytest.mark.slow
def test_different_settings_are_refused_by_all(arguments, tmp_path):
    place = Place(2, 1)
    both = place.start(arguments, tmp_path, others=["--seed", "1"])
    for process in both:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "error: the processes differ in their settings or data" in said


@pytest.mark.slow
def test_without_a_launcher_a_process_has_to_be_told(arguments, tmp_path):
    (alone,) = Place(1, 1).start([*arguments, "--distributed"], tmp_path)
    _, said = alone.communicate(timeout=600)
    assert alone.returncode == 1
    assert said.startswith("error: neither SLURM nor Open MPI has started this process")
    assert said.count("\n") == 1
