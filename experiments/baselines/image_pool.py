"""All labeled images of a data set, and random splits of them into training and test images."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.data.sources.selected import SelectedClasses
from alexnet_jax.errors import UserError

WHOLE_IMAGE_SIDE = 300
"""Maximum side of whole images, in pixels, as is usual for Caltech-101."""


class Split(NamedTuple):
    """Indices of training and test images in an `ImagePool`."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


class ImagePool:
    """Labeled images of all splits of a source, in the order of their names.

    Args:
      source: source of the images.

    Attributes:
      classes: class names.
      labels: class of each image.
      names: name of each image.
    """

    def __init__(self, source: Source):
        self._source = source
        self.classes = source.classes
        label_of = {name: label for label, name in enumerate(source.classes)}
        labeled = [split for split in source.num_images if split not in source.unlabeled]
        images = sorted(
            (name, split, index, label_of[class_name])
            for split in labeled
            for index, (class_name, name) in enumerate(source.names(split))
        )
        self.names = [name for name, *_ in images]
        self.labels = np.array([label for *_, label in images])
        self._places = [(split, index) for _, split, index, _ in images]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """String that changes when the images change."""
        return self._source.fingerprint()

    def read(self, index: int) -> SourceImage:
        """Return an image with its name and label."""
        return self._source.read(*self._places[index])

    def gray(self, index: int) -> UInt8[np.ndarray, "height width"]:
        """Return an image in shades of gray, at most `WHOLE_IMAGE_SIDE` pixels on each side."""
        data = self.read(index).data
        image = (Image.open(BytesIO(data)) if isinstance(data, bytes) else Image.fromarray(data)).convert("L")
        image.thumbnail((WHOLE_IMAGE_SIDE, WHOLE_IMAGE_SIDE), Image.Resampling.BICUBIC)  # never enlarges
        return np.asarray(image)

    def given_split(self) -> Split:
        """Return the training images and the test images of the source; its validation images are in neither.

        Raises:
          UserError: if the source has no test images.
        """
        splits = np.array([split for split, _ in self._places])
        if "test" not in splits:
            raise UserError(f"{self._source.description} has no test images: pass --images to split all images at random")
        return Split(np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test"))

    def random_split(self, images: int, seed: int) -> Split:
        """Draw training images from each class; all others are test images.

        Args:
          images: number of training images per class.
          seed: seed of the random selection.

        Raises:
          UserError: if a class has no more than `images` images.
        """
        rng = np.random.default_rng(seed)
        train: list[np.ndarray] = []
        for label, name in enumerate(self.classes):
            of_class = np.flatnonzero(self.labels == label)
            if len(of_class) <= images:
                raise UserError(f"class {name!r} has {len(of_class)} images: pass --images with a smaller number")
            train.append(rng.permutation(of_class)[:images])
        selected = np.sort(np.concatenate(train))
        return Split(selected, np.setdiff1d(np.arange(len(self)), selected))


class RandomSplitSource(Source):
    """Prepared images in a random split, to be copied to a prepared data set on which networks are trained.

    Args:
      source: prepared images, in any splits.
      images: number of training images per class.
      seed: seed of the random selection.
      held_out: number of training images per class that become validation images; the test images are then left out.
    """

    prepared = True

    def __init__(self, source: Source, images: int, seed: int, held_out: int = 0):
        self._pool = ImagePool(source)
        train, test = self._pool.random_split(images, seed)
        self._indices = {"train": train, "test": test}
        if held_out:
            # The training images are in the order of their names, which is that of time in some data sets.
            shuffled = np.random.default_rng(seed).permutation(train)
            rank = _rank_within(self._pool.labels[shuffled])
            self._indices = {"train": shuffled[rank >= held_out], "validation": shuffled[rank < held_out]}
        self.description = f"{images} random training images per class of {source.description}, seed {seed}"
        self.classes, self.display_names = source.classes, source.display_names
        self.size, self.raw = source.size, source.raw
        self.num_images = {split: len(self._indices[split]) for split in SPLITS if split in self._indices}
        self._fingerprint = f"{source.fingerprint()} {images} {seed}" + (f" {held_out}" if held_out else "")

    def read(self, split: str, index: int) -> SourceImage:
        return self._pool.read(int(self._indices[split][index]))

    def fingerprint(self) -> str:
        return self._fingerprint


def open_source(data: str, data_dir: Path, *, whole: bool = False, classes: Sequence[str] = ()) -> Source:
    """Open the prepared images of a data set, or the whole images that `prepare` would crop.

    Args:
      data: prepared data set, its name in `data_dir`, or a source that `prepare` accepts.
      data_dir: folder of prepared data sets.
      whole: whether to read whole images, for which `data` is a source.
      classes: names of some of the classes of prepared images; empty uses all classes.

    Raises:
      UserError: if the data do not exist or cannot be used.
    """
    if whole and classes:
        raise UserError("--classes selects classes of prepared images: leave out --whole")
    if whole:
        return find_source(data, ValidationSplit())
    dataset = find_dataset(data, data, data_dir)
    return SelectedClasses(dataset, classes or dataset.manifest.classes)


def _rank_within(labels: Int[np.ndarray, " images"]) -> Int[np.ndarray, " images"]:
    """Return the number of earlier images of the same class."""
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        rank[of_class] = np.arange(len(of_class))
    return rank


def splits_of(pool: ImagePool, images: int | None, seeds: Sequence[int]) -> list[Split]:
    """Return a random split for each seed, or the split of the data if `images` is None."""
    return [pool.given_split()] if images is None else [pool.random_split(images, seed) for seed in seeds]
