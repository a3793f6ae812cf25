"""The compilers for NVIDIA GPUs, for a machine that has none.

They lie in a folder of their own: were they among the environment's packages, JAX would look for a GPU each time it starts,
and complain that there is none.
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
"""Where XLA leaves the code of what it compiles."""


def set_up() -> None:
    """Makes XLA's CUDA compiler and NVIDIA's assembler importable, installing them on first use. To be called before JAX starts.

    Raises:
      SystemExit: with one line, if they cannot be had.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["LLVM_DISABLE_SYMBOLIZATION"] = "1"  # of stack traces that XLA makes and nobody sees: most of the time
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={DUMP} --xla_dump_emitter_re=.*"
    if _installed():
        return
    version = importlib.metadata.version("jax")
    wheels = [f"jax-cuda12-pjrt=={version}", "nvidia-cuda-nvcc-cu12"]
    sys.path.append(str(FOLDER))
    if not (FOLDER / f"jax_cuda12_pjrt-{version}.dist-info").is_dir():
        print(f"Installing {' and '.join(wheels)} into {FOLDER} (200 MB, once)", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        done = subprocess.run([*pip, "--no-deps", "--target", str(FOLDER), *wheels], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            sys.exit(f"kernel-check needs {' and '.join(wheels)}, which cannot be installed here: {reason}")
    importlib.invalidate_caches()


def assembler() -> Path:
    """NVIDIA's ptxas, of the version that XLA was installed with."""
    tool = _assembler()
    assert tool is not None
    return tool


def _installed() -> bool:
    """Whether the environment has them anyway, as one with JAX for CUDA 12 has."""
    plugins = importlib.util.find_spec("jax_plugins")
    return plugins is not None and importlib.util.find_spec("jax_plugins.xla_cuda12") is not None and _assembler() is not None


def _assembler() -> Path | None:
    for folder in map(Path, sys.path):
        for cuda in ("cuda_nvcc", "cu13"):
            if (tool := folder / "nvidia" / cuda / "bin" / "ptxas").exists():
                return tool
    return None
