"""Installation of the compilers for NVIDIA GPUs on a machine without one.

They are installed into a separate folder. If they were installed into the environment, JAX would search for a GPU at every start
and warn that there is none.
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
"""Folder into which XLA writes the compiled code."""


def set_up() -> None:
    """Make XLA's CUDA compiler and NVIDIA's assembler importable; install them on first use.

    Call this before JAX is imported.

    Raises:
      SystemExit: with a message of one line, if they cannot be installed.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["LLVM_DISABLE_SYMBOLIZATION"] = "1"  # XLA would spend most of its time on stack traces
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={DUMP} --xla_dump_emitter_re=.*"
    if _installed():
        return
    version = importlib.metadata.version("jax")
    wheels = [f"jax-cuda12-pjrt=={version}", "nvidia-cuda-nvcc-cu12"]
    sys.path.append(str(FOLDER))
    if not (FOLDER / f"jax_cuda12_pjrt-{version}.dist-info").is_dir():
        print(f"Installing {' and '.join(wheels)} into {FOLDER} (200 MB, once)", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        process = subprocess.run([*pip, "--no-deps", "--target", str(FOLDER), *wheels], stderr=subprocess.PIPE, text=True)
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or ["pip failed"])[-1]
            sys.exit(f"error: cannot install {' and '.join(wheels)}, which kernel-check needs: {reason}")
    importlib.invalidate_caches()


def assembler() -> Path:
    """Return the path of NVIDIA's ptxas, of the version installed for XLA."""
    tool = _find_assembler()
    assert tool is not None
    return tool


def _installed() -> bool:
    """Return whether the environment already has the compilers, as with JAX for CUDA 12."""
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
