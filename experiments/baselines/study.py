"""Settings and results of the studies in this folder: one JSON file per method and data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image_pool import ImagePool, Split

from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.metrics import ErrorCounter
from alexnet_jax.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "baselines"


@dataclass(frozen=True)
class Study:
    """Data and splits of an evaluation.

    Attributes:
      data: prepared data set, its name in `data_dir`, or a source that `prepare` accepts.
      images: training images per class, drawn at random for each seed from all images of the data set; the others are test
        images. None uses the training and test images of the data set.
      seeds: seeds of the random splits.
      classes: names of the classes to use; empty uses all classes.
      whole: read whole images, at most 300 pixels on a side, instead of prepared squares; `data` must be a source.
      data_dir: folder of prepared data sets.
      runs_dir: folder of what is computed on the way: features, and run folders of networks.
      to: JSON file for the result; None uses results/baselines/DATA-METHOD.json.
    """

    data: str
    images: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    classes: tuple[str, ...] = ()
    whole: bool = False
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    to: Path | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            check_number("--images", self.images, at_least=2)
        if not self.seeds:
            raise UserError("--seeds must be one or more seeds")


@dataclass
class ErrorLists:
    """Errors on the test images of each split, as fractions.

    Attributes:
      top1_error: top-1 errors.
      top5_error: top-5 errors; None for five classes or fewer.
      mean_class_accuracy: top-1 accuracies averaged over the classes with equal weights, as in the literature on Caltech-101.
    """

    top1_error: list[float] = field(default_factory=list)
    top5_error: list[float | None] = field(default_factory=list)
    mean_class_accuracy: list[float] = field(default_factory=list)

    def add(self, counter: ErrorCounter) -> None:
        """Add the errors on a split."""
        metrics = counter.metrics
        self.top1_error.append(round(float(metrics.top1_error), 6))
        self.top5_error.append(None if metrics.top5_error is None else round(float(metrics.top5_error), 6))
        self.mean_class_accuracy.append(round(1 - counter.mean_class_error, 6))

    def __str__(self) -> str:
        """Format the errors on the last split."""
        top5 = "" if self.top5_error[-1] is None else f", top-5 error {self.top5_error[-1]:.1%}"
        return f"top-1 error {self.top1_error[-1]:.1%}{top5}, mean accuracy of the classes {self.mean_class_accuracy[-1]:.1%}"


def describe(study: Study, pool: ImagePool, splits: Sequence[Split]) -> dict[str, Any]:
    """Return the entries of a result that name the data and count its images."""
    return {
        "data": Path(study.data).name.removesuffix(".tar"),
        "whole_images": study.whole,
        "images_per_class": study.images,
        "classes": len(pool.classes),
        "selected_classes": pool.classes if study.classes else None,
        "training_images": len(splits[0].train),
        "test_images": len(splits[0].test),
        "seeds": list(study.seeds[: len(splits)]) if study.images else None,
    }


def write_result(result: dict[str, Any], file: Path | None) -> None:
    """Write a result to a file, by default the one in `RESULTS` that is named after data and method."""
    classes = f"-{result['classes']}-classes" if result["selected_classes"] else ""
    images = f"-{result['images_per_class']}" if result["images_per_class"] else ""
    whole = "-whole" if result["whole_images"] else ""
    file = file or RESULTS / f"{result['data']}{classes}{images}{whole}-{result['method']}.json"
    write_json(file, result)
