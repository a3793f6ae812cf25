"""Second step of pre-training (section 6): the 21,843 classes of the Fall 2011 release, with a linear bottleneck before fc8.

    alexnet-jax prepare --from <folder of a .tar for each synset> --to data/fall2011
    make train EXP=fall2011 ARGS="--init-from runs/fall2009_from_145/…"

Original log (net 146-2011, layer-params-146-2011.cfg): only the convolutions are copied from net 146-2009. The learning rate is
0.001 for these and 0.01 for the other layers, for which it is reduced to 0.001 after six epochs. The run ends in the eighth
epoch; it logs no error.

The last step is finetune.py.
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import FALL2011
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

COPIED_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")

CONFIG = TrainConfig(
    network=FALL2011,
    default_data="fall2011",
    epochs=8,
    schedule=StepDecay(milestones=(6,), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=tuple(LayerRate(layer, after=0, weights=0.001) for layer in COPIED_LAYERS),
    augmentation=SOURCE_AUGMENTATION,
    init_layers=COPIED_LAYERS,
)
