"""What a trained network makes of images: probabilities, averaged over views, and the features it sees in them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from alexnet_jax.data.pipeline.augment import center_crop
from alexnet_jax.data.pipeline.batches import evaluation_batches
from alexnet_jax.data.pipeline.photo import read_photo
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.views import nine_views, ten_views
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import DATA, batch_sharding, choose_mesh, parameter_sharding, replicated
from alexnet_jax.parallel.runtime import compiler_options
from alexnet_jax.weights.trained_model import TrainedModel

Views = Literal["center", "ten", "nine"]
"""Parts of an image that are looked at: its center; corners and center, and the same flipped (paper, section 4.1); or a grid
of three by three, not flipped, as the original code does for CIFAR."""

_VIEWS: dict[Views, Any] = {"center": lambda images, size: (center_crop(images, size),), "ten": ten_views, "nine": nine_views}


class SplitPredictions(NamedTuple):
    """Of images in the order of their split: their labels, and a row for each of what was asked for, float32."""

    labels: Int[np.ndarray, " images"]
    rows: Float[np.ndarray, "images columns"]


Images = UInt8[np.ndarray, "images size size 3"]
"""Red, green and blue, gray levels, of the side that `TrainedModel.image_size` says."""
Photos = Sequence[str | Path]
"""Files of any of the formats that `prepare` takes."""


class ClassProbability(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


class Predictor:
    """A trained network at work, on all devices there are unless told otherwise.

    Args:
      trained: the network.
      views: over which probabilities, or features, are averaged.
      layer: whose outputs are asked for, by name; None is the probabilities of the classes.
      batch_size: images at a time, at least.
    """

    def __init__(self, trained: TrainedModel, *, views: Views = "center", layer: str | None = None, batch_size: int = 128):
        self.trained = trained
        self._layer = layer
        network = trained.network
        self._mesh = choose_mesh(network, "single", 1) if jax.default_backend() == "cpu" else choose_mesh(network)
        self.batch_size = batch_size + -batch_size % self._mesh.shape[DATA]  # which devices can share
        of_each, size = placement.forward(network, self._mesh, layer), network.input_size
        cut = partial(_VIEWS[views], size=size)
        mean_moves = trained.config["augmentation"]["mean"] == "crop"

        def average(params: Any, mean: Array, images: Array) -> Array:
            def of_view(view_and_mean: tuple[Array, Array]) -> Array:
                view, mean = view_and_mean
                outputs = of_each(params, view.astype(jnp.float32) - mean, None)
                return jax.nn.softmax(outputs) if layer is None else outputs

            views = jnp.stack(cut(images))
            means = cut(mean) if mean_moves else [center_crop(mean, size)] * len(views)
            # One after the other: the network is compiled once, and has the memory of one view.
            return jax.lax.map(of_view, (views, jnp.stack(means))).mean(axis=0)

        options = compiler_options(self._mesh.devices.flat[0].platform)
        self._average = jax.jit(average, out_shardings=replicated(self._mesh), compiler_options=options)
        self._params = jax.device_put(trained.params, parameter_sharding(self._mesh))
        self._mean = jax.device_put(trained.mean_image, replicated(self._mesh))

    def __call__(self, images: Images | Photos) -> Float[np.ndarray, "images columns"]:
        """What was asked for, a row for each image: of arrays, which are of the side `trained.image_size`, gray levels 0 to 255,
        or of files, whose shorter side is scaled to that, and of which the central square counts (paper, section 2).

        Raises:
          UserError: for a file that is no picture.
        """
        rows = []
        for start in range(0, len(images), self.batch_size):
            batch = self._pixels(images[start : start + self.batch_size])
            missing = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), np.uint8)  # so that one program does for all
            on_devices = jax.device_put(np.concatenate([batch, missing]), batch_sharding(self._mesh))
            rows.append(np.asarray(self._average(self._params, self._mean, on_devices))[: len(batch)])
        return np.concatenate(rows)

    def classify(self, images: Images | Photos, top: int = 5) -> list[list[ClassProbability]]:
        """The most probable classes of each image, the most probable first; images as above.

        Raises:
          UserError: for a file that is no picture, or if a layer was asked for instead of probabilities.
        """
        if self._layer is not None:
            raise UserError(f"what {self._layer} puts out are no probabilities: make a Predictor without a layer")
        names = self.trained.classes
        return [[ClassProbability(names[label], float(row[label])) for label in np.argsort(-row)[:top]] for row in self(images)]

    def _pixels(self, images: Images | Photos) -> Images:
        if isinstance(images, np.ndarray):
            return images
        size = self.trained.image_size
        return np.stack([read_photo(Path(file), size=size, encoding="raw", image_size=size) for file in images])

    def batches(self, dataset: Dataset, split: str) -> Iterator[SplitPredictions]:
        """A split of a data set, batch after batch, in its order."""
        size = self.trained.image_size
        stream = evaluation_batches(dataset, split, image_size=size, input_size=size, batch_size=self.batch_size)
        for batch in stream:
            yield SplitPredictions(np.asarray(batch.label), self(batch.image))

    def split(self, dataset: Dataset, split: str) -> SplitPredictions:
        """The whole of a split."""
        labels, rows = zip(*self.batches(dataset, split), strict=True)
        return SplitPredictions(np.concatenate(labels), np.concatenate(rows))
