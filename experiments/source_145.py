"""The network whose logs are the paper's tables: net 145 of the original code, with the training its logs describe.

    make train EXP=source_145 DATA=<ImageNet, prepared>

Original log: 40.66 % top-1 and 18.21 % top-5 on the ILSVRC-2012 validation set, ten views. It differs from the prose in the
initial weights of conv3 to conv5, the order of layer 1, a second normalization in layer 2, alpha, the rate of biases, the
crops, the mean that is subtracted from them and the size of the colour shift; each is a field below or in `SOURCE_145`.
"""

from alexnet_jax.architectures import SOURCE_145
from alexnet_jax.data.augment import Augmentation
from alexnet_jax.experiment import Experiment

EXPERIMENT = Experiment(
    network=SOURCE_145,
    bias_rate=2.0,
    augmentation=Augmentation(last_position=True, images_per_crop=32, mean="centre", color="deviation", color_divisor=1.1),
)
