"""The two towers made small, on pictures drawn by code: a whole training in minutes on a CPU.

    make train

Not in the paper. Everything of it is here: two towers that meet at conv3, fc6, fc7 and fc8, response normalization,
overlapping pooling, dropout, crops, mirroring, colour shifts, the update rule.
"""

from alexnet_jax.architectures import QUICKSTART
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.experiment import Experiment
from alexnet_jax.schedule import Cuts

EXPERIMENT = Experiment(
    network=QUICKSTART,
    default_data="embedded",
    epochs=28,
    batch_size=32,
    learning_rate=0.004,
    schedule=Cuts((22,)),
    augmentation=Augmentation(image_size=128),
)
