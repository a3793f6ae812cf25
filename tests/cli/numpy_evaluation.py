"""Evaluation of a run in NumPy, except for the forward pass."""

import jax
import numpy as np
import pytest

from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.parallel import placement
from alexnet_jax.weights.trained_model import load
from tests.conftest import cpu_mesh

# Top left corners of 29-pixel crops of 32-pixel images and 37-pixel crops of 64-pixel images. Ten views include flipped crops.
CROPS = {
    "center": {29: [(1, 1)], 37: [(13, 13)]},
    "ten": {29: [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)], 37: [(0, 0), (0, 27), (27, 0), (27, 27), (13, 13)]},
    "nine": {
        side: [(top, left) for top in offsets for left in offsets] for side, offsets in ((29, (0, 1, 3)), (37, (0, 13, 27)))
    },
}


def numpy_predictions(run, dataset, split, views):
    """Return the labels of a split, and the probabilities by a run's network, averaged over the views."""
    model = load(run)
    size, crop_mean = model.network.input_size, model.config.augmentation.mean == "crop"
    decoded = DecodedImages(dataset, split, model.image_size)
    images = np.stack([decoded.decode(decoded.record(index)).copy() for index in range(len(decoded))]).astype(np.float32)
    labels = np.array([decoded.record(index).label for index in range(len(decoded))])
    logits = placement.forward(model.network, cpu_mesh(model.network, 1, split=False))
    offset = (model.image_size - size) // 2
    center_mean = model.mean_image[offset : offset + size, offset : offset + size]
    total = np.zeros((len(labels), model.network.num_classes))
    crops = [(corner, flipped) for flipped in (False, True)[: 2 if views == "ten" else 1] for corner in CROPS[views][size]]
    for (top, left), flipped in crops:
        view = images[:, top : top + size, left : left + size]
        mean = model.mean_image[top : top + size, left : left + size]
        if flipped:
            view, mean = view[:, :, ::-1], mean[:, ::-1]
        inputs = view - (mean if crop_mean else center_mean)
        exponentials = np.exp(np.asarray(jax.jit(logits)(model.params, inputs, None), np.float64))
        total += exponentials / exponentials.sum(axis=1, keepdims=True)
    return labels, total / len(crops)


def numpy_errors(labels, probabilities):
    """Return the errors that `evaluate` writes."""
    num_classes = probabilities.shape[1]
    top5 = [
        label in sorted(range(num_classes), key=lambda c, row=row: -row[c])[:5]
        for label, row in zip(labels, probabilities, strict=True)
    ]
    wrong = probabilities.argmax(axis=1) != labels
    return {
        "top1_error": pytest.approx(wrong.mean(), abs=1e-6),
        "top5_error": pytest.approx(1 - np.mean(top5), abs=1e-6),
        "loss": pytest.approx(-np.log(probabilities[np.arange(len(labels)), labels]).mean(), rel=1e-4),
        "mean_class_error": pytest.approx(np.mean([wrong[labels == c].mean() for c in set(labels.tolist())]), abs=1e-6),
        "images": len(labels),
        "predicted_classes": len(set(probabilities.argmax(axis=1).tolist())),
    }
