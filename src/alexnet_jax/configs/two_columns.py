"""What the towers' talking is worth: net 150 of the original code, two columns that are joined only at the classes.

    make train EXP=two_columns DATA=<ImageNet, prepared>

Not in the paper. Original log (layer-params-150.cfg): 41.83 % top-1 and 19.33 % top-5 error on the ILSVRC-2012 validation set,
ten views, against 40.66 % and 18.21 % of net 145, with nearly as many parameters: the columns
are wider where a tower would read the other.

The schedule is that of the log: weights' rate divided by ten after epochs 25, 49 and 79, conv1 slowed and the color noise taken
away after 66, conv1 frozen after 72, the end after 92; rates of biases as in source_145.py.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.alexnet import TWO_COLUMNS
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=TWO_COLUMNS,
    epochs=92,
    schedule=StepDecay(milestones=(25, 49, 79), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=(LayerRate("conv1", after=66, weights=1e-5), LayerRate("conv1", after=72, weights=0.0, biases=0.0)),
    augmentation=Augmentation(last_position=True, images_per_crop=32, mean="center", color="deviation", color_divisor=1.1),
    color_epochs=66,
)
