"""Measurements of gpu_check.py, in order of priority."""

import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial

import jax
import jax.numpy as jnp
import resumption
from network_rates import STEPS, jax_images_per_second, torch_images_per_second
from operations import (
    TOLERANCES,
    compile_operation,
    compile_reference,
    copy_bandwidth_fractions,
    operation_times,
    relative_error,
    torch_operation_times,
)
from packages import dependencies, install_hint, not_installed
from report import Measurement, Report, Skipped, TimeBudget, print_now
from timing import measure_copy_bandwidth, measure_matmul_flops

from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.model.layers import Conv, Dense, Dropout, LocalResponseNorm, MaxPool, ReLU
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import Precision
from alexnet_jax.training.flops import training_flops_per_image
from alexnet_kernels.specs import ALL_SPECS, OPERATIONS, SAMPLED_SPECS, Spec, conv1_spec, conv2_spec

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")
SMALL = Network(
    name="small",
    input_size=16,
    layers=(
        Conv(16, name="conv1", kernel=3, padding=(1, 1)), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Dropout(0.5), Dense(10, name="fc2", reads="all"),
    ),
)  # fmt: skip
"""Network with a compilation time of a few seconds."""


def device_error() -> str | None:
    """Return the error of a trivial computation, such as the one that all have after an illegal memory access, or None."""
    try:
        jax.block_until_ready(jnp.zeros(1) + 1)
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def plan(
    parts: Sequence[str], report: Report, budget: TimeBudget, compilation: Executor, *, kernels: str, tiny: bool
) -> Iterator[Measurement]:
    """Yield the measurements of the requested parts.

    Args:
      parts: names in `report.PARTS`.
      report: report to which the results are added.
      budget: time budget of the process.
      compilation: executor that compiles operations ahead of their measurements.
      kernels: implementation to check and compare with the others; "xla" if the GPU does not support the kernels.
      tiny: whether to use small shapes.
    """
    conv1 = [Spec("max_pool", (1, 5, 5, 8))] if tiny else [conv1_spec(op) for op in OPERATIONS]
    conv2 = [] if tiny else [conv2_spec(op) for op in OPERATIONS]
    dtypes = PRECISIONS[:1] if tiny else PRECISIONS  # each takes a third of a minute to compile in interpret mode
    checked = [*(layer(op, batch=2) for op in OPERATIONS for layer in (conv1_spec, conv2_spec)), *ALL_SPECS]
    batch_sizes = (2,) if tiny else (128, 1024)
    settings: list[tuple[Precision, int]] = [(precision, batch) for batch in batch_sizes for precision in PRECISIONS]

    if "correctness" in parts:
        yield from _correctness(report, kernels, SAMPLED_SPECS[::5] if tiny else checked, compilation)
    if "operations" in parts or "network" in parts:
        yield Measurement("device rates", "", partial(_device_rates, report, tiny))
    if "operations" in parts:
        yield from _operations(report, kernels, conv1, dtypes)
    if "network" in parts:
        yield from _network(report, kernels, *settings[0], tiny)
    if "operations" in parts:
        yield from _operations(report, kernels, conv2, dtypes)
    if "network" in parts:
        for precision, batch in settings[1:]:
            yield from _network(report, kernels, precision, batch, tiny)
    if "training" in parts:
        yield Measurement("training", "", partial(_training, report, budget, 1 if tiny else 28))
    if "operations" in parts and _measures_pytorch(tiny):
        yield from _pytorch_operations(report, kernels, [*conv1, *conv2], dtypes)


def _correctness(report: Report, kernels: str, specs: Sequence[Spec], compilation: Executor) -> Iterator[Measurement]:
    """Yield comparisons of the kernels with the reference implementation in float64."""

    def compare(spec: Spec, dtype: str, seed: int, run: Future, reference: Future) -> None:
        error = relative_error(spec, dtype, run.result(), reference.result(), seed)
        report.add("correctness", {"spec": str(spec), "dtype": dtype}, error=error)
        print_now(f"correctness, {spec} {dtype}: relative error {error:.2g}")
        if error > TOLERANCES[dtype]:
            report.fail(f"correctness {spec} {dtype}", f"relative error is {error:.2g}, expected at most {TOLERANCES[dtype]:g}")

    for seed, spec in enumerate(specs):
        reference = compilation.submit(compile_reference, spec)
        for dtype in TOLERANCES:
            run = compilation.submit(compile_operation, spec, dtype, kernels)
            yield Measurement("correctness", f"{spec} {dtype}", partial(compare, spec, dtype, seed, run, reference))


def _device_rates(report: Report, tiny: bool) -> None:
    """Measure copy bandwidth and matmul FLOP/s, to which operations and training steps are compared."""
    bandwidth = measure_copy_bandwidth(1 if tiny else 1024)
    flops = {precision: measure_matmul_flops(precision, 64 if tiny else 8192) for precision in PRECISIONS}
    report.set(copy_bytes_per_second=bandwidth, matmul_flops_per_second=flops)
    products = ", ".join(f"{each / 1e12:.1f} TFLOP/s {precision}" for precision, each in flops.items())
    print_now(f"copy bandwidth {bandwidth / 1e9:.0f} GB/s; matmul {products}")


def _operations(report: Report, kernels: str, specs: Sequence[Spec], dtypes: Sequence[Precision]) -> Iterator[Measurement]:
    """Yield the measurements of operation times in JAX."""

    def measure(spec: Spec, dtype: str) -> None:
        times = operation_times(spec, dtype, dict.fromkeys((kernels, "reference", "xla")))
        if bandwidth := report.results.get("copy_bytes_per_second"):
            fractions = copy_bandwidth_fractions(spec, dtype, times[kernels], bandwidth)
            report.add("operations", {"spec": str(spec), "dtype": dtype}, copy_bandwidth_fraction=fractions)
        _add_operation_times(report, spec, dtype, times, kernels)

    for spec in specs:
        for dtype in dtypes:
            yield Measurement("operations", f"{spec} {dtype}", partial(measure, spec, dtype))


def _pytorch_operations(
    report: Report, kernels: str, specs: Sequence[Spec], dtypes: Sequence[Precision]
) -> Iterator[Measurement]:
    """Yield the measurements of operation times in PyTorch."""

    def measure(spec: Spec, dtype: str) -> None:
        try:
            times = torch_operation_times(spec, dtype)
        except NotImplementedError as error:
            raise Skipped(f"not supported by PyTorch ({error})") from error
        _add_operation_times(report, spec, dtype, times, kernels)

    for spec in specs:
        for dtype in dtypes:
            yield Measurement("PyTorch operations", f"{spec} {dtype}", partial(measure, spec, dtype))


def _add_operation_times(report: Report, spec: Spec, dtype: str, times: dict[str, dict[str, float]], kernels: str) -> None:
    key = {"spec": str(spec), "dtype": dtype}
    known = report.add("operations", key, microseconds=times)["microseconds"]
    if kernels in known:
        ours = known[kernels]["forward_backward"]
        report.add("operations", key, speedup={name: known[name]["forward_backward"] / ours for name in known if name != kernels})
    each = ", ".join(f"{name} {time['forward']:.0f} / {time['forward_backward']:.0f}" for name, time in times.items())
    print_now(f"operation, {spec} {dtype}, forward / forward and backward, in microseconds: {each}")


def _network(report: Report, kernels: str, precision: Precision, batch_size: int, tiny: bool) -> Iterator[Measurement]:
    """Yield the measurements of training throughput with the kernels, without them, and in PyTorch."""
    network = SMALL if tiny else TWO_TOWER
    # Without "xla" as the alternative, an operation that the kernels do not support raises an error.
    implementations = ("triton", "xla") if tiny else ("triton",)
    rates = {
        "kernels": partial(jax_images_per_second, network, precision, batch_size, implementations),
        "xla": partial(jax_images_per_second, network, precision, batch_size, ("xla",)),
    }
    if kernels == "xla":
        del rates["kernels"]
    if _measures_pytorch(tiny) and not (tiny and precision == "bfloat16"):  # bfloat16 takes minutes on a CPU
        steps = 1 if tiny else STEPS
        rates["pytorch"] = partial(torch_images_per_second, precision, batch_size, compiled=False, steps=steps)
        if not tiny:
            rates["pytorch_compiled"] = partial(torch_images_per_second, precision, batch_size, compiled=True)

    def measure(name: str) -> None:
        key = {"network": network.name, "precision": precision, "batch": batch_size}
        rate = rates[name]()
        report.add("network", key, images_per_second={name: rate})
        flops = report.results.get("matmul_flops_per_second")
        if name == next(iter(rates)) and flops is not None:
            report.add("network", key, matmul_fraction=training_flops_per_image(network) * rate / flops[precision])
        print_now(f"training step, {network.name}, {precision}, batch {batch_size}, {name}: {rate:.0f} images/s")

    for name in rates:
        yield Measurement("network", f"{precision} batch {batch_size} {name}", partial(measure, name))


def _training(report: Report, budget: TimeBudget, epochs: int) -> None:
    """Kill and resume a training run."""
    if missing := not_installed(dependencies()):
        raise Skipped(install_hint(missing))
    try:
        row = resumption.train_kill_resume(epochs, budget.remaining - 5)
    except TimeoutError as error:
        raise Skipped("the time budget ran out; raise --minutes") from error
    report.add("training", row)
    print_now(f"training: {', '.join(f'{name} {value}' for name, value in row.items())}")


def _measures_pytorch(tiny: bool) -> bool:
    """Return whether PyTorch is installed and has a GPU, which is not required if `tiny`."""
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        import torch  # type: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # a shared library is missing or has an incompatible version
        print_now(f"skipped PyTorch, which cannot be imported: {error}")
        return False
    return tiny or torch.cuda.is_available()
