"""Compilation of JAX functions to GPU machine code on a machine without a GPU, with a report of resource use."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from hlo import Traffic, traffic
from jax.experimental import topologies
from jax.sharding import AbstractMesh, SingleDeviceSharding
from targets import GPUS
from toolchain import DUMP, assembler


@dataclass(frozen=True)
class Kernel:
    """Resources used by a compiled kernel.

    Attributes:
      name: name of the kernel.
      registers: registers per thread.
      spill_bytes: bytes of register spills, loads and stores, per thread.
      shared_bytes: bytes of shared memory per block.
    """

    name: str
    registers: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """Function compiled for a GPU.

    Attributes:
      kernels: Pallas kernels of the function.
      traffic: memory traffic.
      temporary: bytes of temporary memory, excluding arguments and results.
    """

    kernels: list[Kernel]
    traffic: Traffic
    temporary: int


@cache
def devices(gpu: str, count: int) -> list[Any]:
    """Return devices that represent GPUs of one host for compilation; nothing can be executed on them.

    Args:
      gpu: name of a GPU in `GPUS`.
      count: number of devices.
    """
    return topologies.get_topology_desc(platform="cuda", target_config=GPUS[gpu].config, topology=f"1x1x{count}").devices


def device(gpu: str) -> Any:
    """Return the only device of `devices(gpu, 1)`."""
    return devices(gpu, 1)[0]


def compile_for(gpu: str, function: Any, *shapes: Any, kernel_names: re.Pattern[str]) -> Compiled:
    """Compile a jitted function for a GPU.

    Args:
      gpu: name of a GPU in `GPUS`.
      function: jitted function.
      *shapes: arguments of the function, as trees of `jax.ShapeDtypeStruct`; leaves without a sharding are placed on the GPU.
      kernel_names: pattern that matches the names of the kernels to report.
    """
    for file in DUMP.iterdir():
        file.unlink()
    sharding = SingleDeviceSharding(device(gpu))
    arguments = jax.tree.map(lambda x: x if x.sharding else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    with targeting(gpu):
        lowered = function.lower(*arguments)
    compiled = lowered.compile()
    kernels = [kernel for file in sorted(DUMP.glob("*.ptx")) for kernel in _assemble(file) if kernel_names.match(kernel.name)]
    return Compiled(kernels, traffic(compiled.as_text()), compiled.memory_analysis().temp_size_in_bytes)


@contextmanager
def targeting(gpu: str) -> Iterator[None]:
    """Set a GPU as the compilation target of Pallas and of the dispatch in `alexnet_kernels`, in a `with` block."""
    target = device(gpu)
    with jax.default_device(target):
        if not hasattr(jax.sharding, "AbstractDevice"):  # JAX 0.10 uses the default device as the target
            yield
            return
        abstract = jax.sharding.AbstractDevice(target.device_kind, target.core_count, platform=target.platform)
        with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=abstract)):
            yield


def _assemble(ptx: Path) -> list[Kernel]:
    """Assemble a PTX file, and return the resource use of its kernels as reported by NVIDIA's assembler."""
    text = ptx.read_text()
    target = re.search(r"^\.target (\w+)", text, re.MULTILINE)
    if ".entry" not in text or target is None:
        return []
    command = [str(assembler()), "--verbose", f"--gpu-name={target[1]}", str(ptx), "--output-file", str(ptx.with_suffix(".bin"))]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    kernels = []
    for section in report.split("Compiling entry function")[1:]:
        name = re.search(r"'(\S+)'", section)
        assert name is not None
        kernels.append(
            Kernel(
                name[1],
                registers=_number(r"Used (\d+) registers", section),
                spill_bytes=_number(r"(\d+) bytes spill stores", section) + _number(r"(\d+) bytes spill loads", section),
                shared_bytes=_number(r"(\d+) bytes smem", section),
            )
        )
    return kernels


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0
