"""Small two-tower network on synthetic images, which trains in minutes on a CPU.

    make train

This network is not in the paper, but it has all of the paper's ingredients: two towers that communicate at conv3, fc6, fc7 and
fc8, response normalization, overlapping pooling, dropout, random crops, horizontal flips, color shifts, and the update rule.

Measured: experiments/results/quickstart.json, one seed, with time, hardware and errors; the README has a table of it.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.alexnet import QUICKSTART
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import StepDecay

CONFIG = TrainConfig(
    network=QUICKSTART,
    default_data="synthetic",
    epochs=28,
    batch_size=32,
    learning_rate=0.004,
    schedule=StepDecay((22,)),
    augmentation=Augmentation(image_size=128),
)
