"""`retrieve`: find the images of an index that are nearest to photos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from alexnet_jax.analysis.code_search import CANDIDATES, read_codes, search_index
from alexnet_jax.analysis.exact_search import Neighbors
from alexnet_jax.analysis.examples import LabeledImage, Retrieval, read_images
from alexnet_jax.analysis.figure4 import draw_retrievals
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import load_indexed_model, open_indexed_dataset
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.photo_files import check_all_read, photo_files, read_photos
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console, count
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.pipeline.photo import decode_as_stored
from alexnet_jax.data.sources.file_table import Entry
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import check_png, is_same_file
from alexnet_jax.text import printable
from alexnet_jax.weights.trained_model import TrainedModel, is_model, latest_step, output_dir

BATCH_SIZE = 128
"""Number of photos that are decoded at a time."""
EXACT_QUERIES = 4096
"""Number of photos that are searched for in one pass over the index."""
MAX_ROWS = 50
"""Maximum number of photos in a picture, which Matplotlib draws in a time and memory that grow faster than their number."""


@dataclass(frozen=True)
class Retrieve:
    """Find the images of an index that are nearest to photos, by the outputs of the network's last hidden layer.

    Prints one line per retrieved image: photo, rank, distance, class and name, separated by tabs. If the index has binary codes,
    the images with the nearest codes are compared with a photo, otherwise all images.

    Attributes:
      index: folder created by `index`, or the run folder, checkpoint or .safetensors file for which `index` has created one.
      photos: photos, or folders or tar archives of photos; each photo is scaled and cropped to a square as the images of the data
        set were. Files that cannot be read are named and skipped, and the exit code is then 1.
      nearest: number of images to retrieve per photo.
      exact: compare all images with a photo, even if the index has binary codes.
      candidates: number of images with the nearest codes that are compared with a photo: more take longer and miss fewer of the
        nearest images.
      picture: PNG file to write, with one row for each of the first 50 photos: the photo and the images retrieved for it.
      run: current run folder or file of the network, if the network was moved after the index was built.
      data: current folder of the prepared data set, if the data set was moved after the index was built; only used by --picture.
    """

    index: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX|RUN")]
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO|FOLDER…")]
    nearest: Annotated[int, tyro.conf.arg(aliases=["--top"])] = 6
    exact: bool = False
    candidates: int = CANDIDATES
    picture: Path | None = None
    run: Path | None = None
    data: Path | None = None


def run(arguments: list[str]) -> None:
    """Print the images nearest to each photo, and draw them if --picture is given."""
    command = parse(Retrieve, "retrieve", arguments)
    configure_process()
    check_number("--nearest", command.nearest, at_least=1)
    check_number("--candidates", command.candidates, at_least=1)
    if not command.photos:
        raise UserError("pass one or more photos: alexnet-jax retrieve INDEX photo.jpg")
    if command.picture is not None:
        check_png("--picture", command.picture)
    index = Index(output_dir(command.index) / "index" if is_model(command.index) else command.index)
    codes = None if command.exact else read_codes(index)
    metadata, model = index.metadata, load_indexed_model(index, command.run)
    if is_model(command.index) and (latest := latest_step(command.index)) not in (None, metadata.step):
        console.print(f"{index.path} is of step {metadata.step}, but {command.index} has reached step {latest}", style="yellow")
    dataset = None if command.picture is None else open_indexed_dataset(index, command.data)
    files = [file for path in command.photos for file in photo_files(path)]
    if command.picture is not None and any(is_same_file(command.picture, file.path) for file in files):
        raise UserError(f"{command.picture} is one of the photos: choose a different --picture")
    all_images = count(metadata.images, "image")
    if codes is None:
        console.print(f"Searching {all_images} exactly")
    else:
        method = f"{codes.encoder.bits}-bit codes, with exact distances of the nearest {command.candidates:,}"
        console.print(f"Searching {all_images} by {method}; --exact compares all")
    if command.picture is not None and len(files) > MAX_ROWS:
        console.print(f"{command.picture} will show the first {MAX_ROWS} of {len(files):,} photos")

    printed = dict(zip(model.classes, model.printed_classes, strict=True))
    num_read, retrievals = 0, list[Retrieval]()
    queries_per_search = EXACT_QUERIES if codes is None else BATCH_SIZE
    for queries in _queries(files, index, model, queries_per_search, num_shown=0 if dataset is None else MAX_ROWS):
        nearest = min(command.nearest, metadata.images)
        neighbors = search_index(index, codes, queries.features, nearest, command.candidates)
        _print_neighbors(queries.names, neighbors, index, printed)
        if dataset is not None:
            stored = DecodedImages(dataset, metadata.split, model.image_size)
            for pixels, name, indices, distances in zip(queries.pixels, queries.names, *neighbors, strict=False):
                images = zip(read_images(stored, indices, dataset, printed), distances.tolist(), strict=True)
                retrievals.append(Retrieval(LabeledImage(pixels, "", Path(name).name), list(images)))
        num_read += len(queries.names)
    if command.picture is not None and retrievals:
        draw_retrievals(retrievals, command.picture)
    check_all_read(len(files), num_read)


class _Queries(NamedTuple):
    """Names and features of photos, and the pixels of the first of them, which are drawn."""

    names: list[str]
    features: np.ndarray
    pixels: list[np.ndarray]


def _queries(files: Sequence[Entry], index: Index, model: TrainedModel, size: int, *, num_shown: int) -> Iterator[_Queries]:
    """Yield the photos that can be read, in order; print the reason for each other one.

    Photos are decoded in batches of `BATCH_SIZE`, of which only the features are kept.

    Args:
      files: photos.
      index: index to search.
      model: model of the index.
      size: number of photos after which they are yielded.
      num_shown: number of photos whose pixels are kept, too: the first ones that can be read.
    """
    metadata = index.metadata
    predictor = Predictor(model, layer=metadata.layer, batch_size=min(len(files), BATCH_SIZE))

    def decode(data: bytes, name: str) -> np.ndarray:
        return decode_as_stored(data, name, metadata.size, metadata.encoding, model.image_size)

    names: list[str] = []
    features: list[np.ndarray] = []
    pixels: list[np.ndarray] = []
    for number, (batch_names, photos) in enumerate(read_photos(files, decode, BATCH_SIZE, "Searching"), 1):
        if photos:
            names += batch_names
            features.append(predictor(np.stack(photos)))
            pixels += photos[:num_shown]
            num_shown -= len(photos[:num_shown])
        is_last = number * BATCH_SIZE >= len(files)
        if names and (is_last or len(names) >= size):
            yield _Queries(names, np.concatenate(features), pixels)
            names, features, pixels = [], [], []


def _print_neighbors(photos: Sequence[str], neighbors: Neighbors, index: Index, printed: dict[str, str]) -> None:
    """Print one line per neighbor of each photo."""
    images = index.images(neighbors.indices)
    for photo, indices, distances in zip(photos, neighbors.indices.tolist(), neighbors.distances.tolist(), strict=True):
        for rank, (image, distance) in enumerate(zip(indices, distances, strict=True), 1):
            name, label = images[image]
            fields = (photo, printed.get(label, label), name)
            photo_text, label_text, name_text = map(printable, fields)  # without tabs and newlines
            print(photo_text, rank, f"{distance:.6g}", label_text, name_text, sep="\t")
