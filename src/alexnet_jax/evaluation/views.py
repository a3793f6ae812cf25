"""Crops and flips of an image over which predictions are averaged at test time (paper, section 4.1)."""

from typing import Any

from alexnet_jax.data.pipeline.augment import center_crop


def ten_views(images: Any, size: int) -> tuple[Any, ...]:
    """Return the four corner crops, the center crop, and the horizontal flips of these five (paper, section 4.1).

    Inside a jitted function, the crops are made on the device, so an image is transferred once instead of ten times.

    Args:
      images: NumPy or JAX array, [..., height, width, channels].
      size: side of a crop, pixels.

    Returns:
      Ten arrays, [..., size, size, channels].
    """
    bottom, right = (side - size for side in images.shape[-3:-1])
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    views = [images[..., top : top + size, left : left + size, :] for top, left in corners]
    views.append(center_crop(images, size))
    return (*views, *(view[..., ::-1, :] for view in views))


def nine_views(images: Any, size: int) -> tuple[Any, ...]:
    """Return a 3x3 grid of evenly spaced crops without flips, used by the original code to test on CIFAR (convdata_cifar.py).

    Args:
      images: NumPy or JAX array, [..., height, width, channels].
      size: side of a crop, pixels.

    Returns:
      Nine arrays, [..., size, size, channels].
    """
    offsets = [[side * step // 2 for step in range(3)] for side in (images.shape[-3] - size, images.shape[-2] - size)]
    return tuple(images[..., top : top + size, left : left + size, :] for top in offsets[0] for left in offsets[1])
