"""Linear one-vs-rest support vector machines on features with many dimensions and few images.

There are fewer images than dimensions, so the machines are trained on the inner products of the features.
"""

from collections.abc import Callable, Iterable

import numpy as np
from image_pool import Split
from jaxtyping import Float, Float32, Int
from sklearn.svm import SVC  # type: ignore[reportMissingImports]

from alexnet_jax.evaluation.metrics import ErrorCounter

COSTS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidates for the penalty C of margin violations, for features of norm 1."""
HELD_OUT = 0.2
"""Fraction of the training images on which C is chosen."""


def inner_products(
    read: Callable[[int], Float32[np.ndarray, "images features"]], num_parts: int
) -> Float32[np.ndarray, "images images"]:
    """Return the inner products of all pairs of images.

    Args:
      read: function that returns the features of the images of a part, given its index; called several times for each part.
      num_parts: number of parts.
    """
    blocks: list[list[np.ndarray]] = []
    for i in range(num_parts):
        part = read(i)
        blocks.append([part @ read(j).T for j in range(i)] + [part @ part.T])
    return np.block([[blocks[i][j] if j <= i else blocks[j][i].T for j in range(num_parts)] for i in range(num_parts)])


def decision_values(
    products: Float32[np.ndarray, "images images"], labels: Int[np.ndarray, " images"], split: Split, cost: float
) -> Float[np.ndarray, "test classes"]:
    """Train a machine for each class and return its decision values on the test images.

    Args:
      products: inner products of the features of all images.
      labels: classes of all images.
      split: training and test images.
      cost: penalty C.
    """
    train = products[np.ix_(split.train, split.train)].astype(np.float64)  # the type that libsvm computes with
    test = products[np.ix_(split.test, split.train)].astype(np.float64)
    machines = (SVC(C=cost, kernel="precomputed").fit(train, labels[split.train] == label) for label in range(labels.max() + 1))
    return np.stack([machine.decision_function(test) for machine in machines], axis=1)


def count_errors(labels: Int[np.ndarray, " images"], values: Float[np.ndarray, "images classes"]) -> ErrorCounter:
    """Return the errors of classes ranked by decision values; the loss is undefined."""
    counter = ErrorCounter(values.shape[1])
    counter.add(labels, values)
    return counter


def hold_out(labels: Int[np.ndarray, " images"], train: Int[np.ndarray, " train"], seed: int) -> Split:
    """Split training images into those to train on and those held out: `HELD_OUT` of each class, but one of two to four images.

    Args:
      labels: classes of all images.
      train: training images.
      seed: seed of the random selection.
    """
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(train[labels[train] == label]) for label in range(labels.max() + 1)]
    counts = [max(round(HELD_OUT * len(images)), min(1, len(images) - 1)) for images in by_class]
    held_out = np.concatenate([images[:count] for images, count in zip(by_class, counts, strict=True)])
    return Split(np.setdiff1d(train, held_out), np.sort(held_out))


def choose_cost(
    products: Float32[np.ndarray, "images images"],
    labels: Int[np.ndarray, " images"],
    train: Int[np.ndarray, " train"],
    seed: int,
    costs: Iterable[float] = COSTS,
) -> float:
    """Return the penalty C with the best mean accuracy over classes on held-out training images; the smallest one of equals.

    Args:
      products: inner products of the features of all images.
      labels: classes of all images.
      train: training images, of which `HELD_OUT` are held out.
      seed: seed of the random selection of held-out images.
      costs: candidates in ascending order.
    """
    split = hold_out(labels, train, seed)
    errors = {c: count_errors(labels[split.test], decision_values(products, labels, split, c)).mean_class_error for c in costs}
    return min(errors, key=lambda cost: errors[cost])
