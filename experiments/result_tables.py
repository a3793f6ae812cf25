"""Write the tables in README.md and docs/ from experiments/results/*.json, so that no number in them is typed by hand.

    make readme

The table NAME replaces the text between `<!-- NAME -->` and `<!-- end -->`.
"""

import json
import re
from pathlib import Path

import data_tables
import paper_tables
from paper_tables import result, result_or_none, table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def quickstart() -> str:
    """Return a table of the result of `make train` with the quickstart config."""
    run, linear = result("quickstart"), result("linear_baseline")
    return table(
        ["`make train`", "measured"],
        [
            ["validation top-1 accuracy", f"{1 - run['top1_error']:.1%} of {run['images']} images"],
            ["accuracy of a linear classifier on the same images", f"{max(linear.values()):.1%}"],
            [
                "time, including compilation and evaluation",
                f"{run['seconds'] / 60:.1f} minutes for {run['epochs']} epochs",
            ],
            ["time spent waiting for data", f"{run['data_wait_fraction']:.1%}"],
            ["throughput", f"{run['images_per_second']:.0f} images/s on 2 CPU cores, jax {run['jax']}"],
        ],
    )


def photos_by_epoch() -> str:
    """Return a table of the validation errors of full-size networks on photos of clothes, by epoch."""
    measured = result("photos")
    epochs = [1, 2, 4, 6, 8, 10, 12, 16, 20, 24]
    rows = []
    for name in ("two_tower", "source_145"):
        errors = measured["runs"][name]["validation_top1_error"]
        rows.append(
            [f"`{name}`", *(f"{errors[epoch - 1]:.1%}" if epoch <= len(errors) else paper_tables.DASH for epoch in epochs)]
        )
    rows.append(["always predicting the most frequent class", *[f"{measured['majority_class_error']:.1%}"] * len(epochs)])
    return table(["validation top-1 error after epoch", *map(str, epochs)], rows)


def photos() -> str:
    """Return a table of the test errors of the finished runs on photos of clothes, and their times."""
    measured = result_or_none("photos")
    if measured is None:
        return "Not measured yet."
    rows = []
    for name, run in measured["runs"].items():
        if run["finished"]:
            errors = [f"{run['top1_error'][views]:.1%}" for views in ("center", "ten")]
            rows.append([f"`{name}`", str(run["epochs"]), f"{run['minutes']:.0f} minutes", *errors])
    photos = f"{measured['images']:,} photos of clothes in {measured['classes']} classes, {measured['test_images']} to test"
    header = f"{photos}, {measured['cores']} CPU cores"
    return table([header, "epochs", "time", "error, center view", "ten views"], rows)


def initial_weights() -> str:
    """Return a table of the validation errors of a three-layer network, by initial weights and learning rate."""
    measured = result("initial_weights")
    rows = []
    for name, errors in measured["errors"].items():
        logits = f"{measured['initial_logits'][name]:.1f}"
        rows.append([name, logits, *("diverged" if error is None else f"{error:.1%}" for error in errors)])
    rates = [f"rate {rate:g}" for rate in measured["rates"]]
    return table(["standard deviation σ of the weights", "logits at the start", *rates], rows)


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
    header = ["GPU", "precision", "moved, MB: `separate` → `grouped`", "glue, MB", "kernels"]
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
    for file in sorted((ROOT / "experiments" / "results" / "gpu").glob("*.json")):
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
        [f"`{name}`", f"{rates['step']:.1f}", f"{rates['loop']:.1f}", f"{rates['ratio']:.1%}"]
        for name, rates in result("loop").items()
    ]
    return table(["batch 32, 2 CPU cores", "training step alone, images/s", "training loop, images/s", "loop / step"], rows)


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


def code_recall() -> str:
    """Return a table of the recall of search by binary codes in an index of images."""
    measured = result("code_recall")
    images = f"`{measured['layer']}` of `{measured['network']}`, {measured['images']:,} images, {measured['bits']}-bit codes"
    rows = [[row["method"], *(f"{value:.1%}" for value in row["recall"].values())] for row in measured["codes"]]
    return table([images, *(f"{int(count):,} candidates" for count in measured["codes"][0]["recall"])], rows)


def codes() -> str:
    """Return a table of the quality and speed of search by binary codes."""
    measured = result("codes")
    k, times = measured["neighbors"], measured["milliseconds a query"]
    features = f"`{measured['network']}`, {measured['features']} features of {measured['images']:,} images"
    recall = [f"recall of the {k} nearest among the first {k}", "among the first 100"]
    header = [features, "bits", *recall, "neighbors of the same class", f"ms per query, {times['images']:,} images"]
    same_class = f"{measured['same class, exact']:.1%}"
    rows = [["exact search", f"{32 * measured['features']:,}", "100%", "100%", same_class, str(times["exact"])]]
    for row in measured["codes"]:
        fractions = [f"{row[name]:.1%}" for name in (f"recall among {k}", "recall among 100", "same class")]
        rows.append([row["method"], str(row["bits"]), *fractions, str(times[f"{row['bits']} bits"])])
    return table(header, rows)


def transfer() -> str:
    """Return a table of the errors of fine-tuning, compared with training from scratch."""
    measured = result("transfer")
    rows = []
    for method, errors in measured["test_error"].items():
        mean = f"{sum(errors) / len(errors):.1%}"
        if method == "scratch":
            rows.append([method, mean, ""])
            continue
        gain = measured["better_than_scratch_by"][method]
        interval = "" if gain["low"] is None else f" ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        rows.append([method, mean, f"{100 * gain['mean']:+.1f}{interval}"])
    pretrained, trained = measured["pretrained_on"], measured["trained_on"]
    header = (
        f"trained on {trained['images']} photos of {len(trained['classes'])} classes of clothes, "
        f"pretrained on {pretrained['images']:,} photos of other classes"
    )
    seeds = f"error, mean of {len(measured['seeds'])} seeds"
    return table([header, seeds, "improvement over scratch, points (95% interval)"], rows)


TABLES = {
    "search": search,
    "code search": code_search,
    "code recall": code_recall,
    "codes": codes,
    "photos": photos,
    "quickstart": quickstart,
    "transfer": transfer,
    "kill": kill,
    "loop": loop,
    "photos-by-epoch": photos_by_epoch,
    "initial weights": initial_weights,
    "bench": bench,
    "layers": layers,
    "kernel bytes": kernel_bytes,
    "step bytes": step_bytes,
    "sent": sent_bytes,
    "kernels cpu": kernels_cpu,
    "gpu": gpu,
    **data_tables.TABLES,
    **paper_tables.TABLES,
}


def fill_tables(page: str) -> str:
    """Return the text of a page with its tables regenerated."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", page)
    return page


if __name__ == "__main__":
    for file in PAGES:
        file.write_text(fill_tables(file.read_text()))
