"""First step of pre-training (section 6): net 145 with a new sixth convolution, on the 10,184 classes of the Fall 2009 release.

    make train EXP=fall2009_from_145 ARGS="--init-from runs/source_145/…"

Original log (net 146-2009, layer-params-146-2009.cfg): conv1 to conv5 are copied from net 145, trained on ILSVRC-2012. The
learning rate is 0.001 for these and 0.01 for the new layers, for which it is reduced to 0.001 at batch 1,600 of about 8,700 in
the second epoch. The run ends in the sixth epoch; it logs no error.

The second step is fall2011.py.
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import FALL2009
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

COPIED_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")

CONFIG = TrainConfig(
    network=FALL2009,
    default_data="fall2009",
    epochs=6,
    schedule=StepDecay(milestones=(1,), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=tuple(LayerRate(layer, after=0, weights=0.001) for layer in COPIED_LAYERS),
    augmentation=SOURCE_AUGMENTATION,
    init_layers=COPIED_LAYERS,
)
