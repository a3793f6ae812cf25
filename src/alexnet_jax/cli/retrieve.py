"""`retrieve`: find the images of an index that are nearest to photos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from alexnet_jax.analysis.examples import Picture, Retrieved, pictures
from alexnet_jax.analysis.figure4 import draw_retrieved
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import load_indexed_model, open_indexed_dataset
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.pipeline.photo import read_photo
from alexnet_jax.errors import UserError, disk_full_as_user_error
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.parallel.runtime import enable_compilation_cache


@dataclass(frozen=True)
class Retrieve:
    """Find the images of an index that are nearest to photos, by the network's last hidden layer.

    Prints one line per image found: photo, rank, distance, class and name, separated by tabs.

    Attributes:
      index: folder made by `index`.
      photos: image files; each is scaled and cropped to a square as the images of the data set were.
      nearest: number of images to find per photo.
      picture: PNG file to draw, with the photos in the first column and what was found next to them.
      run: where the network's run is now, if it was moved.
      data: where the prepared data set is now, if it was moved; only --picture needs it.
    """

    index: tyro.conf.Positional[Path]
    photos: tyro.conf.Positional[tuple[Path, ...]]
    nearest: int = 6
    picture: Path | None = None
    run: Path | None = None
    data: Path | None = None


def run(arguments: list[str]) -> None:
    """Print the images nearest to each photo, and draw them if asked to."""
    command = tyro.cli(Retrieve, prog="alexnet-jax retrieve", args=arguments)
    enable_compilation_cache()
    if not command.photos or command.nearest < 1:
        raise UserError("pass one or more photos, and a --nearest of 1 or more: alexnet-jax retrieve INDEX photo.jpg")
    index = Index(command.index)
    about, model = index.about, load_indexed_model(index, command.run)
    dataset = None if command.picture is None else open_indexed_dataset(index, command.data)
    pixels = [
        read_photo(photo, size=about.size, encoding=about.encoding, image_size=model.image_size) for photo in command.photos
    ]
    photos = np.stack(pixels)
    predictor = Predictor(model, layer=about.layer, batch_size=min(len(photos), 128))
    found = index.search(predictor(photos), command.nearest)
    images = index.images(found.rows)
    for photo, rows, distances in zip(command.photos, found.rows.tolist(), found.distances.tolist(), strict=True):
        for rank, (row, distance) in enumerate(zip(rows, distances, strict=True), 1):
            print(photo, rank, f"{distance:.6g}", images[row].label, images[row].name, sep="\t")
    if command.picture is not None and dataset is not None:
        stored = DecodedImages(dataset, about.split, model.image_size)
        retrieved = [
            Retrieved(
                Picture(pixels, "", photo.name),
                list(zip(pictures(stored, rows, dataset.manifest.classes), distances.tolist(), strict=True)),
            )
            for pixels, photo, rows, distances in zip(photos, command.photos, found.rows, found.distances, strict=True)
        ]
        with disk_full_as_user_error(f"for {command.picture}"):
            draw_retrieved(retrieved, command.picture)
