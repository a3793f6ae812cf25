"""Random selection of validation images in sources without splits."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

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

    def select(self, images: Iterable[tuple[str, str]]) -> set[str]:
        """Return the names of the validation images.

        At least one image of each class remains. If `held_out` is not 0 and a class has two images, at least one is selected.

        Args:
          images: class and name of each image; names are unique.
        """
        by_class: dict[str, list[tuple[int, str]]] = {}
        for class_name, name in images:
            by_class.setdefault(class_name, []).append((self._hash(name), name))
        selected: set[str] = set()
        candidates: list[tuple[int, str]] = []
        for hashed in by_class.values():
            hashed.sort()
            candidates += hashed[:-1]  # the image with the largest hash is selected last, so it stays
            selected |= {name for number, name in hashed[:-1] if number < self.held_out * 2**64}
        if not selected and self.held_out and candidates:
            selected.add(min(candidates)[1])
        return selected

    def _hash(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:8], "big")


class HeldOutSource(Source):
    """Source with validation images that are held out from the training images of another source.

    Args:
      source: source that has training images only.
      validation_split: rule that selects the validation images.
    """

    def __init__(self, source: Source, validation_split: ValidationSplit):
        self.description, self.classes, self.display_names = source.description, source.classes, source.display_names
        self.size, self.raw, self.left_out, self.num_left_out = source.size, source.raw, source.left_out, source.num_left_out
        names = list(source.names("train"))
        held_out = validation_split.select(names)
        self._source = source
        self._indices: dict[str, list[int]] = {"train": [], "validation": []}
        for index, (_, name) in enumerate(names):
            self._indices["validation" if name in held_out else "train"].append(index)
        self._indices = {split: indices for split, indices in self._indices.items() if indices}
        self.num_images = {split: len(indices) for split, indices in self._indices.items()}

    def read(self, split: str, index: int) -> SourceImage:
        return self._source.read("train", self._indices[split][index])

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self._source.fingerprint(), self._indices.get("validation"))).encode()).hexdigest()


def hold_out(source: Source, validation_split: ValidationSplit) -> Source:
    """Return the source, with validation images held out if it has training images only."""
    only_train = set(source.num_images) == {"train"} and validation_split.held_out > 0
    return HeldOutSource(source, validation_split) if only_train else source
