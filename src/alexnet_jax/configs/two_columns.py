"""Two towers without communication before the last layer: net 150 of the original code, to measure the effect of communication.

    make train EXP=two_columns DATA=<ImageNet, prepared>

This network is not in the paper. Original log (layer-params-150.cfg): 41.83% top-1 and 19.33% top-5 error on the ILSVRC-2012
validation set, ten views, compared with 40.66% and 18.21% for net 145. The number of parameters is nearly the same, because
the columns are wider where a tower of net 145 reads the other tower.

The schedule is that of the log: the learning rate of weights is divided by ten after epochs 25, 49 and 79; after epoch 66, conv1
gets a lower rate and the color noise ends; after epoch 72, conv1 is frozen; training ends after epoch 92. The rates of biases
are those of source_145.py.
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import TWO_COLUMNS
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=TWO_COLUMNS,
    epochs=92,
    schedule=StepDecay(milestones=(25, 49, 79), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=(LayerRate("conv1", after=66, weights=1e-5), LayerRate("conv1", after=72, weights=0.0, biases=0.0)),
    augmentation=SOURCE_AUGMENTATION,
    color_epochs=66,
)
