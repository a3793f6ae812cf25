"""Source that reads the images of some classes from a prepared data set."""

import difflib
from collections.abc import Sequence

import numpy as np

from alexnet_jax.console import track_progress
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.errors import UserError

MAX_NAMED = 4
"""Maximum number of classes named in the error about an unknown one."""


class SelectedClasses(Source):
    """Images of some classes of a prepared data set, in its order and with labels from 0.

    Raises:
      UserError: if the data set does not have one of the classes, or fewer than two are given.
    """

    prepared = True

    def __init__(self, dataset: Dataset, classes: Sequence[str]):
        manifest = dataset.manifest
        self.classes = selected_names(dataset, classes)
        self.description = f"{len(self.classes)} classes of {dataset.path}"
        self.size, self.raw, self._checksum = manifest.size, manifest.encoding == "raw", dataset.checksum
        self._images = {split: DecodedImages(dataset, split, manifest.size) for split in SPLITS if split in manifest.splits}
        names = dict(zip(manifest.classes, manifest.display_names, strict=False))
        self.display_names = [names[name] for name in self.classes] if names else []
        self._new_labels = {manifest.classes.index(name): label for label, name in enumerate(self.classes)}
        selected = {split: self._select(split) for split in self._images if split not in manifest.unlabeled}
        self._indices = {split: indices for split, indices in selected.items() if indices}
        self.num_images = {split: len(indices) for split, indices in self._indices.items()}

    def _select(self, split: str) -> list[int]:
        """Return the indices of the images of the classes; this reads all images of the split."""
        images = self._images[split]
        indices = track_progress(range(len(images)), f"selecting {split} images", len(images))
        return [index for index in indices if images.record(index).label in self._new_labels]

    def read(self, split: str, index: int) -> SourceImage:
        record = self._images[split].record(self._indices[split][index])
        label, size = self._new_labels[record.label], self.size
        data = np.frombuffer(record.image, np.uint8).reshape(size, size, 3) if self.raw else record.image
        return SourceImage(record.name, label, data)

    def fingerprint(self) -> str:
        return self._checksum


def selected_names(dataset: Dataset, classes: Sequence[str]) -> list[str]:
    """Return the names of the selected classes in the order of the data set.

    Raises:
      UserError: if the data set does not have one of the classes, or fewer than two are given.
    """
    names = dataset.manifest.classes
    for name in classes:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, MAX_NAMED, cutoff=0)
            raise UserError(f"{dataset.path} has no class {name!r}; the nearest are {', '.join(map(repr, nearest))}")
    selected = [name for name in names if name in classes]
    if len(selected) < 2:
        raise UserError("--classes needs two or more different classes")
    return selected
