"""From records to batches, in whichever thread or process asks: read, decode, crop and mirror into the batch's own memory."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import grain
import numpy as np
from jaxtyping import Int

from alexnet_jax.data.images import BadImage, Pixels, decode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation, Crop, Example, downscale, draw_augmentation
from alexnet_jax.data.pipeline.crops import copy_crop, copy_reversed
from alexnet_jax.data.pipeline.memory import available_memory
from alexnet_jax.data.records import Dataset, Record, unpack
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError

MEMORY_SHARE = 0.25
"""Decoded images are kept in memory if they take no more than this share of what is available."""


def check_size(dataset: Dataset, size: int) -> None:
    """Refuses sizes that the images of a data set cannot be decoded to.

    Raises:
      UserError: if `size` is not theirs or a half, a quarter, an eighth of it, which is what JPEG decoders can do.
    """
    stored = dataset.manifest.size
    sizes = [stored // divisor for divisor in (1, 2, 4, 8) if stored % divisor == 0]
    if size not in sizes:
        there = ", ".join(map(str, sizes))
        raise UserError(f"{dataset.path} holds images of {stored} pixels, not {size}: choose an image size of {there}")


class DecodedImages:
    """The images of a split, decoded to `size` pixels a side. Threads may share one, and processes may be sent one.

    Args:
      dataset: a prepared data set.
      split: of it.
      size: side to decode to, pixels; see `check_size`.
      memory_share: the images are kept once they have been decoded, if all of them fit in this share of the memory that is
        available now. Another process starts with none.
    """

    def __init__(self, dataset: Dataset, split: str, size: int, *, memory_share: float = 0.0):
        check_size(dataset, size)
        self.size = size
        self._path, self._stored, self._encoding = dataset.path, dataset.manifest.size, dataset.manifest.encoding
        self._records: Any = grain.sources.ArrayRecordDataSource(dataset.shards(split))
        self._thread = threading.local()
        self._kept: np.ndarray | None = None
        if len(self) * 3 * size**2 <= memory_share * available_memory():
            self._kept = np.empty((len(self), size, size, 3), np.uint8)  # takes memory only as it is filled
            self._labels = np.full(len(self), -1, np.int32)  # -1 as long as the image is not there

    def __len__(self) -> int:
        return len(self._records)

    @property
    def in_memory(self) -> bool:
        """Whether decoded images are kept."""
        return self._kept is not None

    def copy_crop(self, index: int, top: int, left: int, flipped: bool, out: np.ndarray) -> int:
        """Writes a part of an image to `out`, [size, size, 3], and returns its label.

        Raises:
          UserError: if the record is damaged.
        """
        if self._kept is not None:
            # Two threads may both find an image missing; they write the same.
            if self._labels[index] < 0:
                record = self.record(index)
                self._kept[index] = self.pixels(record)
                self._labels[index] = record.label
            copy_crop(self._kept[index], top, left, flipped, out)
            return int(self._labels[index])
        record = self.record(index)
        if flipped and self._encoding == "jpeg":
            copy_reversed(self.pixels(record, "BGR"), top, left, out)
        else:
            copy_crop(self.pixels(record), top, left, flipped, out)
        return record.label

    def record(self, index: int) -> Record:
        """The record at a place of the split, as it is stored."""
        return unpack(self._records[index])

    def pixels(self, record: Record, colors: Literal["RGB", "BGR"] = "RGB") -> Pixels:
        """The pixels of a record, until this thread asks for the next; `colors` is for JPEGs alone."""
        try:
            if self._encoding == "jpeg":
                return decode_jpeg(record.image, self.size, colors=colors, out=self._scratch())
            if len(record.image) != 3 * self._stored**2:
                raise BadImage(f"it has {len(record.image)} bytes, not {3 * self._stored**2}")
        except BadImage as error:
            raise UserError(f"{record.name} in {self._path} is damaged ({error}): prepare the data set again") from error
        pixels = np.frombuffer(record.image, np.uint8).reshape(self._stored, self._stored, 3)
        return pixels if self.size == self._stored else downscale(pixels, self.size).round().astype(np.uint8)

    def _scratch(self) -> Pixels:
        """Memory for one image, used again and again: asking the system for it each time takes a third of decoding."""
        if not hasattr(self._thread, "scratch"):
            self._thread.scratch = np.empty((self.size, self.size, 3), np.uint8)
        return self._thread.scratch

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_thread": None, "_kept": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _thread=threading.local())


@dataclass(frozen=True)
class TrainingBatches:
    """Callable `step -> Example`: the batch of a step, a function of seed and step alone.

    Attributes:
      images: of the training set. Each epoch shows all, shuffled anew; a batch goes on into the next epoch.
      augmentation: what happens to them.
      colors: principal components of their colors.
      input_size: side of the crops, pixels.
      batch_size: images in a batch of all hosts together.
      seed: of order and augmentation.
      part: which images of the batch to load. What is drawn is drawn for all: the parts of all hosts make up one batch.
    """

    images: DecodedImages
    augmentation: Augmentation
    colors: ColorComponents
    input_size: int
    batch_size: int
    seed: int
    part: slice

    def __call__(self, step: int) -> Example:
        border = self.images.size - self.input_size
        draws = draw_augmentation(
            self.augmentation, self.colors, border=border, images=self.batch_size, seed=self.seed, step=step
        )
        crop = Crop(draws.crop.position[self.part], draws.crop.flipped[self.part])
        batch = _copied(self.images, self.order(step), crop, self.input_size)
        shift = draws.color_shift[self.part]
        return batch._replace(color_shift=shift, crop=crop if self.augmentation.mean == "crop" else None)

    def order(self, step: int) -> list[int]:
        """Numbers of the images of a step."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.part]
        epochs, places = np.divmod(places, len(self.images))
        first = epochs[0]
        later = [_shuffled(len(self.images), self.seed, int(epoch)) for epoch in range(first, epochs[-1] + 1)]
        return [int(later[epoch - first][place]) for epoch, place in zip(epochs, places, strict=True)]


@lru_cache(maxsize=2)  # the epoch under way, and the next, which other threads may have begun
def _shuffled(images: int, seed: int, epoch: int) -> Int[np.ndarray, " images"]:
    return np.random.default_rng([seed, epoch, 1]).permutation(images).astype(np.int32)


@dataclass(frozen=True)
class CenterCropBatches:
    """Callable `number of the batch -> Example`: the central squares of the images in order, as they are."""

    images: DecodedImages
    input_size: int
    batch_size: int
    part: slice

    def __call__(self, number: int) -> Example:
        places = range(number * self.batch_size, (number + 1) * self.batch_size)[self.part]
        order = [place for place in places if place < len(self.images)]
        middle = (self.images.size - self.input_size) // 2
        crop = Crop(np.full((len(order), 2), middle, np.int32), np.zeros(len(order), bool))
        return _copied(self.images, order, crop, self.input_size)


def _copied(images: DecodedImages, indices: Sequence[int], crop: Crop, size: int) -> Example:
    batch = np.empty((len(indices), size, size, 3), np.uint8)
    places = zip(indices, crop.position.tolist(), crop.flipped.tolist(), batch, strict=True)
    labels = [images.copy_crop(index, top, left, flipped, out) for index, (top, left), flipped, out in places]
    return Example(batch, np.array(labels, np.int32), np.zeros((len(indices), 3), np.float32))
