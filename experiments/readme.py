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


def filled(readme: str) -> str:
    """The README with its tables made anew."""
    for name, make in (("quickstart", quickstart), ("clothing10", clothing10), ("placement", placement)):
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", readme)
    return readme


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(filled(file.read_text()))
