"""What happens to an image between the record and the network (paper, sections 2 and 4.1).

On the host, one image at a time: decode, crop, mirror, and a draw of the colour shift, all uint8. On the device, a batch at
a time inside the jitted step: minus the mean, plus the shift. Every draw depends on the seed and the image's place in the
stream alone.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from alexnet_jax.data.images import BadImage, decode_jpeg
from alexnet_jax.data.records import Record, unpack
from alexnet_jax.data.statistics import ColorComponents


@dataclass(frozen=True)
class Augmentation:
    """How training images vary. The defaults follow the paper's prose; its code is in `experiments/source_145.py`.

    Attributes:
      image_size: side to which the prepared 256x256 image is decoded: 256, 128, 64 or 32.
      crop: random position of the network's input within the image; otherwise its centre.
      last_position: whether the crop may lie at the far edge: 33 x 33 positions, as in the code, instead of the 32 x 32
        that the paper's factor of 2048 implies.
      images_per_crop: how many consecutive images share one position and mirroring; 32 in the code.
      flip: mirror every second image.
      color: size of the shift along a principal component of the colours, in units of `color_std` draws: its "variance" is
        the eigenvalue of pixels scaled to [0, 1], as the paper says; its "deviation" the root, as the code does; None is no
        shift.
      color_std: standard deviation of the draws.
      color_divisor: what training images are divided by to make up for the shift; 1.1 in the code.
    """

    image_size: int = 256
    crop: bool = True
    last_position: bool = False
    images_per_crop: int = 1
    flip: bool = True
    color: Literal["variance", "deviation"] | None = "variance"
    color_std: float = 0.1
    color_divisor: float = 1.0


class Example(NamedTuple):
    """An image for the network; stacked, a batch.

    Attributes:
      image: pixels, [size, size, 3], not yet normalized.
      label: number of its class.
      color_shift: what to add to red, green and blue, grey levels.
    """

    image: UInt8[np.ndarray, "*batch size size 3"]
    label: Int[np.ndarray, "*batch"]
    color_shift: Float[np.ndarray, "*batch 3"]


@dataclass(frozen=True)
class TrainingView:
    """Callable `(place in the stream, record) -> Example`: the image as one draw of the augmentation shows it."""

    augmentation: Augmentation
    input_size: int
    colors: ColorComponents
    seed: int

    def __call__(self, place: int, data: bytes) -> Example:
        record = unpack(data)
        augmentation = self.augmentation
        image = _decode(record, augmentation.image_size)
        border = augmentation.image_size - self.input_size
        rng = self._rng(place // augmentation.images_per_crop, purpose=0)
        top, left = (
            rng.integers(0, max(border, 1) + augmentation.last_position, size=2) if augmentation.crop else (border // 2,) * 2
        )
        image = image[top : top + self.input_size, left : left + self.input_size]
        if augmentation.flip and rng.integers(2):
            image = image[:, ::-1]
        shift = np.zeros(3, np.float32)
        if augmentation.color is not None:
            draws = self._rng(place, purpose=1).normal(0.0, augmentation.color_std, size=3)
            shift = color_shift(draws, self.colors, augmentation.color).astype(np.float32)
        return Example(np.ascontiguousarray(image), np.asarray(record.label, np.int32), shift)

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        # Philox is a function of key and counter: each (seed, index) has a stream of its own, at no cost to find it.
        return np.random.Generator(np.random.Philox(key=[self.seed, index], counter=[0, 0, 0, purpose]))


@dataclass(frozen=True)
class CentreView:
    """Callable `record -> Example`: the central square, as it is."""

    image_size: int
    input_size: int

    def __call__(self, data: bytes) -> Example:
        record = unpack(data)
        image = centre(_decode(record, self.image_size), self.input_size)
        return Example(np.ascontiguousarray(image), np.asarray(record.label, np.int32), np.zeros(3, np.float32))


def color_shift(
    draws: Float[np.ndarray, "3"], colors: ColorComponents, scale: Literal["variance", "deviation"]
) -> Float[np.ndarray, "3"]:
    """Shift of (red, green, blue) in grey levels for one draw per component (paper, section 4.1).

    The paper multiplies draws by eigenvalues, which are squares: their unit matters, and with pixels in [0, 1] the shift is
    of a sensible size. The code multiplies by standard deviations, on any scale: about twice as much on ImageNet.
    """
    sizes = colors.deviations if scale == "deviation" else 255 * (colors.deviations / 255) ** 2
    return colors.directions @ (draws * sizes)


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """Central square of `size` pixels of [height, width, channels]."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def mean_to_subtract(
    mean_image: Float[np.ndarray, "full full 3"], image_size: int, input_size: int
) -> Float[np.ndarray, "size size 3"]:
    """The centre of the mean image, at the resolution the network sees; the code subtracts it from every crop."""
    blocks = mean_image.shape[0] // image_size
    small = mean_image.reshape(image_size, blocks, image_size, blocks, 3).mean(axis=(1, 3))
    return centre(small, input_size)


def _decode(record: Record, size: int) -> UInt8[np.ndarray, "size size 3"]:
    try:
        return decode_jpeg(record.image, size)
    except BadImage as error:
        raise BadImage(f"{record.name} in the prepared data set: {error}") from error
