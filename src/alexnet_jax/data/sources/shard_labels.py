"""Checks of the labels of sources that store images and labels in shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from alexnet_jax.data.records import UNLABELED
from alexnet_jax.data.sources.base import SPLITS
from alexnet_jax.data.sources.layout import shard_split
from alexnet_jax.errors import UserError


def splits_of_shards(root: Path, shards: Sequence[str], *, testing: bool) -> tuple[dict[str, str], bool]:
    """Return the split of each shard, and whether the names of the shards contain it.

    Args:
      root: folder or file, for error messages.
      shards: paths of the shards; all or none of them contain the name of a split.
      testing: whether shards without a split are test images instead of training images.

    Raises:
      UserError: if only some of the names contain a split.
    """
    splits = {shard: shard_split(shard) for shard in shards}
    named = {shard: split for shard, split in splits.items() if split}
    if not named:
        return dict.fromkeys(shards, "test" if testing else "train"), False
    if without := [shard for shard in shards if shard not in named]:
        seen = f"{next(iter(named))} is of the {next(iter(named.values()))} split, but {without[0]} of none"
        raise UserError(f"{root} has shards with and without a split in their names ({seen}): rename or remove the latter")
    return named, True


def numbered_classes(root: str | Path, count: int, num_images: int) -> list[str]:
    """Return the numbers from 0 as the names of `count` classes of `num_images` images.

    Raises:
      UserError: if there are more classes than images; a wrong label could be very large.
    """
    if count > num_images:
        raise UserError(f"{root} has the label {count - 1:,}, but only {num_images:,} images: correct the label")
    return [str(number) for number in range(count)]


def check_labels(
    root: str | Path, classes: Sequence[str], labels: Mapping[str, Int[np.ndarray, " images"]], *, testing: bool = False
) -> list[str]:
    """Check the labels of all splits, and return the splits without labels.

    Args:
      root: folder or file, for error messages.
      classes: class names.
      labels: labels of the images, by split; `UNLABELED` for all images of a split without labels.
      testing: whether the source may have no train split.

    Raises:
      UserError: if a label is out of range, only some images of a split have labels, there is one class only, a class has no
        training images, or there is no train split.
    """
    unlabeled: list[str] = []
    for split, values in labels.items():
        without = int(np.count_nonzero(values == UNLABELED))
        if without == len(values):
            unlabeled.append(split)
        elif without:
            raise UserError(f"{root} has {without:,} {split} images without a label among {len(values):,}: remove or label them")
        elif not 0 <= values.min() <= values.max() < len(classes):
            wrong = int(values.min() if values.min() < 0 else values.max())
            raise UserError(f"{root} has a {split} image with label {wrong}, expected 0 to {len(classes) - 1}: correct the label")
    labeled = [split for split in SPLITS if split in labels and split not in unlabeled]
    if "train" not in labeled and not testing:
        seen = f" ({', '.join(unlabeled)} without labels)" if unlabeled else f", only {', '.join(labeled)}"
        raise UserError(f"{root} has no labeled training images{seen}: add them")
    if len(classes) < 2:
        raise UserError(f"{root} has images of one class only ({', '.join(classes)}): add images of at least one more class")
    if labeled and (missing := sorted(set(range(len(classes))) - set(np.unique(labels[labeled[0]]).tolist()))):
        names = ", ".join(classes[label] for label in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise UserError(
            f"{root} has classes without {labeled[0]} images: {names}{more}; add images of them, or complete the shards"
        )
    return unlabeled
