"""Multi-process training: initialization, barriers, and consistency checks between processes.

JAX combines the devices of all processes into one global set, and every process runs the same program. With a single process, the
functions of this module return immediately.
"""

import hashlib
import json
import secrets
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.console import console
from alexnet_jax.errors import UserError
from alexnet_jax.parallel.mesh import to_global_array

INITIALIZATION_TIMEOUT_S = 300
"""Maximum time that processes wait for one another at the start, in seconds."""

SHUTDOWN_TIMEOUT_S = 30
"""Maximum time that processes wait for one another at the end, in seconds; if one has failed, the others are terminated then."""


@dataclass(frozen=True)
class DistributedOptions:
    """Arguments of `jax.distributed.initialize`. Run one process per host, or one per GPU, with the same other options.

    Attributes:
      distributed: detect the other processes from the environment of SLURM or Open MPI.
      coordinator_address: HOST:PORT of process 0, the same for all processes; required, together with `num_processes` and
        `process_id`, without SLURM or Open MPI.
      num_processes: number of processes.
      process_id: index of this process, from 0.
    """

    distributed: bool = False
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def initialize_distributed(options: DistributedOptions) -> None:
    """Initialize JAX's distributed runtime if the options request it; call before JAX initializes its backends.

    Raises:
      UserError: if the options are incomplete or the coordinator cannot be reached.
    """
    address, count, index = options.coordinator_address, options.num_processes, options.process_id
    given = [setting is not None for setting in (address, count, index)]
    if any(given) and not all(given):
        raise UserError("pass --coordinator-address, --num-processes and --process-id together")
    if not (any(given) or options.distributed) or jax.distributed.is_initialized():
        return
    if address is not None and count is not None and index is not None:
        if not 0 <= index < count:
            raise UserError(f"--process-id {index} is out of range for --num-processes {count}: number the processes from 0")
        _check_coordinator(address, wait=index > 0)
        console.print(f"process {index} of {count}, coordinator {address}", markup=False)
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            # A process with an explicit index uses all GPUs of its host. JAX's detection of SLURM would assign it only one.
            cluster_detection_method="deactivate" if any(given) else None,
            initialization_timeout=INITIALIZATION_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "--distributed requires a SLURM or Open MPI job, but none was detected: pass --coordinator-address, "
            "--num-processes and --process-id instead"
            if options.distributed
            else f"cannot connect the processes ({error}): pass --coordinator-address {address} to every process"
        ) from error


def _check_coordinator(address: str, *, wait: bool) -> None:
    """Check the format of the address and, with `wait`, connect to it, because JAX aborts a process that cannot connect."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator-address {address!r} is invalid: use HOST:PORT")
    deadline = time.monotonic() + INITIALIZATION_TIMEOUT_S
    while wait:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or error
                raise UserError(f"cannot connect to the coordinator at {address} ({reason}): start process 0 there") from error
            time.sleep(0.2)


def is_main_process() -> bool:
    """Return whether this is process 0, which prints and writes the files of the run."""
    return jax.process_index() == 0


def sync_processes(name: str) -> None:
    """Block until all processes have reached this barrier.

    Args:
      name: name of the barrier, the same in all processes.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def main_process_first(name: str) -> Iterator[None]:
    """Run the block in process 0 first, then in the other processes, which can use the files that process 0 wrote.

    If the block raises an exception in process 0, the others still run it, and report the same error instead of waiting.

    Args:
      name: name of the barrier, the same in all processes.
    """
    if not is_main_process():
        sync_processes(name)
    try:
        yield
    finally:
        if is_main_process():
            sync_processes(name)


def from_main_process(value: Any) -> Any:
    """Return the JSON-serializable value of process 0 in all processes."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(np.resize(content, size))))


def any_process(value: bool) -> bool:
    """Return whether `value` is true in a process."""
    return value if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(value)).any())


def check_same_settings(settings: Any) -> None:
    """Check that all processes have the same JSON-serializable settings.

    Raises:
      UserError: in all processes, if the settings differ.
    """
    digest = np.frombuffer(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()[:4], np.uint32)
    if jax.process_count() > 1 and len(set(multihost_utils.process_allgather(digest).flat)) > 1:
        raise UserError("settings or data differ between processes: pass the same options to every process, except --process-id")


def check_shared_filesystem(folder: Path) -> None:
    """Check that a folder is on a file system that all hosts share.

    Args:
      folder: existing folder, in which process 0 creates a temporary file that the other processes look for.

    Raises:
      UserError: in all processes, if the file does not exist for one of them.
    """
    if jax.process_count() == 1:
        return
    number = np.uint32(secrets.randbits(32))
    if is_main_process():
        (folder / f".{number}").touch()
    file = folder / f".{multihost_utils.broadcast_one_to_all(number)}"
    found = multihost_utils.process_allgather(np.bool_(file.exists()))
    if is_main_process():
        file.unlink()
    if not found.all():
        problem = f"{folder} is not the same folder in processes 0 and {found.argmin()}"
        raise UserError(f"{problem}: choose a --runs-dir on a file system that all hosts share")


class Request(IntEnum):
    """Action requested by a process after a step; the highest value across processes is taken."""

    NONE = 0
    SAVE = 1
    STOP = 2


class RequestConsensus:
    """All-reduce (max) of the requests of all processes, so that they save or stop after the same step.

    Signals and timers take effect at different steps in different processes. The maximum is computed on the devices after the
    current step and read some steps later, so that no process blocks.

    Args:
      mesh: device mesh.
      delay: number of steps after which the maximum is read, at least 1; the same in all processes.
    """

    def __init__(self, mesh: Mesh, *, delay: int = 1):
        self._local_devices = len(mesh.local_devices)
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        self._max = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._delay, self._pending = delay, deque[jax.Array]()

    def __call__(self, request: Request) -> Request:
        """Return the action that all processes take after this step: the highest request of all processes `delay` steps ago.

        With a single process, it is `request`.
        """
        if jax.process_count() == 1:
            return request
        action = Request.NONE
        if len(self._pending) == self._delay:
            action = Request(int(jax.device_get(self._pending.popleft())))
        if action is Request.NONE:
            requests = np.full(self._local_devices, request, np.int32)
            self._pending.append(self._max(to_global_array(requests, self._sharding)))
        else:
            self._pending.clear()  # drop requests made before this action, so that the action is not taken twice
        return action
