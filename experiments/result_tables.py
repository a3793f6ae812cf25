"""Makes the tables of README.md and docs/ from experiments/results/*.json, so that no figure is typed.

make readme
"""

import json
import re
from pathlib import Path

import paper_tables as tables
from paper_tables import result, result_or_none, table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def quickstart() -> str:
    run, linear = result("quickstart"), result("linear_baseline")
    return table(
        ["`make train`", "measured"],
        [
            ["validation top-1 accuracy", f"{1 - run['top1_error']:.1%} of {run['images']} pictures"],
            ["a linear classifier on the same pixels", f"{max(linear.values()):.1%}"],
            [
                "time, with compilation and evaluation",
                f"{run['seconds'] / 60:.1f} minutes for {run['epochs']} epochs",
            ],
            ["time spent waiting for data", f"{run['waiting_for_data']:.1%}"],
            ["speed", f"{run['images_per_second']:.0f} images/s on 2 CPU cores, jax {run['jax']}"],
        ],
    )


def clothing10() -> str:
    runs = result("clothing10")
    epochs = [1, 2, 4, 6, 8, 10, 12, 16, 20]
    rows = []
    for name in ("two_tower", "source_145"):
        errors = runs[name]["validation_top1_error"]
        rows.append([f"`{name}`", *(f"{errors[epoch - 1]:.1%}" if epoch <= len(errors) else tables.DASH for epoch in epochs)])
    rows.append(["always the most frequent class", *[f"{runs['majority_class_error']:.1%}"] * len(epochs)])
    return table(["validation top-1 error after epoch", *map(str, epochs)], rows)


def bench() -> str:
    found = result("bench")
    header = [f"training step, float32, {found['cores']} CPU cores"]
    rows = {name: [name] for name in ("one device", "two devices", "PyTorch", "PyTorch, channels last")}
    ratios = {"ratio_vs_pytorch": ["one device by the better PyTorch"], "two_device_ratio": ["two devices by one"]}
    for batch, contestants in found["batches"].items():
        header += [f"batch {batch}, images/s", "compiling, s", "memory, GB"]
        for name, row in rows.items():
            of = contestants[name]
            row += [f"{of['images_per_second']:.1f}", f"{of['compile_seconds']:.1f}", f"{of['memory_gb']:.1f}"]
        for name, row in ratios.items():
            row += [f"**{contestants[name]:.2f}**", "", ""]
    return table(header, [*rows.values(), *ratios.values()])


def layers() -> str:
    weighted: dict[str, list[float]] = {}
    for row in result("bench")["layers"]:
        name, _, what = row["layer"].partition("/")
        name = f"{name}'s normalization and pooling" if what == "pool" and name != "conv5" else name
        sums = weighted.setdefault(name, [0.0, 0.0])
        sums[0] += row["forward_ms"]
        sums[1] += row["backward_ms"]
    rows = [[name, *(f"{ms:.0f}" if ms else "" for ms in both)] for name, both in weighted.items()]
    rows.append(["all", *(f"{sum(both[way] for both in weighted.values()):.0f}" for way in (0, 1))])
    return table(["layer, batch 32, one device", "forward, ms", "backward, ms"], rows)


def kernel_bytes() -> str:
    rows = []
    for row in result("kernel_check")["bytes"]:
        ways = [
            f"{row['megabytes']['reference'][way]:,} → {row['megabytes']['triton'][way]:,} ({row['ratio'][way]:.2f})"
            for way in ("forward", "backward")
        ]
        rows.append([f"`{row['op']}`", row["dtype"], *ways])
    return table(["[256, 55, 55, 96], MB moved: XLA's own form → kernel", "", "forward", "backward"], rows)


def kernels_cpu() -> str:
    found = result("kernels_cpu")
    rows = []
    for op in ("response_norm", "max_pool", "norm_pool"):
        times = found[f"{op}_milliseconds"]
        rows.append([f"`{op}`", f"{times['reference']:.0f}", f"{times['xla']:.0f}", f"{found[f'{op}_speedup']:.1f}"])
    header = ["[32, 55, 55, 96] float32, forward and backward, 2 CPU cores", "XLA's own form, ms", "ours, ms", "faster by"]
    return table(header, rows)


def gpu() -> str:
    rows = []
    for file in sorted((ROOT / "experiments" / "results" / "gpu").glob("*.json")):
        found = json.loads(file.read_text())
        for row in found.get("operations", []):
            shares = [f"{share:.0%}" if share else "" for share in row["share_of_copy_bandwidth"].values()]
            faster = [
                f"{row['speedup'][name]:.1f}" if name in row["speedup"] else "" for name in ("reference", "pytorch_compiled")
            ]
            rows.append([found["device"], f"`{row['spec']}`", row["dtype"], *shares, *faster])
    if not rows:
        return "No GPU has been measured yet: `make gpu-check` does, and its results belong in `experiments/results/gpu/`."
    header = [
        "GPU",
        "operation",
        "",
        "forward, share of copy bandwidth",
        "backward",
        "faster than XLA's own form",
        "than PyTorch",
    ]
    return table(header, rows)


def data() -> str:
    found = result("data")
    rates = found["images_per_second"]
    ours = rates["alexnet_jax"]

    def torch(decoder: str) -> int:
        return max(rate for name, rate in rates.items() if name.startswith(f"torch_{decoder}"))

    rows = [
        ["this pipeline", f"{ours:,}", ""],
        ["PyTorch's DataLoader, Pillow, best number of workers", f"{torch('pillow'):,}", f"{found['ratio_vs_torch_pillow']:.2f}"],
        ["the same with simplejpeg", f"{torch('simplejpeg'):,}", f"{found['ratio_vs_torch_simplejpeg']:.2f}"],
        ["this pipeline, raw records", f"{rates['alexnet_jax raw']:,}", ""],
        ["this pipeline, images kept in memory", f"{rates['alexnet_jax in memory']:,}", ""],
    ]
    return table([f"JPEG to uint8 batch, {found['cores']} CPU cores", "images/s", "this pipeline is faster by"], rows)


def kill() -> str:
    found = result("kill")
    rows = []
    for name in ("SIGKILL", "SIGTERM"):
        of = found[name]
        same = all(of[what] for what in ("state_identical", "log_identical", "result_identical"))
        rows.append([f"{name}, {of['times']} times", *map(str, of["during"].values()), "the same bits" if same else "different"])
    return table(["one training, ended by", *(f"while {what}" for what in found["SIGKILL"]["during"]), "in the end"], rows)


def loop() -> str:
    if result_or_none("loop") is None:
        return "Not measured yet: `make experiment EXP=loop` does."
    rows = [[f"`{name}`", f"{of['bare']:.1f}", f"{of['loop']:.1f}", f"{of['share']:.1%}"] for name, of in result("loop").items()]
    return table(["batch 32, 2 CPU cores", "training step alone, images/s", "the whole loop, images/s", "share"], rows)


def search() -> str:
    found = result("search")
    size = f"{found['images']:,} × {found['features']:,} features, {found['gigabytes']:.1f} GB"
    header = [f"{size}, {found['cores']} CPU cores", "from the disk, s", "from memory, s"]
    rows = []
    for queries, seconds in found["seconds"].items():
        name = "one query" if queries == "1" else f"{queries} at once"
        rows.append([name, *(f"{seconds[where]:.1f}" for where in ("from the disk", "from memory"))])
    rows.append([f"memory of the process: {found['megabytes']['at most']} MB", "", ""])
    return table(header, rows)


def codes() -> str:
    found = result("codes")
    k, times = found["neighbors"], found["milliseconds a query"]
    what = f"`{found['network']}`, {found['features']} features of {found['images']:,} images"
    among = [f"of the {k} nearest, among the first {k}", "among 100"]
    header = [what, "bits", *among, "same class", f"ms among {times['images']:,}"]
    same = f"{found['same class, exact']:.1%}"
    rows = [["exact search", f"{32 * found['features']:,}", "100%", "100%", same, str(times["exact"])]]
    for of in found["codes"]:
        shares = [f"{of[name]:.1%}" for name in (f"recall among {k}", "recall among 100", "same class")]
        rows.append([of["method"], str(of["bits"]), *shares, str(times[f"{of['bits']} bits"])])
    return table(header, rows)


def transfer() -> str:
    found = result("transfer")
    rows = []
    for way, errors in found["test_error"].items():
        mean = f"{sum(errors) / len(errors):.1%}"
        if way == "scratch":
            rows.append([way, mean, ""])
            continue
        better = found["better_than_scratch_by"][way]
        interval = "" if better["low"] is None else f" ({100 * better['low']:+.1f} to {100 * better['high']:+.1f})"
        rows.append([way, mean, f"{100 * better['mean']:+.1f}{interval}"])
    pretrained, trained = found["pretrained_on"], found["trained_on"]
    header = f"{trained['images']} photos of {len(trained['classes'])} kinds of clothes, after {pretrained['images']:,} of others"
    return table([header, f"error, mean of {len(found['seeds'])} seeds", "better than scratch by, points (95 %)"], rows)


TABLES = {
    "search": search,
    "codes": codes,
    "quickstart": quickstart,
    "transfer": transfer,
    "kill": kill,
    "loop": loop,
    "clothing10": clothing10,
    "bench": bench,
    "layers": layers,
    "data": data,
    "kernel bytes": kernel_bytes,
    "kernels cpu": kernels_cpu,
    "gpu": gpu,
    **tables.TABLES,
}


def filled(page: str) -> str:
    """The text of a page with its tables made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", page)
    return page


if __name__ == "__main__":
    for file in PAGES:
        file.write_text(filled(file.read_text()))
