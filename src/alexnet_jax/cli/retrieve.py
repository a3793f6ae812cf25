"""`retrieve`: find the images of an index that are nearest to photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from alexnet_jax.analysis.examples import LabeledImage, Retrieval, read_images
from alexnet_jax.analysis.figure4 import draw_retrievals
from alexnet_jax.analysis.index import Index
from alexnet_jax.analysis.indexing import load_indexed_model, open_indexed_dataset
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.photo_files import check_all_read, photo_files, read_photos
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.pipeline.photo import decode_as_stored
from alexnet_jax.errors import UserError, check_number, disk_full_as_user_error
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.text import printable
from alexnet_jax.weights.trained_model import is_model, latest_step, output_dir


@dataclass(frozen=True)
class Retrieve:
    """Find the images of an index that are nearest to photos, by the outputs of the network's last hidden layer.

    Prints one line per retrieved image: photo, rank, distance, class and name, separated by tabs.

    Attributes:
      index: folder created by `index`, or the run folder, checkpoint or .safetensors file for which `index` has created one.
      photos: photos, or folders or tar archives of photos; each photo is scaled and cropped to a square as the images of the data
        set were. Files that cannot be read are named and skipped, and the exit code is then 1.
      nearest: number of images to retrieve per photo.
      picture: PNG file to write, with one row per photo: the photo and the images retrieved for it.
      run: current run folder or file of the network, if the network was moved after the index was built.
      data: current folder of the prepared data set, if the data set was moved after the index was built; only used by --picture.
    """

    index: tyro.conf.Positional[Path]
    photos: tyro.conf.Positional[tuple[Path, ...]]
    nearest: Annotated[int, tyro.conf.arg(aliases=["--top"])] = 6
    picture: Path | None = None
    run: Path | None = None
    data: Path | None = None


def run(arguments: list[str]) -> None:
    """Print the images nearest to each photo, and draw them if --picture is given."""
    command = parse(Retrieve, "retrieve", arguments)
    configure_process()
    check_number("--nearest", command.nearest, at_least=1)
    if not command.photos:
        raise UserError("pass one or more photos: alexnet-jax retrieve INDEX photo.jpg")
    index = Index(output_dir(command.index) / "index" if is_model(command.index) else command.index)
    metadata, model = index.metadata, load_indexed_model(index, command.run)
    if is_model(command.index) and (latest := latest_step(command.index)) not in (None, metadata.step):
        console.print(f"{index.path} is of step {metadata.step}, but {command.index} has reached step {latest}", style="yellow")
    dataset = None if command.picture is None else open_indexed_dataset(index, command.data)
    files = [file for path in command.photos for file in photo_files(path)]

    def decode(data: bytes, name: str) -> np.ndarray:
        return decode_as_stored(data, name, metadata.size, metadata.encoding, model.image_size)

    names, pixels = read_photos(files, decode)
    if not names:
        check_all_read(len(files), 0)
    photos = np.stack(pixels)
    predictor = Predictor(model, layer=metadata.layer, batch_size=min(len(photos), 128))
    neighbors = index.search(predictor(photos), command.nearest)
    images = index.images(neighbors.indices)
    printed = dict(zip(model.classes, model.printed_classes, strict=True))
    for photo, indices, distances in zip(names, neighbors.indices.tolist(), neighbors.distances.tolist(), strict=True):
        for rank, (image, distance) in enumerate(zip(indices, distances, strict=True), 1):
            name, label = images[image]
            fields = (photo, printed.get(label, label), name)
            photo_text, label_text, name_text = map(printable, fields)  # without tabs and newlines
            print(photo_text, rank, f"{distance:.6g}", label_text, name_text, sep="\t")
    if command.picture is not None and dataset is not None:
        stored = DecodedImages(dataset, metadata.split, model.image_size)
        retrievals = [
            Retrieval(
                LabeledImage(pixels, "", Path(name).name),
                list(zip(read_images(stored, indices, dataset, printed), distances.tolist(), strict=True)),
            )
            for pixels, name, indices, distances in zip(photos, names, neighbors.indices, neighbors.distances, strict=True)
        ]
        with disk_full_as_user_error(f"for {command.picture}"):
            draw_retrievals(retrievals, command.picture)
    check_all_read(len(files), len(names))
