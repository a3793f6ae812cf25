"""Makes the tables of README.md from experiments/results/*.json, so that no figure is typed.

make readme
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def result(name: str) -> dict:
    return json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    epochs = [1, 2, 4, 6, 8, 10, 12]
    rows = [
        [f"`{name}`", *(f"{runs[name]['validation_top1_error'][epoch - 1]:.1%}" for epoch in epochs)]
        for name in ("two_tower", "source_145")
    ]
    rows.append(["always the most frequent class", *[f"{runs['majority_class_error']:.1%}"] * len(epochs)])
    return table(["validation top-1 error after epoch", *map(str, epochs)], rows)


def placement() -> str:
    rates = result("placement")
    rows = [
        [f"`{name}`", f"{of['single']:.1f}", f"{of['split']:.1f}", f"{of['split'] / of['single']:.2f}"]
        for name, of in rates.items()
    ]
    return table(["training step, batch 32, 2 CPU cores", "one device, images/s", "two devices, images/s", "ratio"], rows)


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


def filled(readme: str) -> str:
    """The README with its tables made anew."""
    for name, make in (("quickstart", quickstart), ("clothing10", clothing10), ("placement", placement), ("data", data)):
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", readme)
    return readme


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(filled(file.read_text()))
