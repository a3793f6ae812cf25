"""The views of an image whose predictions are averaged at test (paper, section 4.1)."""

from typing import Any

from alexnet_jax.data.pipeline.augment import center_crop


def ten_views(images: Any, size: int) -> tuple[Any, ...]:
    """Four corners and the center, then the same flipped (paper, section 4.1); each [..., size, size, channels].

    `images` are of NumPy or, inside a jitted function, of JAX: a whole image crosses to the device once, not ten times.
    """
    bottom, right = (side - size for side in images.shape[-3:-1])
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    views = [images[..., top : top + size, left : left + size, :] for top, left in corners]
    views.append(center_crop(images, size))
    return (*views, *(view[..., ::-1, :] for view in views))


def nine_views(images: Any, size: int) -> tuple[Any, ...]:
    """Three by three squares from corner to corner, not flipped: the test of the original code for CIFAR (convdata_cifar.py)."""
    places = [[side * step // 2 for step in range(3)] for side in (images.shape[-3] - size, images.shape[-2] - size)]
    return tuple(images[..., top : top + size, left : left + size, :] for top in places[0] for left in places[1])
