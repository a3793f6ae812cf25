"""Config of a small network with dropout and all augmentation, for trainings in other processes."""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.training.config import TrainConfig
from tests.tiny import TINY

CONFIG = TrainConfig(TINY, batch_size=32, learning_rate=0.002, augmentation=Augmentation(image_size=32))
