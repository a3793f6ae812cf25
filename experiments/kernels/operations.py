"""Relative errors and execution times of single operations, for gpu_check.py and compile_check.py."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import jax_seconds_per_call, torch_seconds_per_call

import alexnet_kernels
from alexnet_kernels.max_pool import pixels_past_edge, pooled_size
from alexnet_kernels.specs import Spec

TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
"""Maximum relative error, ||result - reference|| / ||reference||, of values and gradients."""
RUNS = 3
"""Number of runs of a kernel, whose results must be identical."""

WithGradient = Callable[[Any, Any], tuple[Any, Any]]
"""Function of an input and an output gradient that returns the output and the input gradient."""


def operation(spec: Spec, implementation: Any) -> Callable:
    """Return the operation as a function of its input."""
    return partial(getattr(alexnet_kernels, spec.op), implementation=implementation, **spec.settings)


def argument_shapes(spec: Spec, dtype: Any) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of the input, and of the output and its gradient."""
    x = jax.ShapeDtypeStruct(spec.shape, dtype)
    return x, jax.eval_shape(operation(spec, "reference"), x)


def with_gradient(spec: Spec, implementation: Any) -> WithGradient:
    """Return the operation and its gradient as one function."""

    def run(x, g):
        y, vjp = jax.vjp(operation(spec, implementation), x)
        return y, vjp(g)[0]

    return run


def compile_operation(spec: Spec, dtype: str, implementation: str) -> WithGradient:
    """Compile an operation and its gradient for the default device."""
    return jax.jit(with_gradient(spec, implementation)).lower(*argument_shapes(spec, dtype)).compile()


def compile_reference(spec: Spec) -> WithGradient:
    """Compile the reference implementation of an operation and its gradient for the CPU, in float64."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return compile_operation(spec, "float64", "reference")


def relative_error(spec: Spec, dtype: str, run: WithGradient, reference: WithGradient, seed: int) -> float:
    """Return the larger of the relative errors of output and gradient, on random inputs.

    Args:
      spec: operation and input shape.
      dtype: dtype of the inputs.
      run: compiled operation to check.
      reference: compiled reference implementation in float64.
      seed: random seed of the inputs.

    Raises:
      ArithmeticError: if the results of `RUNS` runs differ, or contain elements that are NaN or were not written.
    """
    rng = np.random.default_rng(seed)
    shapes = argument_shapes(spec, dtype)
    x, g = (jnp.asarray(rng.normal(0, std, each.shape), dtype) for std, each in zip((40, 1), shapes, strict=True))
    if spec.op == "norm_pool":  # rounding decides which of two nearly equal values of a window gets the gradient
        g = jnp.where(_nearly_equal_maxima(spec, x), jnp.zeros((), dtype), g)
    results = []
    for _ in range(RUNS):
        # Fill the memory that the allocator will reuse for the outputs, so that elements the kernel does not write stay NaN.
        jax.block_until_ready([jnp.full(each.shape, jnp.nan, dtype) for each in (*shapes, *shapes)])
        results.append(jax.device_get(run(x, g)))
    for later in results:
        if not all(np.array_equal(a, b, equal_nan=False) for a, b in zip(results[0], later, strict=True)):
            raise ArithmeticError("results of several runs differ, or contain elements that are NaN or were not written")
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        expected = jax.device_get(reference(*(jnp.asarray(np.asarray(each, np.float64)) for each in (x, g))))
    pairs = zip(results[0], expected, strict=True)
    return float(max(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in pairs))


def _nearly_equal_maxima(spec: Spec, x: Any) -> np.ndarray:
    """Return for each window of `norm_pool` whether its two largest values are different, but equal up to rounding in float32."""
    pool = {name: spec.settings.get(name, default) for name, default in (("window", 3), ("stride", 2))}
    norm = {name: value for name, value in spec.settings.items() if name not in pool}
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        y = alexnet_kernels.response_norm(jax.nn.relu(np.asarray(x, np.float64)), implementation="reference", **norm)
    window, stride = pool["window"], pool["stride"]
    counts = [pooled_size(n, window, stride) for n in y.shape[-3:-1]]
    ends = [pixels_past_edge(n, window, stride) for n in y.shape[-3:-1]]
    padded = np.pad(np.asarray(y), [(0, 0)] * (y.ndim - 3) + [(0, end) for end in ends] + [(0, 0)], constant_values=-np.inf)

    def pixels_at(row: int, column: int) -> np.ndarray:
        """Return the pixel at an offset of every window."""
        rows, columns = (slice(i, i + count * stride, stride) for i, count in zip((row, column), counts, strict=True))
        return padded[..., rows, columns, :]

    pixels = [pixels_at(*offset) for offset in product(range(window), repeat=2)]
    second, first = np.partition(np.stack(pixels), -2, axis=0)[-2:]
    return (first != second) & (first - second < 1e-5 * first)


def operation_times(spec: Spec, dtype: str, implementations: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the times of the forward pass and of both passes in JAX, in microseconds, by implementation."""
    xs, pairs = _inputs(spec, lambda key, shape: jax.random.normal(key, shape, dtype))
    return {
        name: {
            "forward": 1e6 * jax_seconds_per_call(operation(spec, name), xs),
            "forward_backward": 1e6 * jax_seconds_per_call(with_gradient(spec, name), pairs),
        }
        for name in implementations
    }


def torch_operation_times(spec: Spec, dtype: str) -> dict[str, dict[str, float]]:
    """Return the times of the forward pass and of both passes in PyTorch, eager and compiled, in microseconds.

    Inputs are in channels-last layout.

    Raises:
      NotImplementedError: if PyTorch does not support the dtype on this device.
    """
    import torch  # type: ignore[reportMissingImports]

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    import pytorch_two_tower

    device = "cuda" if torch.cuda.is_available() else "cpu"
    function = getattr(pytorch_two_tower, spec.op)

    def random(_, shape: tuple[int, ...]) -> Any:
        n, height, width, channels = shape
        x = torch.randn(n, channels, height, width, device=device, dtype=getattr(torch, dtype))
        return x.to(memory_format=torch.channels_last)

    xs, pairs = _inputs(spec, random)
    pairs = [(x.requires_grad_(), g) for x, g in pairs]
    times = {}
    for name, op in (("pytorch", function), ("pytorch_compiled", torch.compile(function))):

        def forward_backward(x, g, op=op):
            return torch.autograd.grad(op(x), x, g)

        with torch.no_grad():
            forward = torch_seconds_per_call(op, xs)
        times[name] = {"forward": 1e6 * forward, "forward_backward": 1e6 * torch_seconds_per_call(forward_backward, pairs)}
    return times


def copy_bandwidth_fractions(spec: Spec, dtype: str, microseconds: dict[str, float], bandwidth: float) -> dict[str, float | None]:
    """Return the minimum memory traffic per second as a fraction of the copy bandwidth, for each pass.

    The minimum traffic is one read of each input and one write of each output. Max pooling also saves one byte per output, the
    position of the maximum. A value is None if the difference of the measured times is not positive.

    Args:
      spec: operation and input shape.
      dtype: dtype of the inputs.
      microseconds: times of the forward pass, "forward", and of both passes, "forward_backward".
      bandwidth: copy bandwidth, in bytes/s.
    """
    x, y = argument_shapes(spec, dtype)
    x_bytes, y_bytes, argmax_bytes = x.size * x.dtype.itemsize, y.size * y.dtype.itemsize, y.size
    if spec.op == "response_norm":
        traffic = {"forward": 2 * x_bytes, "backward": 3 * x_bytes}
    else:
        rereads = x_bytes if spec.op == "norm_pool" else 0
        traffic = {"forward": x_bytes + y_bytes + argmax_bytes, "backward": rereads + y_bytes + argmax_bytes + x_bytes}
    seconds = {
        "forward": 1e-6 * microseconds["forward"],
        "backward": 1e-6 * (microseconds["forward_backward"] - microseconds["forward"]),
    }
    return {name: traffic[name] / seconds[name] / bandwidth if seconds[name] > 0 else None for name in traffic}


def _inputs(spec: Spec, random: Callable[[Any, tuple[int, ...]], Any]) -> tuple[list[tuple], list[tuple]]:
    """Return two sets of arguments for the forward pass and two for both passes, so that no call finds its inputs in a cache."""
    x, y = argument_shapes(spec, "float32")
    keys = jax.random.split(jax.random.key(0))
    xs = [(random(key, x.shape) * 40,) for key in keys]
    return xs, [(*x, random(key, y.shape)) for x, key in zip(xs, keys, strict=True)]
