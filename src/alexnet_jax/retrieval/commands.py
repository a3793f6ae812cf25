"""What `python -m alexnet_jax index` and `retrieve` do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from alexnet_jax.data.loading import Images
from alexnet_jax.data.locate import find_again
from alexnet_jax.data.photo import read_photo
from alexnet_jax.errors import UserError, full_disk_told
from alexnet_jax.evaluation.predict import Predictor
from alexnet_jax.inspect.examples import Picture, Retrieved, pictures
from alexnet_jax.inspect.figure4 import draw_retrieved
from alexnet_jax.retrieval.features import build_index, dataset_of, network_of
from alexnet_jax.retrieval.index import Index
from alexnet_jax.trained import load


@dataclass(frozen=True)
class MakeIndex:
    """Writes down what the last hidden layer of a trained network makes of each image, to be searched by `retrieve`."""

    run: tyro.conf.Positional[Path]
    """Run folder, or one of its checkpoints, RUN/checkpoints/STEP, which has to stay as long as the index."""
    to: Path
    """Folder to make: 4 bytes for each unit of the layer and each image; 20 GB for the paper's network and ImageNet."""
    best: bool = False
    """Of a run, take the checkpoint with the smallest validation error instead of the last."""
    data: str | None = None
    """A folder of images, a prepared folder, or a name in the data folder; None is what the network was trained on."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""
    split: str = "train"
    """Which images of it."""
    batch_size: int = 128
    """Images at a time."""


def make_index(command: MakeIndex) -> Path:
    """Makes an index; the folder is returned."""
    if command.to.exists():  # said before the network is read
        raise UserError(f"{command.to} exists: choose another folder for --to, or delete it")
    trained = load(command.run, best=command.best)
    dataset = find_again(command.data, trained.config["data"]["path"], command.data_dir)
    return build_index(trained, dataset, command.split, command.to, batch_size=command.batch_size).path


@dataclass(frozen=True)
class Retrieve:
    """Finds the images of an index that are nearest to photos, as the network sees them.

    Prints a line for each: photo, rank, distance, class and name, with tabs between them.
    """

    index: tyro.conf.Positional[Path]
    """Folder that `index` has made."""
    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Files; each is made a square as the images of the data set were."""
    nearest: int = 6
    """How many to find for each."""
    picture: Path | None = None
    """PNG file to draw: the photos in the first column, what was found beside them."""
    run: Path | None = None
    """Where the run of the network is now, if it has moved."""
    data: Path | None = None
    """Where the prepared data set is now, if it has moved; the picture needs it."""


def retrieve(command: Retrieve) -> None:
    """Looks for photos in an index."""
    if not command.photos or command.nearest < 1:
        raise UserError("name one or more photos, and one or more --nearest: python -m alexnet_jax retrieve INDEX photo.jpg")
    index = Index(command.index)
    about, trained = index.about, network_of(index, command.run)
    dataset = None if command.picture is None else dataset_of(index, command.data)
    read = [
        read_photo(photo, size=about.size, encoding=about.encoding, image_size=trained.image_size) for photo in command.photos
    ]
    photos = np.stack(read)
    predictor = Predictor(trained, layer=about.layer, batch_size=min(len(photos), 128))
    found = index.search(predictor(photos), command.nearest)
    images = index.images(found.rows)
    for photo, rows, distances in zip(command.photos, found.rows.tolist(), found.distances.tolist(), strict=True):
        for rank, (row, distance) in enumerate(zip(rows, distances, strict=True), 1):
            print(photo, rank, f"{distance:.6g}", images[row].label, images[row].name, sep="\t")
    if command.picture is not None and dataset is not None:
        stored = Images(dataset, about.split, trained.image_size)
        retrieved = [
            Retrieved(
                Picture(pixels, "", photo.name),
                list(zip(pictures(stored, rows, dataset.manifest.classes), distances.tolist(), strict=True)),
            )
            for pixels, photo, rows, distances in zip(photos, command.photos, found.rows, found.distances, strict=True)
        ]
        with full_disk_told(f"for {command.picture}"):
            draw_retrieved(retrieved, command.picture)
