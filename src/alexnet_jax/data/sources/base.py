"""Interface of a source: labeled images in splits, with random access."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from alexnet_jax.data.images import Pixels

SIZE = 256
"""Default side of a prepared image, in pixels (paper, section 2)."""

SPLITS = ("train", "validation", "test")
"""Split names, in the order in which they are prepared."""


class SourceImage(NamedTuple):
    """Labeled image of a source, before preparation.

    Attributes:
      name: name of the image, unique in the source.
      label: class index, from 0; `records.UNLABELED` in splits without labels.
      data: bytes of an image file, or uint8 pixels [height, width, 3].
    """

    name: str
    label: int
    data: bytes | Pixels


class Source(ABC):
    """Base class of sources: labeled images by split. `read` must be thread-safe.

    Attributes:
      description: short description, written to the manifest.
      classes: class names, in the order of the labels.
      num_images: number of images in each split, in the order of `SPLITS`. No split is empty, and there is a train split unless
        the source was opened for testing.
      size: default side of a prepared image, in pixels.
      raw: default encoding of a prepared image: True stores pixels, False stores JPEG.
      prepared: whether images are already square, of this size and, unless `raw`, JPEGs; they are then stored as they are.
      left_out: reason for each file that is not read, by name; many files of one folder may be named by their folder.
      num_left_out: number of files that are not read.
      display_names: names of the classes to print, in the same order; empty if there are none besides `classes`.
      unlabeled: splits without labels.
    """

    description: str
    classes: list[str]
    num_images: dict[str, int]
    size: int = SIZE
    raw: bool = False
    prepared: bool = False
    left_out: Mapping[str, str] = MappingProxyType({})
    num_left_out: int = 0
    display_names: Sequence[str] = ()
    unlabeled: Sequence[str] = ()

    @abstractmethod
    def read(self, split: str, index: int) -> SourceImage:
        """Return one image.

        Raises:
          InvalidImageError: if this image cannot be read.
          UserError: if the source was changed or removed after it was opened.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes when the images, their names, labels or order change.

        An interrupted `prepare` resumes only if the fingerprint is the same.
        """

    def names(self, split: str) -> Iterator[tuple[str, str]]:
        """Yield the class and the name of each image of a split, in order; this reads all images unless a source overrides it."""
        for index in range(self.num_images[split]):
            image = self.read(split, index)
            yield self.classes[image.label], image.name


def image_name(split: str | None, class_name: str, file: str) -> str:
    """Return the name of an image in a source that stores images in shards: the one it would have in a folder of images.

    Args:
      split: split in the name; None if the source has no splits.
      class_name: class of the image; empty if it has no label.
      file: name of the image file, with or without folders.
    """
    return "/".join(part for part in (split, class_name, file.rsplit("/", 1)[-1]) if part)
