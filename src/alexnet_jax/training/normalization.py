"""Normalization of images on the device: subtraction of the mean image, and color shifts."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alexnet_jax.data.pipeline.augment import Crop, Example, center_crop

MeanImage = Float[Array, "full full 3"] | Float[np.ndarray, "full full 3"]
"""Mean image of the training set before cropping, in gray levels."""


def normalize(batch: Example, mean: MeanImage) -> Float[Array, "batch size size 3"]:
    """Return the input of the first layer: pixels minus the mean image plus the color shift, in gray levels."""
    size = batch.image.shape[1]
    mean_pixels = center_crop(mean, size) if batch.crop is None else crop_mean_image(mean, batch.crop, size)
    shift = jnp.asarray(batch.color_shift)[:, None, None, :]
    return jnp.asarray(batch.image, jnp.float32) - mean_pixels + shift


def crop_mean_image(mean: MeanImage, crop: Crop, size: int) -> Float[Array, "batch size size 3"]:
    """Return the crop of the mean image for each image of a batch, flipped if the image is flipped."""
    position, flipped = jnp.asarray(crop.position), jnp.asarray(crop.flipped)
    offsets = jnp.arange(size)
    rows = position[:, 0, None] + offsets
    columns = position[:, 1, None] + jnp.where(flipped[:, None], offsets[::-1], offsets)
    return jnp.asarray(mean)[rows[:, :, None], columns[:, None, :]]
