"""Random selection of validation images in sources without splits."""

import hashlib
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from alexnet_jax.data.sources.base import Source, SourceImage


@dataclass(frozen=True)
class ValidationSplit:
    """Random selection of validation images in sources without splits.

    The split of an image depends on a hash of its name and the seed, so adding images later moves other images only where one of
    the following rules has decided: the last image of a class stays in training, and at least one image is held out.

    Attributes:
      held_out: expected fraction of images in the validation split, 0 to 1.
      seed: seed of the selection.
    """

    held_out: float = 0.1
    seed: int = 0

    def select(self, images: Iterable[tuple[str, str]]) -> Bool[np.ndarray, " images"]:
        """Return which images are validation images.

        At least one image of each class remains. If `held_out` is not 0 and a class has two images, at least one is selected.

        Args:
          images: class and name of each image; names are unique.
        """
        numbers: dict[str, int] = {}
        columns = array("I"), array("Q")
        for class_name, name in images:
            columns[0].append(numbers.setdefault(class_name, len(numbers)))
            columns[1].append(self._hash(name))
        classes, hashes = map(np.array, columns)
        order = np.lexsort((hashes, classes))
        candidates = order[:-1][np.diff(classes[order]) == 0]  # the image with the largest hash of a class stays
        selected = np.zeros(len(order), bool)
        if self.held_out and len(candidates):
            selected[candidates] = hashes[candidates] < np.uint64(math.ceil(self.held_out * 2**64))
            if not selected.any():
                selected[candidates[np.argmin(hashes[candidates])]] = True
        return selected

    def _hash(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:8], "big")


class HeldOutSource(Source):
    """Source with validation images that are held out from the training images of another source."""

    def __init__(self, source: Source, validation_split: ValidationSplit):
        self.description, self.classes, self.display_names = source.description, source.classes, source.display_names
        self.size, self.raw, self.left_out, self.num_left_out = source.size, source.raw, source.left_out, source.num_left_out
        held_out = validation_split.select(source.names("train"))
        self._source = source
        indices = {"train": np.flatnonzero(~held_out), "validation": np.flatnonzero(held_out)}
        self._indices = {split: each for split, each in indices.items() if len(each)}
        self.num_images = {split: len(indices) for split, indices in self._indices.items()}

    def read(self, split: str, index: int) -> SourceImage:
        return self._source.read("train", int(self._indices[split][index]))

    def fingerprint(self) -> str:
        held_out = self._indices["validation"].tolist() if "validation" in self._indices else None
        return hashlib.sha256(repr((self._source.fingerprint(), held_out)).encode()).hexdigest()


def hold_out(source: Source, validation_split: ValidationSplit) -> Source:
    """Return the source, with validation images held out if it has training images only."""
    only_train = set(source.num_images) == {"train"} and validation_split.held_out > 0
    return HeldOutSource(source, validation_split) if only_train else source
