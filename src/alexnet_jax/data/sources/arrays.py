"""Source of images and labels in memory."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from alexnet_jax.data.images import Pixels
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.errors import UserError

LabeledArrays = tuple[
    UInt8[np.ndarray, "images height width 3"] | Sequence[Pixels | Image.Image], Int[np.ndarray, " images"] | Sequence[int]
]
"""RGB images, 0 to 255, in one array, or several arrays or images of Pillow of any size; and their labels, from 0."""


class ArraySource(Source):
    """Labeled images in memory, for `prepare`. Squares of one size are stored as they are, at their size and as raw pixels.

    If there are training images only, `held_out.hold_out(source, ValidationSplit())` uses some of them for validation.

    Args:
      classes: class names, ordered by label.
      train: training images and labels.
      validation: validation images and labels, if any.
      test: test images and labels, if any.

    Raises:
      UserError: if an image is not an RGB image with values of type uint8, there is not one label from 0 to `len(classes) - 1`
        for each image, a split is empty, or a class has no training images.
    """

    description = "arrays"

    def __init__(
        self,
        classes: Sequence[str],
        train: LabeledArrays,
        validation: LabeledArrays | None = None,
        test: LabeledArrays | None = None,
    ):
        self.classes = list(classes)
        splits = zip(SPLITS, (train, validation, test), strict=True)
        self._splits = {split: self._checked(split, *arrays) for split, arrays in splits if arrays is not None}
        self.num_images = {split: len(images) for split, (images, _) in self._splits.items()}
        if missing := sorted(set(range(len(self.classes))) - set(self._splits["train"][1].tolist())):
            raise UserError(f"no training image has the label {missing[0]}, {self.classes[missing[0]]}: omit this class")
        sides = {side for images, _ in self._splits.values() for image in images for side in np.shape(image)[:2]}
        if len(sides) == 1:
            self.size, self.raw = sides.pop(), True

    def _checked(self, split: str, images: Any, labels: Any) -> tuple[Sequence[Any], Int[np.ndarray, " images"]]:
        labels = np.asarray(labels)
        for index, image in enumerate(images):
            array = np.asarray(image)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
                problem = f"{split} image {index} has type {array.dtype} and shape {list(array.shape)}"
                raise UserError(f"{problem}: pass RGB images as uint8 [height, width, 3], 0 to 255")
        if labels.shape != (len(images),) or not len(images) or not np.issubdtype(labels.dtype, np.integer):
            problem = f"the {split} labels have type {labels.dtype} and shape {list(labels.shape)}"
            raise UserError(f"{problem}: pass one integer for each of {len(images):,} images")
        if labels.min() < 0 or labels.max() >= len(self.classes):
            problem = f"the {split} labels are from {labels.min()} to {labels.max()}"
            raise UserError(f"{problem}: pass labels from 0 to {len(self.classes) - 1}, the indices of the classes")
        return images, labels

    def read(self, split: str, index: int) -> SourceImage:
        images, labels = self._splits[split]
        label = int(labels[index])
        return SourceImage(f"{split}/{self.classes[label]}/{index:05}", label, np.asarray(images[index]))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split, (images, labels) in self._splits.items():
            digest.update(f"{split} {labels.tolist()}".encode())
            for image in map(np.asarray, images):
                digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).data)
        return digest.hexdigest()
