"""Tests that losses are equal on any number of devices and processes, and that checkpoints can be resumed on any of them."""

import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

import alexnet_jax.training.run_logger
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Dropout
from alexnet_jax.parallel import distributed
from alexnet_jax.parallel.distributed import DistributedOptions, Request, RequestConsensus
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, cpu_mesh, read_log
from tests.parallel.launcher import Launcher
from tests.tiny import TINY


def losses(folder):
    return {line["step"]: line["loss"] for line in read_log(folder) if "epoch" not in line}


def assert_same_losses(actual, expected, steps):
    assert list(actual) == list(range(1, steps + 1))
    np.testing.assert_allclose([actual[step] for step in actual], [expected[step] for step in actual], rtol=1e-5)


def test_resume_with_different_number_of_devices(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)
    layers = tuple(layer for layer in TINY.layers if not isinstance(layer, Dropout))
    config = replace(TINY_CONFIG, network=replace(TINY, layers=layers))
    run, single_device = options.runs_dir / "run", options.runs_dir / "single_device"
    for epochs, devices in enumerate((2, 4, 1, 2), 1):
        train("tiny", replace(config, epochs=epochs), replace(options, devices=devices, run=run))
    train("tiny", replace(config, epochs=4), replace(options, devices=1, run=single_device))
    assert_same_losses(losses(run), losses(single_device), 40)


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (DistributedOptions(num_processes=2), "pass --coordinator-address, --num-processes and --process-id together"),
        (
            DistributedOptions(coordinator_address="host:1", num_processes=2, process_id=2),
            "--process-id 2 is out of range for --num-processes 2",
        ),
        (
            DistributedOptions(coordinator_address="host", num_processes=2, process_id=1),
            "--coordinator-address 'host' is invalid: use HOST:PORT",
        ),
        (
            DistributedOptions(coordinator_address="127.0.0.1:9", num_processes=2, process_id=1),
            "cannot connect to the coordinator at 127.0.0.1:9",
        ),
        (
            DistributedOptions(coordinator_address="no.such.host.invalid:9", num_processes=2, process_id=1),
            "cannot connect to the coordinator at no.such",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_initialization_errors(processes, message, options, monkeypatch):
    monkeypatch.setattr(distributed, "INITIALIZATION_TIMEOUT_S", 0)
    with pytest.raises(UserError, match=message):
        train("tiny", TINY_CONFIG, replace(options, processes=processes))


@pytest.mark.parametrize("delay", [1, 3])
def test_request_is_granted_once_and_as_many_steps_later_as_set(delay, monkeypatch):
    mesh = cpu_mesh(TINY, 2, split=False)
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    consensus = RequestConsensus(mesh, delay=delay)
    requests = [Request.NONE, Request.SAVE, Request.SAVE, *[Request.NONE] * 9]
    granted = [step for step, request in enumerate(requests) if consensus(request) is Request.SAVE]
    assert granted == [1 + delay]


@pytest.fixture
def arguments(photos, tmp_path):
    config = ["train", "tests/without_dropout.py"]
    return [*config, "--data", str(photos), "--data-dir", str(photos.parent / "data"), "--runs-dir", str(tmp_path / "runs")]


@pytest.fixture
def run_single_device(run_command, monkeypatch):
    """Return a function that runs a command on one device in this process, which costs less than a new process."""
    monkeypatch.setattr(alexnet_jax.training.run_logger, "LOG_EVERY", 1)  # as the import of tests/without_dropout.py does
    return lambda arguments: run_command(*arguments, "--devices", "1")


@pytest.mark.slow
def test_losses_do_not_depend_on_devices_and_processes_or_resumption(arguments, run_single_device, tmp_path):
    """Resume a run with one process, two that split the towers, and two that split the batch and the update, an epoch each."""
    run, single_device = tmp_path / "run", tmp_path / "single_device"
    launchers = (Launcher(1, 8), Launcher(2, 1), Launcher(2, 2, slurm=True), None)
    for epochs, launcher in enumerate(launchers, 1):
        update = ["--shard-update", "--loss-delay", "3"] if launcher is not None and launcher.slurm else []
        start = run_single_device if launcher is None else launcher.run
        start([*arguments, "--run", str(run), "--epochs", str(epochs), *update])
        mesh = json.loads((run / "config.json").read_text())["mesh"]
        assert np.prod(list(mesh.values())) == (1 if launcher is None else launcher.processes * launcher.devices)
    run_single_device([*arguments, "--run", str(single_device), "--epochs", str(len(launchers))])
    assert_same_losses(losses(run), losses(single_device), 5 * len(launchers))


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step_and_resume(arguments, run_single_device, tmp_path):
    """Send SIGTERM to one process; after resuming, send SIGTERM to both."""
    launcher, run = Launcher(2, 1), tmp_path / "run"
    arguments += ["--checkpoint-seconds", "0.5"]
    for signaled in ([1], [0, 1]):
        both = launcher.start([*arguments, "--run", str(run), "--epochs", "4000"])
        assert any(line.startswith("epoch ") for line in both[0].stderr)
        for process in signaled:
            both[process].send_signal(signal.SIGTERM)
        stderr = [process.communicate(timeout=600)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert "Stopped at step" in stderr[0]
        assert "Stopped at step" not in stderr[1], "only process 0 prints"
        stopped = max(losses(run))
        assert str(stopped) in os.listdir(run / "checkpoints")
    epochs = max(losses(run)) // 5 + 1
    for start, folder in ((launcher.run, run), (run_single_device, tmp_path / "single_device")):
        start([*arguments, "--run", str(folder), "--epochs", str(epochs)])
    assert_same_losses(losses(run), losses(tmp_path / "single_device"), 5 * epochs)


@pytest.mark.slow
def test_two_processes_initialize_from_a_trained_network(arguments, run_single_device, tmp_path):
    run_single_device([*arguments, "--run", str(tmp_path / "source"), "--epochs", "1"])
    init_arguments = [*arguments, "--epochs", "1", "--init-from", str(tmp_path / "source")]
    for start, folder in ((Launcher(2, 1).run, "both"), (run_single_device, "single_device")):
        start([*init_arguments, "--run", str(tmp_path / folder)])
    assert_same_losses(losses(tmp_path / "both"), losses(tmp_path / "single_device"), 5)
    assert losses(tmp_path / "both")[1] < losses(tmp_path / "source")[1]


@pytest.mark.slow
def test_different_settings_are_an_error_in_all_processes(arguments, tmp_path):
    launcher = Launcher(2, 1)
    both = launcher.start(arguments, other_process_arguments=["--seed", "1"])
    for process in both:
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "error: settings or data differ between processes" in stderr


@pytest.mark.slow
def test_distributed_without_slurm_or_open_mpi_is_an_error(arguments, tmp_path):
    (process,) = Launcher(1, 1).start([*arguments, "--distributed"])
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 1
    assert stderr.startswith("error: --distributed requires a SLURM or Open MPI job, but none was detected")
    assert stderr.count("\n") == 1


def test_an_error_in_process_0_does_not_keep_the_others_waiting(monkeypatch):
    reached = []
    monkeypatch.setattr(distributed, "sync_processes", reached.append)
    with pytest.raises(UserError, match="no data"), distributed.main_process_first("prepare data"):
        raise UserError("no data")
    assert reached == ["prepare data"]


@pytest.mark.slow
def test_all_processes_use_the_form_of_the_step_that_process_0_has_measured(arguments, tmp_path):
    """Tune two processes that hold a tower each, whose measurements end differently."""
    command = [arguments[0], "tests/tuned_by_process.py", *arguments[2:], "--run", str(tmp_path / "run"), "--epochs", "1"]
    stderr = []
    for process in Launcher(2, 1).start([*command, "--tune", "again"]):
        stderr.append(process.communicate(timeout=600)[1])
        assert process.returncode == 0, stderr
    assert [text.count(" ms per step") for text in stderr] == [2, 0], "only process 0 prints"
    for text in stderr:
        assert re.findall("step with conv1 (.*)", text)[-1] == "space_to_depth"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["tuning"]["form"]["conv1"] == "space_to_depth"
