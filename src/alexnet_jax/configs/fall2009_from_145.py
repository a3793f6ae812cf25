"""The first step of pre-training: the convolutions of net 145, a new sixth one, and the 10,184 classes of Fall 2009.

    make train EXP=fall2009_from_145 ARGS="--init-from runs/source_145/…"

Original log (net 146-2009, layer-params-146-2009.cfg): conv1 to conv5 from net 145, which had been trained on ILSVRC-2012;
rate 0.001 for them and 0.01 for the new layers, 0.001 for those, too, after two epochs; ended in the seventh. No error is in
the log. fall2011.py goes on from here.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.alexnet import FALL2009
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CARRIED = ("conv1", "conv2", "conv3", "conv4", "conv5")

CONFIG = TrainConfig(
    network=FALL2009,
    default_data="fall2009",
    epochs=6,
    schedule=StepDecay(milestones=(2,), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=tuple(LayerRate(layer, after=0, weights=0.001) for layer in CARRIED),
    augmentation=Augmentation(last_position=True, images_per_crop=32, mean="center", color="deviation", color_divisor=1.1),
    init_layers=CARRIED,
)
