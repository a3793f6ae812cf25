"""A contact sheet of a data set: what training shows the network, and the ten views of testing."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.evaluation.views import ten_views

COLUMNS, ROWS = 8, 3
TESTED = 2  # images whose ten views are shown
SIDE = 120  # screen pixels that a small image is enlarged to, at least
CAPTION, GAP = 18, 4  # screen pixels
_CORNERS = ("top left", "top right", "bottom left", "bottom right", "center")
VIEWS = (*_CORNERS, *(f"{corner}, flipped" for corner in _CORNERS))

Pixels = UInt8[np.ndarray, "size size 3"]


def draw_contact_sheet(dataset: Dataset, file: Path, augmentation: Augmentation, *, input_size: int, seed: int = 0) -> None:
    """Writes a PNG: the first training images as the network gets them but for the mean, then the views of testing.

    Args:
      dataset: a prepared data set.
      file: to write.
      augmentation: of training.
      input_size: side of the network's input, pixels.
      seed: of order and augmentation.

    Raises:
      UserError: for an image size that the data set does not have.
    """
    names = dataset.manifest.classes
    split = next(split for split in ("validation", "test", "train") if split in dataset.manifest.splits)
    batches = training_batches(dataset, augmentation, input_size=input_size, batch_size=COLUMNS * ROWS, seed=seed)
    batch, size = next(batches), augmentation.image_size
    shifted = np.clip(np.rint(batch.image + batch.color_shift[:, None, None]), 0, 255).astype(np.uint8)
    shown = [(image, names[label]) for image, label in zip(shifted, batch.label, strict=True)]
    parts = [
        _caption(f"{dataset.path.name}, training: crops of {input_size} pixels out of {size}, flipped, colors shifted"),
        *(_row(shown[i : i + COLUMNS]) for i in range(0, len(shown), COLUMNS)),
        _caption(f"{split}: the whole image, then its ten views: corners and center, and the same flipped"),
    ]
    images = DecodedImages(dataset, split, size)
    for i in np.linspace(0, len(images) - 1, TESTED).astype(int).tolist():
        record = images.record(i)
        whole = images.pixels(record)
        views, nothing = list(zip(ten_views(whole, input_size), VIEWS, strict=True)), np.full_like(whole, 255)
        parts += [_row([(whole, names[record.label]), *views[:5]]), _row([(nothing, ""), *views[5:]])]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    sheet.save(file)


def _row(cells: list[tuple[Pixels, str]]) -> Image.Image:
    """Pictures side by side, with their captions below."""
    scale = max(1, -(-SIDE // len(cells[-1][0])))
    sides = [scale * len(pixels) for pixels, _ in cells]
    row = Image.new("RGB", (sum(sides) + GAP * len(cells), max(sides) + CAPTION + GAP), "white")
    left = 0
    for (pixels, caption), side in zip(cells, sides, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        row.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, 0))
        row.paste(_caption(caption, width=side), (left, side))
        left += side + GAP
    return row


def _caption(text: str, width: int | None = None) -> Image.Image:
    font = ImageFont.load_default(CAPTION - 5)
    image = Image.new("RGB", (width or int(font.getlength(text)) + 8, CAPTION), "white")
    ImageDraw.Draw(image).text((2, 1), text, "black", font)
    return image
