"""Loading of batches: read and decode records, and copy crops, flipped or not, directly into the arrays of a batch."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from alexnet_jax.data.images import InvalidImageError, Pixels, decode_jpeg
from alexnet_jax.data.pipeline.augment import Crop, Example, downscale
from alexnet_jax.data.pipeline.copy_crop import copy_crop, copy_flipped_crop_bgr
from alexnet_jax.data.pipeline.memory import available_memory
from alexnet_jax.data.pipeline.transforms import BatchParams
from alexnet_jax.data.records import Dataset, Record, unpack
from alexnet_jax.errors import UserError

MEMORY_FRACTION = 0.25
"""Maximum size of the cache of decoded images, as a fraction of the available memory."""


def check_size(dataset: Dataset, size: int) -> None:
    """Check that the images of a data set can be decoded to `size` pixels on a side.

    Raises:
      UserError: if `size` is not the stored size divided by 1, 2, 4 or 8, the factors that JPEG decoders support.
    """
    stored = dataset.manifest.size
    sizes = [stored // divisor for divisor in (1, 2, 4, 8) if stored % divisor == 0]
    if size > stored:
        problem = f"has images of {stored} pixels, but images of {size} are needed"
        raise UserError(f"{dataset.path} {problem}: prepare it again with alexnet-jax prepare --size {size}")
    if size not in sizes:
        supported = ", ".join(map(str, sizes))
        problem = f"has images of {stored} pixels, which cannot be decoded to {size}"
        raise UserError(f"{dataset.path} {problem}: choose an image size of {supported}")


class DecodedImages:
    """Images of a split, decoded on access.

    An instance can be shared by threads and pickled; an unpickled copy has no cache.

    Args:
      dataset: prepared data set.
      split: name of the split.
      size: side to which images are decoded, pixels; see `check_size`.
      memory_fraction: decoded images are cached if all images of the split fit in this fraction of the available memory.
    """

    def __init__(self, dataset: Dataset, split: str, size: int, *, memory_fraction: float = 0.0):
        check_size(dataset, size)
        if split not in dataset.manifest.splits:
            raise UserError(f"{dataset.path} has no {split} images, only {', '.join(dataset.manifest.splits)}: pass other data")
        self.size = size
        self._shards = dataset.manifest.shards[split]
        self._path, self._stored_size, self._encoding = dataset.path, dataset.manifest.size, dataset.manifest.encoding
        import grain  # noqa: PLC0415 (commands that read no data set start faster)

        self._records: Any = grain.sources.ArrayRecordDataSource(dataset.shards(split))
        self._thread_local = threading.local()
        self._cache: np.ndarray | None = None
        copies = int(memory_fraction * available_memory() / max(1, len(self) * 3 * size**2))
        if copies:
            # Flipped as well, if both fit: a crop with its pixels reversed takes several times as long to copy.
            self._cache = np.empty((len(self), min(copies, 2), size, size, 3), np.uint8)  # pages are allocated on first write
            self._labels = np.full(len(self), -1, np.int32)  # -1: not cached yet

    def __len__(self) -> int:
        return len(self._records)

    @property
    def in_memory(self) -> bool:
        """Whether decoded images are cached."""
        return self._cache is not None

    def copy_crop(self, index: int, top: int, left: int, flipped: bool, out: np.ndarray) -> int:
        """Copy a square crop of an image to `out` and return the image's label.

        Args:
          index: index of the image in the split.
          top: first row of the crop.
          left: first column of the crop.
          flipped: whether to flip the crop horizontally.
          out: uint8 array [size, size, 3] to write to.

        Raises:
          UserError: if the record is damaged.
        """
        if self._cache is not None:
            cached = self._cache[index]
            # Two threads may fill the same entry at the same time; they write the same values.
            if self._labels[index] < 0:
                record = self.record(index)
                cached[0] = self.decode(record)
                for copy in cached[1:]:
                    copy_crop(cached[0], 0, 0, True, copy)
                self._labels[index] = record.label
            if flipped and len(cached) == 2:
                copy_crop(cached[1], top, self.size - len(out) - left, False, out)
            else:
                copy_crop(cached[0], top, left, flipped, out)
            return int(self._labels[index])
        record = self.record(index)
        if flipped and self._encoding == "jpeg":
            copy_flipped_crop_bgr(self.decode(record, "BGR"), top, left, out)
        else:
            copy_crop(self.decode(record), top, left, flipped, out)
        return record.label

    def record(self, index: int) -> Record:
        """Read the record at `index` of the split.

        Raises:
          UserError: if its file is damaged.
        """
        try:
            return unpack(self._records[index])
        except Exception as error:  # ArrayRecord and msgpack raise exceptions of many types
            file, reason = self._path / self._file_of(index), " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(f"{file} is damaged at image {index:,} ({reason}): {self._advice}") from error

    def _file_of(self, index: int) -> str:
        """Return the name of the file that contains an image."""
        for shard in self._shards:
            if index < shard.num_images:
                return shard.file
            index -= shard.num_images
        raise IndexError(index)

    @property
    def _advice(self) -> str:
        return f"list the damaged files with alexnet-jax prepare --verify {self._path}, delete it and prepare it again"

    def decode(self, record: Record, color_order: Literal["RGB", "BGR"] = "RGB") -> Pixels:
        """Decode a record to `size` pixels on a side.

        Args:
          record: record of this data set.
          color_order: order of the channels; ignored for raw records, which are always RGB.

        Returns:
          RGB or BGR pixels. For JPEG records, the array is overwritten by the next call in the same thread.

        Raises:
          UserError: if the record is damaged.
        """
        try:
            if self._encoding == "jpeg":
                return decode_jpeg(record.image, self.size, colors=color_order, out=self._buffer())
            if len(record.image) != 3 * self._stored_size**2:
                raise InvalidImageError(f"{len(record.image):,} bytes of pixels, expected {3 * self._stored_size**2:,}")
        except InvalidImageError as error:
            raise UserError(f"{record.name} in {self._path} is damaged ({error}): prepare the data set again") from error
        pixels = np.frombuffer(record.image, np.uint8).reshape(self._stored_size, self._stored_size, 3)
        return pixels if self.size == self._stored_size else downscale(pixels, self.size).round().astype(np.uint8)

    def _buffer(self) -> Pixels:
        """Return this thread's decoding buffer. Allocating one for each image would take a third of the decoding time."""
        if not hasattr(self._thread_local, "buffer"):
            self._thread_local.buffer = np.empty((self.size, self.size, 3), np.uint8)
        return self._thread_local.buffer

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_thread_local": None, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _thread_local=threading.local())


@dataclass(frozen=True)
class TrainingBatches:
    """Callable that loads the training batch with the given parameters.

    Attributes:
      images: images of the training split.
      input_size: side of the crops, pixels.
      batch_slice: part of the global batch that this process loads. Random parameters are drawn for the global batch, so
        they do not depend on the number of processes.
      crop_mean: whether the crop of each image is also that of the mean image to subtract.
    """

    images: DecodedImages
    input_size: int
    batch_slice: slice
    crop_mean: bool

    def __call__(self, params: BatchParams) -> Example:
        if len(params.position) and not 0 <= params.position.min() <= params.position.max() <= params.border:
            raise UserError(
                f"a transform set a crop position outside of 0 to {params.border} pixels: clip `position` to `border`"
            )
        # The training step is compiled for these types, whichever a transform returns.
        crop = Crop(params.position[self.batch_slice].astype(np.int32), params.flipped[self.batch_slice].astype(bool))
        batch = _load_crops(self.images, params.indices[self.batch_slice].tolist(), crop, self.input_size)
        color_shift = params.color_shift[self.batch_slice].astype(np.float32)
        return batch._replace(color_shift=color_shift, crop=crop if self.crop_mean else None)


@dataclass(frozen=True)
class CenterCropBatches:
    """Callable that returns the center crops of one batch of a split, given the batch index.

    Attributes:
      images: images of the split.
      indices: indices of the images to load, in the order of the batches.
      input_size: side of the crops, pixels.
      batch_size: global batch size, over all processes.
      batch_slice: part of the global batch that this process loads.
    """

    images: DecodedImages
    indices: Sequence[int] | Int[np.ndarray, " images"]
    input_size: int
    batch_size: int
    batch_slice: slice

    def __call__(self, batch_index: int) -> Example:
        positions = range(batch_index * self.batch_size, (batch_index + 1) * self.batch_size)[self.batch_slice]
        indices = [int(self.indices[position]) for position in positions if position < len(self.indices)]
        offset = (self.images.size - self.input_size) // 2
        crop = Crop(np.full((len(indices), 2), offset, np.int32), np.zeros(len(indices), bool))
        return _load_crops(self.images, indices, crop, self.input_size)


def _load_crops(images: DecodedImages, indices: Sequence[int], crop: Crop, size: int) -> Example:
    batch = np.empty((len(indices), size, size, 3), np.uint8)
    crops = zip(indices, crop.position.tolist(), crop.flipped.tolist(), batch, strict=True)
    labels = [images.copy_crop(index, top, left, flipped, out) for index, (top, left), flipped, out in crops]
    return Example(batch, np.array(labels, np.int32), np.zeros((len(indices), 3), np.float32))
