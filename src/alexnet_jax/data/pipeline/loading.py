"""Loading of batches: read and decode records, and copy crops, flipped or not, directly into the arrays of a batch."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from alexnet_jax.data.images import InvalidImageError, Pixels, decode_jpeg
from alexnet_jax.data.pipeline.augment import Crop, Example, downscale
from alexnet_jax.data.pipeline.copy_crop import CropBuffer, aligned_empty, copy_crop
from alexnet_jax.data.pipeline.memory import available_memory
from alexnet_jax.data.pipeline.transforms import BatchParams
from alexnet_jax.data.record_files import RecordFiles, unpack_image
from alexnet_jax.data.records import Dataset, Record, unpack
from alexnet_jax.errors import UserError, one_line

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
            splits = ", ".join(dataset.manifest.splits)
            raise UserError(f"{dataset.path} has no {split} images, only {splits}: choose one of these splits, or other data")
        self.size = size
        self._path, self._stored_size, self._encoding = dataset.path, dataset.manifest.size, dataset.manifest.encoding
        self._records = RecordFiles(dataset.shards(split), [shard.num_images for shard in dataset.manifest.shards[split]])
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

    def crops(self, indices: Sequence[int], crop: Crop, size: int) -> tuple[UInt8[np.ndarray, "batch size size 3"], list[int]]:
        """Load a square crop of each of a batch of images.

        Args:
          indices: indices of the images in the split.
          crop: position and flip of each crop.
          size: side of the crops, pixels.

        Returns:
          The crops, and the labels of the images.

        Raises:
          UserError: if a record is damaged.
        """
        batch = aligned_empty(len(indices), size, size, 3)
        positions = zip(indices, crop.position.tolist(), crop.flipped.tolist(), strict=True)
        if self._cache is None and self._encoding == "jpeg":
            return batch, self._decode_crops(positions, batch)
        labels: list[int] = []
        for (index, (top, left), flipped), out in zip(positions, batch, strict=True):
            if self._cache is None:
                pixels, label = self._decoded(index)
            else:
                copies, label = self._cached(index)
                if flipped and len(copies) == 2:
                    pixels, left, flipped = copies[1], self.size - size - left, False
                else:
                    pixels = copies[0]
            copy_crop(pixels, top, left, flipped, out)
            labels.append(label)
        return batch, labels

    def _decode_crops(
        self, positions: Iterable[tuple[int, tuple[int, int], bool]], batch: UInt8[np.ndarray, "batch size size 3"]
    ) -> list[int]:
        """Decode JPEGs, copy their crops to `batch`, and return the labels; `positions` are the arguments of each crop.

        This loop holds the interpreter lock, which the threads share, except in the calls that read, decode and copy.
        """
        buffer = self._crop_buffer(batch.shape[1])
        pixels, crops, flipped_crops = buffer.pixels, buffer.crops, buffer.flipped
        rows, words = buffer.rows_of(batch), buffer.words_of(batch)
        labels: list[int] = []
        for i, (index, (top, left), flipped) in enumerate(positions):
            jpeg, label = self._read(index)
            labels.append(label)
            try:
                decode_jpeg(jpeg, self.size, colors="BGR" if flipped else "RGB", out=pixels)
            except InvalidImageError as error:
                raise self._damaged_image(self.record(index).name, error) from error
            if flipped:
                words[i] = flipped_crops[top, left]
            else:
                rows[i] = crops[top, left]
        return labels

    def _cached(self, index: int) -> tuple[UInt8[np.ndarray, "copies side side 3"], int]:
        """Return an image from the cache, with its flipped copy if there is one, and its label; store them first if necessary."""
        assert self._cache is not None
        copies = self._cache[index]
        # Two threads may store the same image at the same time; they write the same values.
        if self._labels[index] < 0:
            copies[0], label = self._decoded(index)
            for flipped in copies[1:]:
                copy_crop(copies[0], 0, 0, True, flipped)
            self._labels[index] = label
        return copies, int(self._labels[index])

    def _decoded(self, index: int) -> tuple[Pixels, int]:
        image, label = self._read(index)
        try:
            return self._decode(image), label
        except InvalidImageError as error:
            raise self._damaged_image(self.record(index).name, error) from error

    def _read(self, index: int) -> tuple[memoryview, int]:
        """Read the image and the label of a record.

        Raises:
          UserError: if its file is damaged.
        """
        try:
            return unpack_image(self._records[index])
        except Exception as error:  # ArrayRecord and msgpack raise exceptions of many types
            raise self._damaged_file(index, error) from error

    def record(self, index: int) -> Record:
        """Read the record at `index` of the split.

        Raises:
          UserError: if its file is damaged.
        """
        try:
            return unpack(self._records[index])
        except Exception as error:
            raise self._damaged_file(index, error) from error

    def _damaged_file(self, index: int, error: Exception) -> UserError:
        file, reason = self._records.path_of(index), one_line(error, 120)
        advice = f"list the damaged files with alexnet-jax prepare --verify {self._path}, delete it and prepare it again"
        return UserError(f"{file} is damaged at image {index:,} ({reason}): {advice}")

    def _damaged_image(self, name: str, error: InvalidImageError) -> UserError:
        return UserError(f"{name} in {self._path} is damaged ({error}): prepare the data set again")

    def decode(self, record: Record) -> Pixels:
        """Decode a record to `size` pixels on a side.

        Args:
          record: record of this data set.

        Returns:
          RGB pixels. For JPEG records, the array is overwritten by the next call in the same thread.

        Raises:
          UserError: if the record is damaged.
        """
        try:
            return self._decode(record.image)
        except InvalidImageError as error:
            raise self._damaged_image(record.name, error) from error

    def _decode(self, image: bytes | memoryview) -> Pixels:
        if self._encoding == "jpeg":
            return decode_jpeg(image, self.size, out=self._crop_buffer(self.size).pixels)
        if len(image) != 3 * self._stored_size**2:
            raise InvalidImageError(f"{len(image):,} bytes of pixels, expected {3 * self._stored_size**2:,}")
        pixels = np.frombuffer(image, np.uint8).reshape(self._stored_size, self._stored_size, 3)
        return pixels if self.size == self._stored_size else downscale(pixels, self.size).round().astype(np.uint8)

    def _crop_buffer(self, crop_size: int) -> CropBuffer:
        """Return this thread's decoding buffer. Allocating one for each image would take a third of the decoding time."""
        if not hasattr(self._thread_local, "buffers"):
            self._thread_local.buffers = {}
        buffers: dict[int, CropBuffer] = self._thread_local.buffers
        if crop_size not in buffers:
            buffers[crop_size] = CropBuffer(self.size, crop_size)
        return buffers[crop_size]

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
        # The training step is compiled for these dtypes; a transform may return others.
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
    batch, labels = images.crops(indices, crop, size)
    return Example(batch, np.array(labels, np.int32), np.zeros((len(indices), 3), np.float32))
