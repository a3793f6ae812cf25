"""Random selection of validation images in folders without splits."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ValidationSplit:
    """Random selection of validation images in folders without splits.

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
