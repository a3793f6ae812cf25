"""The network whose logs are the paper's tables: net 145 of the original code, with the training its logs describe.

    make train EXP=source_145 DATA=<ImageNet, prepared>

Original log: 40.66 % top-1 and 18.21 % top-5 on the ILSVRC-2012 validation set, ten views. It differs from the prose in the
initial weights of conv3 to conv5, the order of layer 1, a second normalization in layer 2, alpha, the rate of biases, the
crops, the mean that is subtracted from them and the size of the color shift; each is a field below or in `SOURCE_145`.

The schedule is that of the log (layer-params-145.cfg): weights' rate divided by ten after epochs 25, 51 and 79, conv1 slowed
and the color noise taken away after 67, conv1 frozen after 72, the end in epoch 91. The log names cuts of the weights' rate
alone, and the file it stands in still has 0.02 for biases, and 0 for those of conv1, when does not say: here from 72 on.

    python -m alexnet_jax schedule source_145
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.alexnet import SOURCE_145
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=SOURCE_145,
    epochs=91,
    schedule=StepDecay(milestones=(25, 51, 79), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=(LayerRate("conv1", after=67, weights=1e-5), LayerRate("conv1", after=72, weights=0.0, biases=0.0)),
    augmentation=Augmentation(last_position=True, images_per_crop=32, mean="center", color="deviation", color_divisor=1.1),
    color_epochs=67,
)
