"""Errors of networks trained on photos by the README's commands, and the time that training took.

    make train DATA=path/to/photos
    make train EXP=two_tower DATA=path/to/photos
    python experiments/photos.py runs/quickstart/… runs/two_tower/…

Validation errors are read from a run's log, test errors are measured with the center view and with ten views. A run that was
interrupted counts up to its last checkpoint. Other entries of results/photos.json are kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.records import open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import write_json
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.weights.trained_model import load, load_run_config

RESULT = Path(__file__).parent / "results" / "photos.json"


def measure(folder: Path) -> dict[str, Any]:
    """Return epochs, time and errors of a run."""
    run = RunDirectory(folder)
    epochs = [line for line in run.log_lines() if "epoch" in line]
    model = load(folder)
    dataset = open_dataset(Path(model.config.data.path))
    result = run.result
    errors = {}
    for views in ("center", "ten"):
        errors[views] = round(Predictor(model, views=views).count_errors(dataset, "test").metrics.top1_error, 6)
    return {
        "epochs": epochs[-1]["epoch"],
        "finished": result is not None,
        "minutes": round(result["seconds"] / 60, 2) if result else None,
        "validation_top1_error": [round(record["top1_error"], 6) for record in epochs],
        "top1_error": errors,
    }


def main() -> None:
    """Measure the runs and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of one data set")
    folders = parser.parse_args().runs
    configure_process()
    dataset = open_dataset(Path(load_run_config(folders[0]).data.path))
    if missing := [split for split in ("validation", "test") if split not in dataset.manifest.counts]:
        raise UserError(f"{dataset.path} has no labeled {missing[0]} images: train on photos in train, validation and test")
    counts = dataset.manifest.counts["validation"]
    record: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"runs": {}}
    record |= {
        "images": dataset.manifest.splits["train"],
        "classes": len(dataset.manifest.classes),
        "test_images": dataset.manifest.splits["test"],
        "majority_class_error": round(1 - max(counts) / sum(counts), 6),
        "cores": available_cpus(),
        "jax": jax.__version__,
    }
    for folder in folders:
        record["runs"][load_run_config(folder).network.name] = measure(folder)
        write_json(RESULT, record)
    print(json.dumps(record))


if __name__ == "__main__":
    with exit_on_error():
        main()
