"""Building and loading of an index of last-hidden-layer features (paper, section 6.1)."""

import hashlib
import json
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet_jax.analysis.index import Index, IndexedImage, IndexMetadata
from alexnet_jax.analysis.index_writer import create_index
from alexnet_jax.console import console, track_progress
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset, open_dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import resolved
from alexnet_jax.model.layers import Dropout, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import params_digest
from alexnet_jax.parallel.distributed import from_main_process, is_main_process, sync_processes
from alexnet_jax.weights.safetensors_file import SUFFIX
from alexnet_jax.weights.trained_model import TrainedModel, load


def last_hidden_layer(network: Network) -> str:
    """Return the name of the layer whose outputs are the input of the last layer with weights.

    Dropout is skipped because at test time it only scales its input.

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> last_hidden_layer(TWO_TOWER)
      'fc7/relu'
    """
    layers = list(network.named_layers.items())
    last = max(index for index, (_, layer) in enumerate(layers) if isinstance(layer, WeightedLayer))
    return next(name for name, layer in reversed(layers[:last]) if not isinstance(layer, Dropout))


def model_digest(model: TrainedModel) -> str:
    """Return a SHA-256 digest of everything that determines a model's outputs.

    It covers the network, the parameters, the mean image, and how the mean image is cropped.
    """
    arrays = params_digest({"params": model.params, "mean_image": model.mean_image})
    settings = [model.network.to_json(), model.config.augmentation.mean, arrays]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def build_index(
    model: TrainedModel, dataset: Dataset, split: str, path: Path, *, batch_size: int = 128, devices: int | None = None
) -> Index:
    """Build an index of a split, with the last hidden layer's outputs for the center crop of each image.

    If `path` is an index of the same model and images, it is only opened. With several processes, all call this function, and
    process 0 writes the index.

    Raises:
      UserError: if the data set lacks the split or the model's image size, a feature is not finite, `path` exists with different
        content, or the disk is full.
    """
    if split not in dataset.manifest.splits:
        raise UserError(f"{dataset.path} has no split {split!r}: choose one of {', '.join(dataset.manifest.splits)}")
    layer, manifest = last_hidden_layer(model.network), dataset.manifest
    images = DecodedImages(dataset, split, model.image_size)
    predictor = Predictor(model, layer=layer, batch_size=batch_size, devices=devices)
    black = np.zeros((1, model.image_size, model.image_size, 3), np.uint8)
    metadata = IndexMetadata(
        images=len(images),
        features=predictor.predict_batch(black).shape[1],
        run=str(resolved(model.path)),
        step=model.step,
        parameters=model_digest(model),
        layer=layer,
        data=str(resolved(dataset.path)),
        split=split,
        size=manifest.size,
        encoding=manifest.encoding,
    )
    if from_main_process(path.exists()):
        try:
            index = Index(path)
        except UserError as error:
            raise UserError(f"{path} exists and is not a complete index: pass another folder as --to") from error
        # The sizes of the files are known only when the index is complete.
        if replace(index.metadata, features_bytes=0, names_bytes=0, format=metadata.format) != metadata:
            found = index.metadata
            other = f"the {found.split} images of {found.data} by {found.run} at step {found.step}"
            raise UserError(f"{path} is the index of {other}: pass another folder as --to, or delete it")
        console.print(f"{path} is already complete")
        return index
    rows = (row for batch in predictor.batches(dataset, split) for row in batch.outputs)
    with (
        create_index(path, metadata) if is_main_process() else nullcontext() as writer,
        closing(track_progress(rows, "Indexing", len(images))) as features,
    ):
        for number, row in enumerate(features):
            if not np.isfinite(row).all():
                name = images.record(number).name
                raise UserError(f"{model} has non-finite outputs in {layer} for {name}: pass a different checkpoint")
            if writer is not None:
                record = images.record(number)
                writer.add(row[None], [IndexedImage(record.name, dataset.class_of(record.label))])
    sync_processes("build index")
    return Index(path)


def load_indexed_model(index: Index, run: Path | None = None) -> TrainedModel:
    """Load the model that an index was built with, to compute the features of queries.

    Args:
      index: index to search.
      run: current run folder or file of the model; None uses the one recorded in the index.

    Raises:
      UserError: if the model does not exist, or has different parameters.
    """
    metadata = index.metadata
    folder = run or Path(metadata.run)
    checkpoint = folder if folder.suffix == SUFFIX else folder / "checkpoints" / str(metadata.step)
    if not checkpoint.exists():
        advice = "if it was moved, pass its folder or file as --run; otherwise rebuild the index"
        raise UserError(f"the model of {index.path}, step {metadata.step} of {folder}, does not exist: {advice}")
    model = load(checkpoint)
    if model_digest(model) != metadata.parameters:
        raise UserError(f"{index.path} was built from different parameters than {model}: rebuild the index")
    return model


def open_indexed_dataset(index: Index, path: Path | None = None) -> Dataset:
    """Open the data set that an index was built from.

    Args:
      index: index of the data set.
      path: current folder of the data set; None uses the one recorded in the index.

    Raises:
      UserError: if the data set does not exist, or has a different number of images.
    """
    dataset, metadata = open_dataset(path or Path(index.metadata.data)), index.metadata
    images = dataset.manifest.splits.get(metadata.split, 0)
    if images != metadata.images:
        raise UserError(
            f"{dataset.path} has {images:,} {metadata.split} images, but {index.path} has {metadata.images:,}: rebuild the index"
        )
    return dataset
