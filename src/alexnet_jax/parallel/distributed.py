"""Several processes that train as one: how they meet, and what they have to agree on.

JAX makes one set of devices of those that the processes have, and all of them run the same program. A process alone needs
nothing of this: what follows then returns at once.
"""

import hashlib
import json
import secrets
import socket
import time
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
"""Seconds that processes wait for one another at the start."""

SHUTDOWN_TIMEOUT_S = 30
"""And at the end, before those that wait for one that has failed are ended too."""


@dataclass(frozen=True)
class DistributedOptions:
    """Which of several processes this is; one for each host, or one for each GPU. The names are `jax.distributed.initialize`'s.

    Attributes:
      distributed: this is one of several, started by SLURM or Open MPI, which tell the rest.
      coordinator_address: HOST:PORT of process 0, the same for all; with the next two, where nobody tells.
      num_processes: how many there are.
      process_id: which of them this is, from 0 on.
    """

    distributed: bool = False
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def initialize_distributed(processes: DistributedOptions) -> None:
    """Connects this process with the others, if there are to be any; call it before JAX looks at its devices.

    Raises:
      UserError: for settings that say too little, or a coordinator that does not answer.
    """
    address, count, index = processes.coordinator_address, processes.num_processes, processes.process_id
    told = [setting is not None for setting in (address, count, index)]
    if any(told) and not all(told):
        raise UserError("--coordinator-address, --num-processes and --process-id go together")
    if not (any(told) or processes.distributed) or jax.distributed.is_initialized():
        return
    if address is not None and count is not None and index is not None:
        if not 0 <= index < count:
            raise UserError(f"there is no process {index} of {count}: --process-id counts from 0")
        _find(address, listening=index > 0)
        console.print(f"process {index} of {count}, which meet at {address}", markup=False)
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            # A process that was told who it is has all GPUs of its host; on SLURM, JAX would leave it one.
            cluster_detection_method="deactivate" if any(told) else None,
            initialization_timeout=INITIALIZATION_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "neither SLURM nor Open MPI has started this process: in place of --distributed, give --coordinator-address, "
            "--num-processes and --process-id"
            if processes.distributed
            else f"the processes cannot meet at {address}: {error}"
        ) from error


def _find(address: str, *, listening: bool) -> None:
    """Looks for the coordinator first, because JAX ends a process that does not find it."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{address!r} is no address: give --coordinator-address HOST:PORT")
    last = time.monotonic() + INITIALIZATION_TIMEOUT_S
    while listening:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > last:
                why = error.strerror or error
                raise UserError(f"nobody answers at {address} ({why}): is process 0 running there?") from error
            time.sleep(0.2)


def is_main_process() -> bool:
    """Whether this is the process that prints, and writes what only one can."""
    return jax.process_index() == 0


def sync_processes(doing: str) -> None:
    """Returns when every process has come as far as this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(doing)


@contextmanager
def main_process_first(doing: str) -> Iterator[None]:
    """Process 0 runs the block alone, then the others: what it has made, they find."""
    if not is_main_process():
        sync_processes(doing)
    yield
    if is_main_process():
        sync_processes(doing)


def check_same_settings(settings: Any) -> None:
    """Compares what the processes are to compute, as JSON.

    Raises:
      UserError: in all processes, if it is not the same.
    """
    digest = np.frombuffer(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()[:4], np.uint32)
    if jax.process_count() > 1 and len(set(multihost_utils.process_allgather(digest).flat)) > 1:
        raise UserError("the processes differ in their settings or data: only --process-id may")


def check_shared_filesystem(folder: Path) -> None:
    """Makes sure that a folder is on a file system that all hosts share.

    Raises:
      UserError: in all processes, if one does not see what process 0 has written.
    """
    if jax.process_count() == 1:
        return
    number = np.uint32(secrets.randbits(32))
    if is_main_process():
        (folder / f".{number}").touch()
    mark = folder / f".{multihost_utils.broadcast_one_to_all(number)}"
    seen = multihost_utils.process_allgather(np.bool_(mark.exists()))
    if is_main_process():
        mark.unlink()
    if not seen.all():
        there = f"{folder}, as process {seen.argmin()} sees it, is not that of process 0"
        raise UserError(f"{there}: choose a --runs-dir on a file system that all hosts share")


class Request(IntEnum):
    """What a process may want after a step; the greatest wish is granted."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class RequestConsensus:
    """Makes one decision of what each process wishes for: a signal or a clock comes to each at another step.

    Wishes are exchanged by the devices, behind the step under way, and heard after the next one, so that nobody waits.
    """

    def __init__(self, mesh: Mesh):
        self._devices = len(mesh.local_devices)
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        self._greatest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._under_way: jax.Array | None = None

    def __call__(self, wish: Request) -> Request:
        """What is to be done, by all of them: the greatest wish of the step before, or in a process alone, `wish`."""
        if jax.process_count() == 1:
            return wish
        heard = Request.NOTHING if self._under_way is None else Request(int(jax.device_get(self._under_way)))
        if heard is Request.NOTHING:
            wishes = np.full(self._devices, wish, np.int32)
            self._under_way = self._greatest(to_global_array(wishes, self._sharding))
        else:
            self._under_way = None  # a wish that is being granted was not meant twice
        return heard
