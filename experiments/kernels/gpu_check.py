"""Check the correctness of the kernels on a GPU, and measure operations and training steps in JAX and in PyTorch.

make gpu-check                      on a machine with a GPU; PyTorch is measured if it is installed
make gpu-check ARGS=--tiny          on any machine: the same code on small shapes; times are not meaningful
PYTHONPATH=src:kernels python3 experiments/kernels/gpu_check.py      outside this project's environment

The last command needs JAX, Flax, Optax, NumPy, jaxtyping and tyro. The part "training", which kills and resumes a training run,
needs all dependencies of the package and is skipped without them. Results are printed as they arrive and written to
experiments/results/gpu/<device>.json; the last line of the output is the same JSON object. Measurements that do not fit in
--minutes are skipped and listed in both. The exit status is 1 if a kernel is incorrect or a measurement fails.
"""

import argparse
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packages import install_hint, not_installed
from report import PARTS, Report, TimeBudget, print_now, run_measurements

PACKAGES = ("jax", "flax", "optax", "numpy", "jaxtyping", "tyro")
RESULTS = Path(__file__).parents[1] / "results" / "gpu"


def import_measurements() -> Any:
    """Return the module `measurements`; exit with a one-line message if one of its dependencies is missing."""
    if missing := not_installed(PACKAGES):
        sys.exit(f"error: {install_hint(missing)}")
    try:
        import measurements
    except ModuleNotFoundError as error:
        name = (error.name or str(error)).partition(".")[0]
        if name.startswith("alexnet"):
            sys.exit(f"error: cannot import {name}; run gpu-check in the root of the repository with PYTHONPATH=src:kernels")
        sys.exit(f"error: {install_hint([name])}")
    return measurements


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="use small shapes, which run on any device")
    parser.add_argument("--minutes", type=float, default=8, help="time budget in minutes (default: %(default)g)")
    parser.add_argument("--only", choices=PARTS, action="append", help="run only this part; can be repeated")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    options = parser.parse_args()

    # PyTorch and the subprocesses of the part "training" use the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if os.environ.get("JAX_PLATFORMS") in ("cuda", "gpu"):
        os.environ["JAX_PLATFORMS"] += ",cpu"  # the reference is computed on the CPU
    measurements = import_measurements()
    from alexnet_jax.cli.exit import exit_on_error

    with exit_on_error():
        return check(options, measurements)


def check(options: argparse.Namespace, measurements: Any) -> int:
    """Run the measurements, print and write the results, and return the exit status."""
    import jax

    from alexnet_jax.cpus import available_cpus
    from alexnet_kernels import triton

    device = jax.devices()[0]
    kernels = "triton.interpreted" if options.tiny else "triton"
    if not options.tiny and (reason := triton.unsupported_device(device)):
        if device.platform == "cpu":
            sys.exit(f"error: gpu-check {reason}; pass --tiny to run small shapes on any device")
        kernels = "xla"
        print_now(f"measuring without the kernels: triton {reason}")
    folder = options.out or (Path("runs") / "gpu-check" if options.tiny else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub(r'[^a-z0-9]+', '-', device.device_kind.lower())}.json"
    report = Report(file, device=device.device_kind, jax=jax.__version__, tiny=options.tiny)
    print_now(f"{device.device_kind}, JAX {jax.__version__}; writing results to {file}")
    budget = TimeBudget(60 * options.minutes)
    compilation = ThreadPoolExecutor(available_cpus())
    try:
        plan = measurements.plan(options.only or PARTS, report, budget, compilation, kernels=kernels, tiny=options.tiny)
        run_measurements(list(plan), report, budget, device_error=measurements.device_error)
    finally:
        compilation.shutdown(wait=False, cancel_futures=True)

    rows = report.results.get("correctness", [])
    for dtype in sorted({row["dtype"] for row in rows}):
        errors = [row["error"] for row in rows if row["dtype"] == dtype]
        print_now(f"largest relative error of {len(errors)} calls in {dtype}: {max(errors):.2g}")
    print_now(f"{len(report.results['failed'])} failures")
    print(json.dumps(report.results))
    return int(not report.succeeded)


if __name__ == "__main__":
    sys.exit(main())
