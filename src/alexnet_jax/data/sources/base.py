"""What every kind of source offers: classes, and pictures that are read when they are asked for."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from alexnet_jax.data.images import Pixels

SIZE = 256
"""Side of a prepared image, pixels (paper, section 2)."""

SPLITS = ("train", "validation", "test")


class Picture(NamedTuple):
    """A picture as its source has it: a file's bytes or pixels, the number of its class, and its name in the source."""

    name: str
    label: int
    data: bytes | Pixels


class Source(ABC):
    """Pictures in classes, by split; threads may read them at the same time.

    Attributes:
      description: what the source is, for the manifest.
      classes: names, whose places are the labels.
      images: how many pictures each split has, in the order of SPLITS; `train` has some.
      size: side of a prepared image unless the user asks for another, pixels.
      raw: whether images are kept as pixels unless the user asks; else as JPEG.
      notes: what was left out and why, a line each.
    """

    description: str
    classes: list[str]
    images: dict[str, int]
    size: int = SIZE
    raw: bool = False
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, split: str, index: int) -> Picture:
        """One picture.

        Raises:
          BadImage: if this one cannot be had.
          UserError: if the source as a whole has changed or gone.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the pictures, their names, labels or order do; tells whether work begun earlier can go on."""
