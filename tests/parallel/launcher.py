"""Launcher of commands that run in several processes on this machine."""

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import process_environment

ROOT = Path(__file__).parents[2]


def free_port(ports):
    """Return the first free port of `ports`; 0 selects any free port."""
    for port in ports:
        with socket.socket() as listener:
            try:
                listener.bind(("localhost", port))
            except OSError:
                continue
            return listener.getsockname()[1]
    raise AssertionError("no port is free")


@dataclass(frozen=True)
class Launcher:
    """Launcher of a command in one or several processes.

    Attributes:
      processes: number of processes.
      devices: number of CPU devices per process.
      slurm: set the environment variables of SLURM instead of passing explicit process ids.
    """

    processes: int
    devices: int
    slurm: bool = False

    def start(self, arguments, other_process_arguments=()):
        """Start the processes, and return them; `other_process_arguments` are appended for all but the first."""
        environment = process_environment()
        command = [sys.executable, "-m", "alexnet_jax", *map(str, arguments), "--devices", str(self.devices)]
        port = free_port(range(61440, 65536) if self.slurm else [0])
        started = []
        for process in range(self.processes):
            process_arguments = []
            if self.slurm:
                job = {"JOB_ID": port - 61440, "STEP_NODELIST": "localhost", "NTASKS": self.processes, "PROCID": process}
                environment |= {f"SLURM_{name}": str(value) for name, value in {**job, "LOCALID": process}.items()}
                process_arguments = ["--distributed"]
            elif self.processes > 1:
                process_arguments = ["--coordinator-address", f"localhost:{port}", "--num-processes", str(self.processes)]
                process_arguments += ["--process-id", str(process)]
            full_command = [*command, *process_arguments, *(other_process_arguments if process else ())]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(full_command, cwd=ROOT, env=environment, **pipes))
        return started

    def run(self, arguments):
        """Run the command, check that it succeeds, and return the output on stdout and stderr of each process."""
        outputs = []
        for process in self.start(arguments):
            outputs.append(process.communicate(timeout=600))
            assert process.returncode == 0, outputs[-1][1]
        return outputs
