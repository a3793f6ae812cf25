"""Installation of NVIDIA's GPU compilers on a machine without a GPU.

The compilers are installed in a separate folder. If they were in the Python environment, JAX would search for a GPU at every
start and warn that there is none.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(sys.prefix) / "kernel-check"

_dump = tempfile.TemporaryDirectory(prefix="kernel-check-")
DUMP = Path(_dump.name)
"""Folder in which XLA dumps the compiled code."""


def set_up() -> None:
    """Make XLA's CUDA compiler and NVIDIA's assembler available; install them on first use.

    Call this function before importing JAX.

    Raises:
      SystemExit: with a one-line message, if they cannot be installed.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["LLVM_DISABLE_SYMBOLIZATION"] = "1"  # otherwise, XLA spends most of its time on stack traces
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={DUMP} --xla_dump_emitter_re=.*"
    if _installed():
        return
    version = importlib.metadata.version("jax")
    wheels = [f"jax-cuda12-pjrt=={version}", "nvidia-cuda-nvcc-cu12"]
    sys.path.append(str(FOLDER))
    if not (FOLDER / f"jax_cuda12_pjrt-{version}.dist-info").is_dir():
        print(f"installing {' and '.join(wheels)} in {FOLDER} (200 MB, only once)", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        process = subprocess.run([*pip, "--no-deps", "--target", str(FOLDER), *wheels], stderr=subprocess.PIPE, text=True)
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or ["pip failed"])[-1]
            sys.exit(f"error: cannot install {' and '.join(wheels)} for kernel-check ({reason})")
    importlib.invalidate_caches()


def assembler() -> Path:
    """Return the path of NVIDIA's assembler, ptxas, in the version installed for XLA."""
    tool = _find_assembler()
    assert tool is not None
    return tool


def _installed() -> bool:
    """Return whether the Python environment contains the compilers, as with JAX for CUDA 12."""
    plugins = importlib.util.find_spec("jax_plugins")
    return (
        plugins is not None and importlib.util.find_spec("jax_plugins.xla_cuda12") is not None and _find_assembler() is not None
    )


def _find_assembler() -> Path | None:
    for folder in map(Path, sys.path):
        for cuda in ("cuda_nvcc", "cu13"):
            if (tool := folder / "nvidia" / cuda / "bin" / "ptxas").exists():
                return tool
    return None
