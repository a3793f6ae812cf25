"""Compiles for a GPU that is not there, down to machine code, and reads off what the code needs."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from hlo import moved_bytes
from jax.experimental import topologies
from jax.sharding import AbstractMesh, SingleDeviceSharding
from targets import GPUS
from toolchain import DUMP, assembler


@dataclass(frozen=True)
class Kernel:
    """What a kernel needs of a processor: registers of a thread; bytes of spilled registers, of shared memory."""

    name: str
    registers: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """A function compiled for a GPU.

    Attributes:
      kernels: its kernels written in Pallas.
      moved: bytes that its kernels read and write, each operand and result counted once.
      temporary: bytes of memory beside arguments and results.
    """

    kernels: list[Kernel]
    moved: int
    temporary: int


@cache
def device(gpu: str) -> Any:
    """Stands for a GPU; nothing can run on it."""
    return topologies.get_topology_desc(platform="cuda", target_config=GPUS[gpu].config, topology="1x1x1").devices[0]


def compile_for(gpu: str, function: Any, *shapes: Any, ours: re.Pattern[str]) -> Compiled:
    """Compiles a jitted function; `ours` matches the names of our kernels.

    Args:
      shapes: trees of `jax.ShapeDtypeStruct`; those without a sharding are put on the GPU.
    """
    for old in DUMP.iterdir():
        old.unlink()
    here = SingleDeviceSharding(device(gpu))
    placed = jax.tree.map(lambda x: x if x.sharding else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
    with targeting(gpu):
        lowered = function.lower(*placed)
    compiled = lowered.compile()
    kernels = [kernel for file in sorted(DUMP.glob("*.ptx")) for kernel in _assemble(file) if ours.match(kernel.name)]
    return Compiled(kernels, moved_bytes(compiled.as_text()), compiled.memory_analysis().temp_size_in_bytes)


@contextmanager
def targeting(gpu: str) -> Iterator[None]:
    """Tells Pallas, and our own choice of an implementation, what is compiled for."""
    target = device(gpu)
    with jax.default_device(target):
        if not hasattr(jax.sharding, "AbstractDevice"):  # JAX 0.10 asks the default device
            yield
            return
        abstract = jax.sharding.AbstractDevice(target.device_kind, target.core_count, platform=target.platform)
        with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=abstract)):
            yield


def _assemble(ptx: Path) -> list[Kernel]:
    """Kernels of a file, as NVIDIA's assembler reports them."""
    text = ptx.read_text()
    target = re.search(r"^\.target (\w+)", text, re.MULTILINE)
    if ".entry" not in text or target is None:
        return []
    command = [str(assembler()), "--verbose", f"--gpu-name={target[1]}", str(ptx), "--output-file", str(ptx.with_suffix(".bin"))]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    kernels = []
    for part in report.split("Compiling entry function")[1:]:
        name = re.search(r"'(\S+)'", part)
        assert name is not None
        kernels.append(
            Kernel(
                name[1],
                registers=_number(r"Used (\d+) registers", part),
                spill_bytes=_number(r"(\d+) bytes spill stores", part) + _number(r"(\d+) bytes spill loads", part),
                shared_bytes=_number(r"(\d+) bytes smem", part),
            )
        )
    return kernels


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
