"""An experiment whose losses differ between meshes by rounding alone. It logs every step."""

from dataclasses import replace

import alexnet_jax.report
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.experiment import Experiment
from alexnet_jax.layers import Dropout
from tests.tiny import TINY

alexnet_jax.report.LOG_EVERY = 1

EXPERIMENT = Experiment(
    replace(TINY, layers=tuple(layer for layer in TINY.layers if not isinstance(layer, Dropout))),
    batch_size=16,
    learning_rate=0.002,
    augmentation=Augmentation(image_size=32),
)
