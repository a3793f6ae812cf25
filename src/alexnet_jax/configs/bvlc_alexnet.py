"""Caffe's version of the paper's network (models/bvlc_alexnet), trained with the settings of its solver.prototxt.

    make train EXP=bvlc_alexnet DATA=<ImageNet, prepared>

Published: 57.1% top-1 and 80.2% top-5 accuracy on the ILSVRC-2012 validation set, center view, after 360,000 steps of 256
images.

The learning rate is divided by ten every 100,000 steps (20 epochs of ImageNet), and training ends at step 450,000. Caffe warps
images to 256 x 256; here, they are prepared as in the paper.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import RandomCrop, RandomFlip
from alexnet_jax.model.relatives import BVLC_ALEXNET
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import StepDecay

CONFIG = TrainConfig(
    network=BVLC_ALEXNET,
    batch_size=256,
    schedule=StepDecay(milestones=(20, 40, 60, 80)),
    bias_rate=2.0,
    augmentation=Augmentation(transforms=(RandomCrop(last_position=True), RandomFlip())),
)
