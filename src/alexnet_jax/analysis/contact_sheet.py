"""Contact sheet of a data set: augmented training images and the ten test views."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet_jax.analysis.plots import save_image
from alexnet_jax.data.images import SquarePixels
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import UNLABELED, Dataset
from alexnet_jax.evaluation.views import ten_views

COLUMNS, ROWS = 8, 3
TEST_IMAGES = 2
"""Number of images whose test views are shown."""
MIN_SIDE = 120
"""Minimum side of a displayed image, screen pixels; smaller images are enlarged by an integer factor."""
CAPTION, GAP = 18, 4  # screen pixels
_CROPS = ("top left", "top right", "bottom left", "bottom right", "center")
VIEWS = (*_CROPS, *(f"{crop}, flipped" for crop in _CROPS))


def draw_contact_sheet(
    dataset: Dataset, file: Path, augmentation: Augmentation, *, input_size: int, split: str | None = None, seed: int = 0
) -> None:
    """Draw the first augmented training images, before mean subtraction, and the ten views of some test images.

    Args:
      dataset: prepared data set.
      file: PNG file to write.
      augmentation: training augmentation.
      input_size: input size of the network, pixels.
      split: split of the images whose views are drawn; None uses validation, test or train, the first that there is.
      seed: random seed of the image order and the augmentation.

    Raises:
      UserError: if the data set does not support the augmentation's image size, or has no such split.
    """
    names = dataset.manifest.printed_classes
    split = split or next(split for split in ("validation", "test", "train") if split in dataset.manifest.splits)
    batches = training_batches(dataset, augmentation, input_size=input_size, batch_size=COLUMNS * ROWS, seed=seed)
    batch, size = next(batches), augmentation.image_size
    shifted = np.clip(np.rint(batch.image + batch.color_shift[:, None, None]), 0, 255).astype(np.uint8)
    cells = [(image, names[label]) for image, label in zip(shifted, batch.label, strict=True)]
    parts = [
        _caption(f"{dataset.path.name}, training: random crops of {input_size} out of {size} pixels, random flips, color shifts"),
        *(_row(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)),
        _caption(f"{split}: the whole image and its ten views (corner and center crops, and their horizontal flips)"),
    ]
    images = DecodedImages(dataset, split, size)
    for i in np.linspace(0, len(images) - 1, TEST_IMAGES).astype(int).tolist():
        record = images.record(i)
        image = images.decode(record)
        views, blank = list(zip(ten_views(image, input_size), VIEWS, strict=True)), np.full_like(image, 255)
        label = Path(record.name).name if record.label == UNLABELED else names[record.label]
        parts += [_row([(image, label), *views[:5]]), _row([(blank, ""), *views[5:]])]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    save_image(sheet, file)


def _row(cells: list[tuple[SquarePixels, str]]) -> Image.Image:
    """Draw images side by side, each with a caption below."""
    scale = max(1, -(-MIN_SIDE // len(cells[-1][0])))
    sides = [scale * len(pixels) for pixels, _ in cells]
    row = Image.new("RGB", (sum(sides) + GAP * len(cells), max(sides) + CAPTION + GAP), "white")
    left = 0
    for (pixels, caption), side in zip(cells, sides, strict=True):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        row.paste(image.resize((side, side), Image.Resampling.NEAREST), (left, 0))
        row.paste(_caption(caption, width=side), (left, side))
        left += side + GAP
    return row


def _caption(text: str, width: int | None = None) -> Image.Image:
    font = ImageFont.load_default(CAPTION - 5)
    image = Image.new("RGB", (width or int(font.getlength(text)) + 8, CAPTION), "white")
    ImageDraw.Draw(image).text((2, 1), text, "black", font)
    return image
