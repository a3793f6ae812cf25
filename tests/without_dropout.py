"""Config without dropout, whose losses on different meshes differ only by rounding.

Importing this module sets the logging interval to one step.
"""

from dataclasses import replace

import alexnet_jax.training.run_logger
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.layers import Dropout
from alexnet_jax.training.config import TrainConfig
from tests.tiny import TINY

alexnet_jax.training.run_logger.LOG_EVERY = 1

CONFIG = TrainConfig(
    replace(TINY, layers=tuple(layer for layer in TINY.layers if not isinstance(layer, Dropout))),
    batch_size=16,
    learning_rate=0.002,
    augmentation=Augmentation(image_size=32),
)
