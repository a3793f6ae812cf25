"""What a trained network sees in images, for an index and for its queries (paper, section 6.1)."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.analysis.index import About, Index, Indexed, new_index
from alexnet_jax.console import track_progress
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.layers import Dropout, Weighted
from alexnet_jax.model.network import Network
from alexnet_jax.weights.safetensors_file import SUFFIX
from alexnet_jax.weights.trained_model import TrainedModel, load


def last_hidden_layer(network: Network) -> str:
    """Name of the layer that the last one with weights reads, dropout apart: at test that only scales.

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> last_hidden_layer(TWO_TOWER)
      'fc7/relu'
    """
    layers = list(network.named_layers.items())
    last = max(place for place, (_, layer) in enumerate(layers) if isinstance(layer, Weighted))
    return next(name for name, layer in reversed(layers[:last]) if not isinstance(layer, Dropout))


def model_digest(trained: TrainedModel) -> str:
    """Changes with all that decides what the network makes of an image."""
    found = hashlib.sha256(json.dumps([trained.network.to_json(), trained.config["augmentation"]["mean"]]).encode())
    for leaf in (*jax.tree.leaves(trained.params), trained.mean_image):
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()


def build_index(trained: TrainedModel, dataset: Dataset, split: str, path: Path, *, batch_size: int = 128) -> Index:
    """Makes the index of a split: of each image, its center as the last hidden layer sees it.

    Raises:
      UserError: for a split or an image size that the data set does not have, a network whose outputs are no numbers, or a disk
        without room.
    """
    if split not in dataset.manifest.splits:
        raise UserError(f"{dataset.path} has no split {split!r}; it has {', '.join(dataset.manifest.splits)}")
    layer, manifest = last_hidden_layer(trained.network), dataset.manifest
    images = DecodedImages(dataset, split, trained.image_size)
    predictor = Predictor(trained, layer=layer, batch_size=batch_size)
    nothing = np.zeros((1, trained.image_size, trained.image_size, 3), np.uint8)
    about = About(
        images=len(images),
        features=predictor(nothing).shape[1],
        run=str(trained.path.resolve()),
        step=trained.step,
        parameters=model_digest(trained),
        layer=layer,
        data=str(dataset.path.resolve()),
        split=split,
        size=manifest.size,
        encoding=manifest.encoding,
    )
    rows = (row for batch in predictor.batches(dataset, split) for row in batch.rows)
    with new_index(path, about) as writer, closing(track_progress(rows, "Indexing", len(images))) as features:
        for number, row in enumerate(features):
            record = images.record(number)
            if not np.isfinite(row).all():
                raise UserError(f"{trained} makes {layer} of {record.name} no numbers: it cannot be indexed")
            writer.add(row[None], [Indexed(record.name, manifest.classes[record.label])])
    return Index(path)


def load_indexed_model(index: Index, run: Path | None = None) -> TrainedModel:
    """The network that made an index, which queries have to go through.

    Args:
      index: that is to be searched.
      run: where the run of its network, or its file, is now; None is where it was.

    Raises:
      UserError: if it is not there, or has other parameters.
    """
    about = index.about
    folder = run or Path(about.run)
    checkpoint = folder if folder.suffix == SUFFIX else folder / "checkpoints" / str(about.step)
    if not checkpoint.exists():
        moved = "say where the run is with --run, or make the index again"
        raise UserError(f"{index.path} was made by step {about.step} of {folder}, which is not there: {moved}")
    trained = load(checkpoint)
    if model_digest(trained) != about.parameters:
        raise UserError(f"{index.path} was made by other parameters than those of {trained}: make it again")
    return trained


def open_indexed_dataset(index: Index, path: Path | None = None) -> Dataset:
    """The data set that was indexed.

    Args:
      index: of it.
      path: where it is now; None is where it was.

    Raises:
      UserError: if it is not there, or is another.
    """
    dataset, about = open_dataset(path or Path(index.about.data)), index.about
    images = dataset.manifest.splits.get(about.split, 0)
    if images != about.images:
        raise UserError(f"{dataset.path} has {images:,} {about.split} images, and {index.path} {about.images:,}")
    return dataset
