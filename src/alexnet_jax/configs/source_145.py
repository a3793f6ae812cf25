"""The network whose logs contain the paper's results: net 145 of the original code, trained as its logs describe.

    make train EXP=source_145 DATA=<ImageNet, prepared>

Original log: 40.66% top-1 and 18.21% top-5 error on the ILSVRC-2012 validation set, ten views.

The original code differs from the text of the paper in the initial weights of conv3 to conv5, the order of the operations in
layer 1, a second normalization in layer 2, alpha, the learning rate of biases, the crops, the mean that is subtracted from them,
and the size of the color shift. Each of these is a field below or in `SOURCE_145`.

The schedule is that of the log (layer-params-145.cfg): the learning rate of weights is divided by ten after epochs 25, 51 and
79; after epoch 67, conv1 gets a lower rate and the color noise ends; after epoch 72, conv1 is frozen; training ends in epoch
91. The log mentions reductions of the weights' rate only. The file that contains the log has 0.02 for biases, and 0 for those
of conv1 from an unknown epoch on; here, it is epoch 72.

Two differences remain: the original code has the same minibatches in every epoch, in the same order; and where several pixels of
a pooling window are the maximum, its gradient goes to all of them instead of the first (conv_util.cu of cuda-convnet).

    alexnet-jax schedule source_145
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import SOURCE_145
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=SOURCE_145,
    epochs=91,
    schedule=StepDecay(milestones=(25, 51, 79), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=(LayerRate("conv1", after=67, weights=1e-5), LayerRate("conv1", after=72, weights=0.0, biases=0.0)),
    augmentation=SOURCE_AUGMENTATION,
    color_epochs=67,
)
