"""What only a GPU can tell: are the kernels right there, how fast are they, and what do they do for the training step?

make gpu-check                              on a machine with a GPU; PyTorch takes part if it is installed
make gpu-check ARGS=--tiny                  the same code on anything, on toy shapes: a rehearsal, whose times mean nothing
PYTHONPATH=src:kernels python3 experiments/kernels/gpu_check.py       where nothing can be installed

Needs JAX, Flax, Optax, NumPy and jaxtyping alone. Writes experiments/results/gpu/<device>.json as it goes, and prints it as
the last line. The exit status is 1 if a kernel is wrong.
"""

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from network_rates import network_rates
from timing import copy_bandwidth, jax_seconds, matmul_rate, torch_seconds

import alexnet_kernels
from alexnet_kernels.specs import EVERY, OPERATIONS, SOME, Spec, first_layer, second_layer

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
"""Largest ||ours - reference|| / ||reference||."""


def operation(spec: Spec, implementation: Any) -> Callable:
    return partial(getattr(alexnet_kernels, spec.op), implementation=implementation, **spec.settings)


def with_gradient(op: Callable, x, g):
    y, vjp = jax.vjp(op, x)
    return y, vjp(g)[0]


def error_of(spec: Spec, dtype: Any, kernels: str, seed: int) -> float:
    """Worst relative error of values and gradient against float64; infinite if runs differ or an element is not written."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(0, 40, spec.shape), dtype)
    y = jax.eval_shape(operation(spec, "reference"), x)
    g = jnp.asarray(rng.normal(size=y.shape), dtype)
    run = jax.jit(partial(with_gradient, operation(spec, kernels)))
    runs = []
    for _ in range(3):
        # What is freed here is what the next run's outputs get: an element that is not written stays NaN.
        jax.block_until_ready([jnp.full(n.shape, jnp.nan, n.dtype) for n in (x, y, x, y)])
        runs.append(jax.device_get(run(x, g)))
    same = all(np.array_equal(a, b, equal_nan=False) for later in runs[1:] for a, b in zip(runs[0], later, strict=True))
    if not same:
        return float("inf")
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = (jnp.asarray(np.asarray(each, np.float64)) for each in (x, g))
        expected = jax.device_get(with_gradient(operation(spec, "reference"), *wide))
    errors = (
        np.linalg.norm(np.asarray(ours, np.float64) - true) / np.linalg.norm(true)
        for ours, true in zip(runs[0], expected, strict=True)
    )
    return float(max(errors))


def correctness(kernels: str, tiny: bool) -> list[dict[str, Any]]:
    specs = list(SOME[::8] if tiny else EVERY)
    if not tiny:
        specs += [layer(op, batch=2) for op in OPERATIONS for layer in (first_layer, second_layer)]
    rows = []
    for number, spec in enumerate(specs):
        for dtype in ("float32", "bfloat16"):
            error = error_of(spec, dtype, kernels, seed=number)
            rows.append({"spec": str(spec), "dtype": dtype, "error": error, "ok": error <= TOLERANCE[dtype]})
            if not rows[-1]["ok"]:
                print(f"WRONG: {spec} {dtype}: relative error {error:.3g}", flush=True)
    worst = {dtype: max(row["error"] for row in rows if row["dtype"] == dtype) for dtype in TOLERANCE}
    print(f"correctness: {sum(row['ok'] for row in rows)} of {len(rows)} right; largest error {worst}", flush=True)
    return rows


def operand_bytes(spec: Spec, dtype: Any) -> dict[str, int]:
    """Bytes that each way must move at the least: what goes in and comes out, once."""
    x = jax.ShapeDtypeStruct(spec.shape, dtype)
    y = jax.eval_shape(operation(spec, "reference"), x)
    big, small, winners = x.size * x.dtype.itemsize, y.size * y.dtype.itemsize, y.size
    if spec.op == "response_norm":
        return {"forward": 2 * big, "backward": 3 * big}
    reads_x = big if spec.op == "norm_pool" else 0
    return {"forward": big + small + winners, "backward": reads_x + small + winners + big}


def speed(spec: Spec, dtype: str, kernels: str, bandwidth: float) -> dict[str, Any]:
    """Times of the kernels, of XLA's own form, of ours in XLA operations, and of PyTorch, in microseconds."""
    sets = 2 if np.prod(spec.shape) > 1 << 22 else 8
    keys = jax.random.split(jax.random.key(0), sets)
    xs = [(jax.random.normal(key, spec.shape, dtype) * 40,) for key in keys]
    y = jax.eval_shape(operation(spec, "reference"), xs[0][0])
    pairs = [(*x, jax.random.normal(key, y.shape, dtype)) for x, key in zip(xs, keys, strict=True)]
    row: dict[str, Any] = {"spec": str(spec), "dtype": dtype, "microseconds": {}}
    for name in (kernels, "reference", "xla"):
        op = operation(spec, name)
        one, both = jax_seconds(op, xs), jax_seconds(partial(with_gradient, op), pairs)
        row["microseconds"][name] = {"forward": 1e6 * one, "both": 1e6 * both}
    if importlib.util.find_spec("torch"):
        try:
            row["microseconds"] |= torch_speed(spec, dtype, sets)
        except NotImplementedError as error:  # bfloat16 on a CPU
            print(f"PyTorch cannot do {spec} in {dtype} here: {error}", flush=True)
    ours = row["microseconds"][kernels]
    needed = operand_bytes(spec, jnp.dtype(dtype))
    backward = ours["both"] - ours["forward"]
    row["share_of_copy_bandwidth"] = {
        "forward": needed["forward"] / (ours["forward"] * 1e-6) / bandwidth,
        "backward": needed["backward"] / (backward * 1e-6) / bandwidth if backward > 0 else None,
    }
    row["speedup"] = {name: times["both"] / ours["both"] for name, times in row["microseconds"].items() if name != kernels}
    print(
        f"{spec} {dtype}: {ours['forward']:.0f} + {backward:.0f} us, shares of the copy bandwidth "
        + ", ".join(f"{way} {share:.2f}" for way, share in row["share_of_copy_bandwidth"].items() if share)
        + "; both ways faster than "
        + ", ".join(f"{name} {factor:.2f}x" for name, factor in row["speedup"].items()),
        flush=True,
    )
    return row


def torch_speed(spec: Spec, dtype: str, sets: int) -> dict[str, dict[str, float]]:
    """PyTorch's times on the same shapes, channels last, eager and compiled."""
    import torch  # type: ignore[reportMissingImports]

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    import pytorch_two_tower

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n, height, width, channels = spec.shape
    function = getattr(pytorch_two_tower, spec.op)

    def images(*shape: int):
        x = 40 * torch.randn(*shape, device=device, dtype=getattr(torch, dtype))
        return x.to(memory_format=torch.channels_last)

    with torch.no_grad():
        y = function(images(1, channels, height, width)).shape
    xs = [(images(n, channels, height, width),) for _ in range(sets)]
    pairs = [(x.clone().requires_grad_(), images(n, *y[1:])) for (x,) in xs]
    times = {}
    for name, op in (("pytorch", function), ("pytorch_compiled", torch.compile(function))):

        def both(x, g, op=op):
            return torch.autograd.grad(op(x), x, g)

        with torch.no_grad():
            one = torch_seconds(op, xs)
        times[name] = {"forward": 1e6 * one, "both": 1e6 * torch_seconds(both, pairs)}
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="rehearse on toy shapes, on any device")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--only", choices=("correctness", "operations", "network"), action="append", help="some parts only")
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu" and not options.tiny:
        sys.exit(f"gpu-check needs a GPU, and JAX sees {device.device_kind}. On any machine: make gpu-check ARGS=--tiny")
    kernels = "triton.interpreted" if options.tiny else "triton"
    out = options.out or (Path("runs") / "gpu-check" if options.tiny else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{re.sub(r'[^a-z0-9]+', '-', device.device_kind.lower())}.json"
    result: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, "tiny": options.tiny}
    parts = options.only or ("correctness", "operations", "network")

    def keep(**more: Any) -> None:
        result.update(more)
        file.write_text(json.dumps(result, indent=1) + "\n")

    if "correctness" in parts:
        keep(correctness=correctness(kernels, options.tiny))
    bandwidth = copy_bandwidth(1 if options.tiny else 1024)
    peaks = {precision: matmul_rate(precision, 64 if options.tiny else 8192) for precision in ("float32", "bfloat16")}
    keep(copy_bytes_per_second=bandwidth, matmul_flops_per_second=peaks)
    print(f"{device.device_kind}: copies {bandwidth / 1e9:.0f} GB/s, matrix products {peaks} FLOP/s", flush=True)
    if "operations" in parts:
        specs = (
            [Spec("norm_pool", (1, 9, 9, 8))]
            if options.tiny
            else [f(op) for f in (first_layer, second_layer) for op in OPERATIONS]
        )
        rows = []
        for spec in [Spec("norm_pool", (1, 5, 5, 8))] if options.tiny else specs:
            for dtype in ("float32", "bfloat16"):
                rows.append(speed(spec, dtype, kernels, bandwidth))
                keep(operations=rows)
    if "network" in parts:
        rows = []
        for row in network_rates(peaks, tiny=options.tiny):
            rows.append(row)
            keep(network=rows)
    print(json.dumps(result))
    return int(not all(row["ok"] for row in result.get("correctness", [])))


if __name__ == "__main__":
    sys.exit(main())
