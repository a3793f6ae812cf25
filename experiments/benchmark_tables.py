"""Tables of the benchmarks in benchmarks/ and kernels/."""

import json

import paper_tables
from paper_tables import result, result_or_none, table


def bench() -> str:
    """Return a table of the speed of the training step on a CPU, compared with other implementations."""
    measured = result("bench")
    labels = {
        "ratio_vs_best": "speedup of one device over the fastest of the others",
        "memory_ratio_vs_best": "memory relative to that one",
        "two_device_ratio": "speedup of two devices over one",
    }
    batches = measured["batches"]
    names = [name for name, values in batches["32"].items() if isinstance(values, dict)]
    header = [f"training step, float32, {measured['cores']} CPU cores"]
    rows = {name: [name] for name in names} | {name: [label] for name, label in labels.items() if name in batches["32"]}
    for batch, values in batches.items():
        header += [f"batch {batch}, images/s", "compilation, s", "memory, GB"]
        for name, row in rows.items():
            if name == "memory_ratio_vs_best":
                row += ["", "", f"**{values[name]:.2f}**"]
            elif name in labels:
                row += [f"**{values[name]:.2f}**", "", ""]
            else:
                numbers = [values[name][key] for key in ("images_per_second", "compile_seconds", "memory_gb")]
                # A dash is for a first step that was faster than a later one.
                cells = ["—" if number < 0 else f"{number:.1f}" for number in numbers]
                row += [f"({cells[0]})", *cells[1:]] if values[name]["rounds"] == 1 else cells
    return table(header, list(rows.values()))


def layers() -> str:
    """Return a table of the time of each layer of the training step on a CPU."""
    times: dict[str, list[float]] = {}
    for row in result("bench")["layers"]:
        name, _, operation = row["layer"].partition("/")
        name = f"normalization and pooling after {name}" if operation == "pool" and name != "conv5" else name
        sums = times.setdefault(name, [0.0, 0.0])
        sums[0] += row["forward_ms"]
        sums[1] += row["backward_ms"]
    rows = [[name, *(f"{ms:.0f}" if ms else "" for ms in passes)] for name, passes in times.items()]
    rows.append(["total", *(f"{sum(passes[direction] for passes in times.values()):.0f}" for direction in (0, 1))])
    return table(["layer, batch 32, one device", "forward, ms", "backward, ms"], rows)


def kernel_bytes() -> str:
    """Return a table of the memory traffic of the GPU kernels, compared with the reference implementation."""
    rows = []
    for row in result("kernel_check")["bytes"]:
        traffic = [
            f"{row['megabytes']['reference'][p]:,} → {row['megabytes']['triton'][p]:,} ({row['ratio'][p]:.2f})"
            for p in ("forward", "backward")
        ]
        rows.append([f"`{row['op']}`", row["dtype"], *traffic])
    header = ["input [256, 55, 55, 96]; memory traffic in MB: `reference` → `triton` (ratio)", "type", "forward", "backward"]
    return table(header, rows)


def step_bytes() -> str:
    """Return a table of the memory traffic of the compiled training step on GPUs, by lowering of the towers."""
    steps = result("kernel_check")["steps"]
    by_lowering = ([row for row in steps if row["lowering"] == lowering] for lowering in ("separate", "grouped"))
    rows = []
    for separate, grouped in zip(*by_lowering, strict=True):
        pairs = [f"{separate[key]:,} → {grouped[key]:,}" for key in ("moved_mb", "kernels")]
        glue = [f"{row['glue_mb']:,.0f} ({row['glue_mb'] / row['moved_mb']:.1%})" for row in (separate, grouped)]
        rows.append([grouped["gpu"], grouped["precision"], pairs[0], " → ".join(glue), pairs[1]])
    header = ["GPU", "precision", "moved, MB: `separate` → `grouped`", "copies, MB", "kernels"]
    return table(header, rows)


def sent_bytes() -> str:
    """Return a table of the bytes that devices send in a training step, by form of the sum of gradients."""
    rows = result("kernel_check")["sent"]
    counts = sorted({row["devices"] for row in rows})
    sent: dict[tuple[str, bool], list[str]] = {}
    for row in rows:
        sent.setdefault((row["dtype"], row["sharded"]), []).append(f"{row['total_mb']:.0f}")
    names = [f"gradients in {dtype}" + (", `--shard-update`" if sharded else "") for dtype, sharded in sent]
    header = ["sent by each device, MB", *(f"{count} devices" for count in counts)]
    return table(header, [[name, *sizes] for name, sizes in zip(names, sent.values(), strict=True)])


def kernels_cpu() -> str:
    """Return a table of the time of the operations on a CPU, compared with the reference implementation."""
    measured = result("kernels_cpu")
    rows = []
    for op in ("response_norm", "max_pool", "norm_pool"):
        times = measured[f"{op}_milliseconds"]
        rows.append([f"`{op}`", f"{times['reference']:.0f}", f"{times['xla']:.0f}", f"{measured[f'{op}_speedup']:.1f}"])
    header = ["[32, 55, 55, 96] float32, forward and backward, 2 CPU cores", "`reference`, ms", "`xla`, ms", "speedup"]
    return table(header, rows)


def gpu() -> str:
    """Return a table of the speed of the kernels on each GPU in results/gpu/."""
    rows = []
    for file in sorted((paper_tables.RESULTS / "gpu").glob("*.json")):
        measured = json.loads(file.read_text())
        for row in measured.get("operations", []):
            bandwidth, speedup = row.get("copy_bandwidth_fraction", {}), row.get("speedup", {})
            fractions = [f"{bandwidth[p]:.0%}" if bandwidth.get(p) else "" for p in ("forward", "backward")]
            speedups = [f"{speedup[name]:.1f}" if name in speedup else "" for name in ("reference", "pytorch_compiled")]
            rows.append([measured["device"], f"`{row['spec']}`", row["dtype"], *fractions, *speedups])
    if not rows:
        return "Not measured on a GPU yet. Run `make gpu-check` on a GPU; it writes its result to `experiments/results/gpu/`."
    header = [
        "GPU",
        "operation",
        "type",
        "forward, fraction of copy bandwidth",
        "backward",
        "speedup over `reference`",
        "over PyTorch",
    ]
    return table(header, rows)


def kill() -> str:
    """Return a table that compares interrupted and resumed runs with an uninterrupted run."""
    measured = result("kill")
    rows = []
    for name in ("SIGKILL", "SIGTERM"):
        trial = measured[name]
        identical = all(trial[part] for part in ("state_identical", "log_identical", "result_identical"))
        counts = map(str, trial["during"].values())
        rows.append([f"{name}, {trial['times']} times", *counts, "bit-identical" if identical else "different"])
    header = ["a training interrupted by", *(f"while {activity}" for activity in measured["SIGKILL"]["during"])]
    return table([*header, "final state"], rows)


def loop() -> str:
    """Return a table of the speed of the training loop, compared with the training step alone."""
    if result_or_none("loop") is None:
        return "Not measured yet. Run `make experiment EXP=benchmarks/training_loop`."
    rows = [
        [
            f"`{name}`, batch {measured['batch']}",
            f"{measured['step']:,.0f}",
            f"{measured['loop']:,.0f}",
            f"{measured['ratio']:.1%}",
            f"{measured['matmul_fraction']:.1%}",
        ]
        for name, measured in result("loop").items()
    ]
    columns = ["training step alone, images/s", "training loop, images/s", "loop / step", "FLOP/s of the step / matrix products"]
    return table(["2 CPU cores", *columns], rows)


def cpu_settings() -> str:
    """Return a table of the time of a training step with each setting for CPUs undone."""
    networks = result("cpu_settings")["networks"]
    settings = {
        "memory": "memory returned to the operating system",
        "pages": "pages of 4 KB",
        "heaps": "one heap for all threads",
        "dispatch": "steps in a thread of JAX",
        "filtering": "convolutions in the direct form",
        "convolutions": "XLA's default library for convolutions",
        "vectors": "XLA's default width of vectors",
        "towers": "one grouped convolution of both towers, in the direct form",
    }
    rows = [["all settings", *(f"{measured['step_ms']:.0f} ms" for measured in networks.values())]]
    rows += [[text, *(f"× {measured[name]:.2f}" for measured in networks.values())] for name, text in settings.items()]
    return table(["training step", *(f"`{name}`, batch {measured['batch']}" for name, measured in networks.items())], rows)


def search() -> str:
    """Return a table of the time and memory of exact search in an index."""
    measured = result("search")
    size = f"{measured['images']:,} × {measured['features']:,} features, {measured['gigabytes']:.1f} GB"
    header = [f"{size}, {measured['cores']} CPU cores", "from disk, s", "from page cache, s", "CPU time, s"]
    rows = []
    for queries, seconds in measured["seconds"].items():
        name = "one query" if queries == "1" else f"{queries} queries at once"
        rows.append([name, *(f"{seconds[storage]:.1f}" for storage in ("disk", "page_cache", "page_cache_cpu"))])
    passes = measured["one_pass_seconds"]
    rows.append(["for comparison: reading the file once", f"{passes['disk']:.1f}", f"{passes['page_cache']:.1f}", ""])
    rows.append(["for comparison: the maximum of a memory map of it", "", f"{passes['page_cache, memory map']:.1f}", ""])
    memory = f"peak memory of the process: {measured['megabytes']['peak']} MB"
    rows.append([f"{memory}; load average of the machine: {measured['load']:.0f}", "", "", ""])
    return table(header, rows)


def code_search() -> str:
    """Return a table of the time and memory of search by binary codes in an index."""
    measured = result("code_search")
    size = f"{measured['images']:,} × {measured['features']:,} features, {measured['bits']}-bit codes"
    header = [
        f"{size}, {measured['cores']} CPU cores",
        "from disk, ms",
        "from page cache, ms",
        "fastest query, ms",
        "CPU time, ms",
    ]
    times, rows = measured["milliseconds"], []
    for candidates, row in ((name, row) for name, row in times.items() if name.isdigit()):
        cached = row["page_cache"]
        values = (row["disk"]["median"], cached["median"], cached["min"], cached["median_cpu"])
        rows.append([f"{int(candidates):,} candidates", *(f"{value:.0f}" for value in values)])
    memory = f"private memory of the process: {measured['private_megabytes']} MB"
    rows.append([f"{memory}; load average of the machine: {measured['load']:.0f}", *[""] * 4])
    rows.append([f"peak memory while the codes are built: {measured['build']['peak_megabytes']:,} MB", *[""] * 4])
    return table(header, rows)


TABLES = {
    "bench": bench,
    "layers": layers,
    "kernel bytes": kernel_bytes,
    "step bytes": step_bytes,
    "sent": sent_bytes,
    "kernels cpu": kernels_cpu,
    "gpu": gpu,
    "kill": kill,
    "loop": loop,
    "cpu settings": cpu_settings,
    "search": search,
    "code search": code_search,
}
