"""The network with a sixth convolutional layer over the last pooling layer (section 6), trained from scratch.

    make train EXP=sixth_conv DATA=<ImageNet, prepared>

Paper: 39.0% top-1 and 16.6% top-5 error on the ILSVRC-2012 validation set, ten views, with pre-training on the Fall 2011
release and fine-tuning. This config trains without pre-training; finetune.py follows the original code's pre-training.
"""

from alexnet_jax.model.alexnet import SIXTH_CONV
from alexnet_jax.training.config import TrainConfig

CONFIG = TrainConfig(network=SIXTH_CONV)
