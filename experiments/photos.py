"""Errors of networks trained on photos of clothes, and the time that training took.

    make train DATA=path/to/photos
    make train EXP=two_tower DATA=path/to/photos
    make train EXP=source_145 DATA=path/to/photos ARGS="--epochs 45"
    make experiment EXP=photos ARGS="runs/quickstart/… runs/two_tower/… runs/source_145/…"

The photos are github.com/alexeygrigorev/clothing-dataset-small. Validation errors are read from the log of a run. Test errors are
measured with the center view and with ten views. A run that was interrupted counts up to its last checkpoint. Other entries of
results/photos.json are kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.records import Dataset, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import write_json
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.weights.trained_model import load, load_run_config

RESULT = Path(__file__).parent / "results" / "photos.json"


def measure(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Return epochs, time and errors of a run; the time is None if it is not finished."""
    run, model = RunDirectory(folder), load(folder)
    test = {}
    for views in ("center", "ten"):
        metrics = Predictor(model, views=views).count_errors(dataset, "test").metrics
        top5_error = None if metrics.top5_error is None else round(float(metrics.top5_error), 6)
        test[views] = {"top1_error": round(float(metrics.top1_error), 6), "top5_error": top5_error}
    validation = [round(line["top1_error"], 6) for line in run.log_lines() if "epoch" in line]
    minutes = round(run.result["seconds"] / 60, 2) if run.result else None
    return {"epochs": len(validation), "minutes": minutes, "validation_top1_error": validation, "test": test}


def main() -> None:
    """Measure the runs and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of different networks on one data set")
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
        record["runs"][load_run_config(folder).network.name] = measure(folder, dataset)
        write_json(RESULT, record)
    print(json.dumps(record))


if __name__ == "__main__":
    with exit_on_error():
        main()
