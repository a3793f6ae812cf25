"""Inference with a trained model: class probabilities or the outputs of a layer, averaged over views of each image."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from alexnet_jax.data.images import center_crop_image
from alexnet_jax.data.pipeline.augment import center_crop
from alexnet_jax.data.pipeline.photo import decode_without_warnings
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.metrics import ErrorCounter, top_classes
from alexnet_jax.evaluation.split_batches import split_batches, to_padded_batch
from alexnet_jax.evaluation.views import nine_views, ten_views
from alexnet_jax.model.convolution import current_conv_lowering
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import (
    DATA,
    choose_mesh,
    local_batch_slice,
    mesh_platform,
    parameter_sharding,
    replicated,
    to_global_array,
)
from alexnet_jax.parallel.runtime import compiler_options
from alexnet_jax.weights.trained_model import TrainedModel
from alexnet_kernels import dispatch

Views = Literal["center", "ten", "nine"]
"""Views of an image that outputs are averaged over: "center" is the center crop; "ten" is the four corner crops, the center crop
and the horizontal flips of these five (paper, section 4.1); "nine" is a 3x3 grid of crops without flips, as in the original code
for CIFAR."""

_VIEWS: dict[Views, Any] = {"center": lambda images, size: (center_crop(images, size),), "ten": ten_views, "nine": nine_views}


class SplitPredictions(NamedTuple):
    """Labels and float32 model outputs of the images of a split, in the order of the split."""

    labels: Int[np.ndarray, " images"]
    outputs: Float[np.ndarray, "images outputs"]


Photo = str | Path | bytes | Image.Image | np.ndarray
"""Path or content of an image file in a format that `prepare` reads, image of Pillow, or RGB pixels, uint8 [size, size, 3] with a
side of `TrainedModel.image_size` pixels."""
Photos = Photo | jax.Array | Sequence[Photo]
"""One image, a sequence of images, or an array of RGB images, uint8 [images, size, size, 3], 0 to 255."""


class ClassProbability(NamedTuple):
    """Name of a class, as it is printed (see `TrainedModel.printed_classes`), and its predicted probability."""

    name: str
    probability: float


def most_probable(
    classes: Sequence[str], probabilities: Float[np.ndarray, "images classes"], count: int
) -> list[list[ClassProbability]]:
    """Return the most probable classes of each image, most probable first.

    Raises:
      UserError: if `count` is less than 1.
    """
    check_number("top", count, at_least=1)
    return [
        [ClassProbability(classes[label], float(row[label])) for label in map(int, labels)]
        for row, labels in zip(probabilities, top_classes(probabilities, count), strict=True)
    ]


Average = Callable[[HostParams, Float[Array, "size size 3"], UInt8[Array, "batch size size 3"]], Float[Array, "batch outputs"]]
"""Function `(params, mean_image, images)` that returns the outputs averaged over views."""


@cache
def _averaged_outputs(
    network: Network, mesh: Mesh, layer: str | None, views: Views, crop_mean: bool, context: tuple[Any, ...]
) -> Average:
    """Return a jitted function, which is compiled once for all models of the same network.

    Args:
      network: network to run.
      mesh: device mesh.
      layer: name of the layer whose outputs are averaged; None for class probabilities.
      views: views of an image.
      crop_mean: whether the matching crop of the mean image is subtracted from each view, or its center crop from all of them.
      context: values of the context managers that determine the compiled operations: `default_implementation`, `conv_lowering`
        and `tower_lowering`.
    """
    forward, size = placement.forward(network, mesh, layer), network.input_size
    make_views = partial(_VIEWS[views], size=size)

    def average(params: Any, mean: Array, images: Array) -> Array:
        def predict_view(view_and_mean: tuple[Array, Array]) -> Array:
            view, mean = view_and_mean
            outputs = forward(params, view.astype(jnp.float32) - mean, None)
            return jax.nn.softmax(outputs) if layer is None else outputs

        views = jnp.stack(make_views(images))
        means = make_views(mean) if crop_mean else [center_crop(mean, size)] * len(views)
        # A loop over the views: the network is compiled once, and only one view's activations are in memory.
        return jax.lax.map(predict_view, (views, jnp.stack(means))).mean(axis=0)

    options = compiler_options(mesh_platform(mesh))
    return jax.jit(average, out_shardings=replicated(mesh), compiler_options=options)


class Predictor:
    """Trained model placed on the available devices for inference. Several threads may call it at the same time.

    The devices divide each batch, and each of them runs all towers. With several processes (`jax.distributed`), they are those of
    all processes, every process calls the same methods in the same order, and all get the results of the whole batch.

    Args:
      model: trained model.
      views: views of each image over which the outputs are averaged.
      layer: name of the layer whose outputs are returned; None returns class probabilities.
      batch_size: maximum number of images per batch, rounded up to a multiple of the number of devices that share a batch. Fewer
        images are padded to the next power of two, so that few sizes are compiled.
      devices: number of devices to use in every process; None uses all GPUs, or one CPU device.

    Attributes:
      batch_size: number of images per batch of a data set, on all devices together.
      mesh: device mesh.

    Raises:
      UserError: if `model` is not a TrainedModel, the network has no such layer, `views`, `batch_size` or `devices` is invalid,
        or there are fewer devices.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        views: Views = "center",
        layer: str | None = None,
        batch_size: int = 128,
        devices: int | None = None,
    ):
        check_number("batch_size", batch_size, at_least=1)
        check_number("devices", devices, at_least=1)
        if not isinstance(model, TrainedModel):
            raise UserError(f"pass a TrainedModel, as returned by load(path), not {type(model).__name__}")
        if views not in _VIEWS:
            raise UserError(f"no views {views!r}: choose one of {', '.join(_VIEWS)}")
        self.model = model
        self._layer = layer
        network = model.network
        self.mesh = choose_mesh(network, "single", devices)
        self.batch_size = batch_size + -batch_size % self.mesh.shape[DATA]
        crop_mean = model.config.augmentation.mean == "crop"
        context = dispatch.current_order(), current_conv_lowering(), placement.default_lowering(self.mesh)
        self._average = _averaged_outputs(network, self.mesh, layer, views, crop_mean, context)
        self._params = to_global_array(model.params, parameter_sharding(self.mesh))
        self._mean = to_global_array(model.mean_image, replicated(self.mesh))

    def __call__(self, images: Photos) -> Float[np.ndarray, "images outputs"]:
        """Return the class probabilities, or the outputs of the layer, for each image.

        Args:
          images: one image or several: paths or contents of image files, images of Pillow, or arrays. The shorter side of a file
            or of an image of Pillow is scaled to `model.image_size` pixels and the central square is used (paper, section 2).

        Raises:
          UserError: if a file is not a readable image, or an array has a different type or shape. The message names the file, or
            the item of a sequence, as in "images[3]".
        """
        images = self._several(images)
        devices = self.mesh.shape[DATA]
        size = min(self.batch_size, devices * (1 << (-(-len(images) // devices) - 1).bit_length()))
        local = local_batch_slice(self.mesh, size)
        batches = (self._pixels(images, slice(start, start + size)) for start in range(0, len(images), size))
        return np.concatenate([self._predict(batch[local], size)[: len(batch)] for batch in batches])

    def predict_batch(
        self, images: UInt8[np.ndarray, "local size size 3"], num_images: int | None = None
    ) -> Float[np.ndarray, "batch outputs"]:
        """Return the outputs for a batch of a data set.

        The last batch of a split may be smaller than `batch_size`. It is padded to that size, which is compiled already.

        Args:
          images: images of the batch; with several processes, those of this process's `local_batch_slice`.
          num_images: number of images of the batch in all processes; None if there is one process.
        """
        return self._predict(images, self.batch_size)[: len(images) if num_images is None else num_images]

    def _predict(self, images: UInt8[np.ndarray, "local size size 3"], size: int) -> Float[np.ndarray, "batch outputs"]:
        """Return the outputs for this process's part of a batch, which is padded to `size` images in all processes."""
        return np.asarray(self._average(self._params, self._mean, to_padded_batch(images, self.mesh, size)))

    def classify(self, images: Photos, top: int = 5) -> list[list[ClassProbability]]:
        """Return the most probable classes of each image, most probable first.

        Args:
          images: one image or several, as for `__call__`.
          top: number of classes to return per image.

        Raises:
          UserError: if an image is invalid as for `__call__`, this predictor returns the outputs of a layer, or `top` is less
            than 1.
        """
        self._check_probabilities()
        return most_probable(self.model.printed_classes, self(images), top)

    def _check_probabilities(self) -> None:
        if self._layer is not None:
            raise UserError(f"outputs of {self._layer} are not class probabilities: create a Predictor with layer=None")

    def _several(self, images: Photos) -> Sequence[Photo] | np.ndarray:
        """Return the images as a sequence of images or an array of images, after checking the latter."""
        if isinstance(images, jax.Array):
            images = np.asarray(images)
        if isinstance(images, str | Path | bytes | Image.Image):
            return [images]
        if isinstance(images, np.ndarray):
            return self._checked(images[None] if images.ndim == 3 else images)
        if not isinstance(images, Sequence) or not images:
            empty = "empty " if isinstance(images, Sequence) else ""
            raise UserError(f"{self._expected}, not {empty}{type(images).__name__}")
        return images

    def _pixels(self, images: Sequence[Photo] | np.ndarray, part: slice) -> UInt8[np.ndarray, "images size size 3"]:
        """Return the pixels of `images[part]`."""
        if isinstance(images, np.ndarray):
            return images[part]
        names = ["the image"] if len(images) == 1 else [f"images[{index}]" for index in range(len(images))[part]]
        return np.stack([self._read(image, name) for image, name in zip(images[part], names, strict=True)])

    def _read(self, image: Photo, name: str) -> UInt8[np.ndarray, "size size 3"]:
        """Return the pixels of one image; `name` stands for an image without a file name in messages."""
        size = self.model.image_size
        if isinstance(image, Image.Image):
            try:
                return center_crop_image(image, size)
            except Exception as error:  # on damaged files, Pillow raises exceptions of many types
                raise UserError(f"{name} cannot be read: {error}; pass another image") from error
        if isinstance(image, bytes):
            return decode_without_warnings(image, name, size)
        if isinstance(image, str | Path):
            try:
                data = Path(image).read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {image}: {error.strerror}") from error
            return decode_without_warnings(data, str(image), size)
        try:
            array = np.asarray(image)
        except ValueError as error:  # lists of different lengths
            raise UserError(f"{name} is invalid: {self._expected}, not {type(image).__name__}") from error
        return self._checked(array[None], f"{name} is invalid: ")[0]

    def _checked(self, images: np.ndarray, problem: str = "") -> UInt8[np.ndarray, "images size size 3"]:
        size = self.model.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
            raise UserError(f"{problem}{self._expected}, not {images.dtype} {list(images.shape)}")
        return images

    @property
    def _expected(self) -> str:
        size = self.model.image_size
        array = f"RGB pixels as uint8 [images, {size}, {size}, 3], 0 to 255"
        return f"pass image files, their bytes or images of Pillow, which are resized, or {array}"

    def batches(self, dataset: Dataset, split: str) -> Iterator[SplitPredictions]:
        """Predict a split of a data set, in order, and yield the results of each batch."""
        for labels, (images,) in split_batches(dataset, split, [self.model.image_size], self.mesh, self.batch_size):
            yield SplitPredictions(labels, self.predict_batch(images, len(labels)))

    def count_errors(self, dataset: Dataset, split: str) -> ErrorCounter:
        """Predict a split of a data set and count the errors.

        Raises:
          UserError: if this predictor returns the outputs of a layer.
        """
        self._check_probabilities()
        counter = ErrorCounter(len(self.model.classes))
        for labels, probabilities in self.batches(dataset, split):
            counter.add(labels, probabilities)
        return counter

    def predict_split(self, dataset: Dataset, split: str) -> SplitPredictions:
        """Predict a whole split of a data set, in order."""
        labels, outputs = zip(*self.batches(dataset, split), strict=True)
        return SplitPredictions(np.concatenate(labels), np.concatenate(outputs))
