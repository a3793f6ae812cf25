"""A sixth convolutional layer over the last pooling layer (section 6): the network pre-trained on the whole ImageNet.

    make train EXP=sixth_conv DATA=<ImageNet, prepared>

Paper: pre-trained on the Fall 2011 release and fine-tuned, 39.0 % top-1 and 16.6 % top-5 on the ILSVRC-2012 validation set,
ten views; finetune.py is that, by the code. This file trains it from scratch.
"""

from alexnet_jax.model.alexnet import SIXTH_CONV
from alexnet_jax.training.config import TrainConfig

CONFIG = TrainConfig(network=SIXTH_CONV)
