"""Caffe's network after the paper's, with the training of its solver.prototxt.

    make train EXP=bvlc_alexnet DATA=<ImageNet, prepared>

Published: 57.1 % top-1 and 80.2 % top-5 accuracy on the ILSVRC-2012 validation set, centre view,
after 360,000 steps of 256 images.
The rate is divided by ten every 100,000 steps, which are 20 epochs of ImageNet, up to 450,000. Caffe warps images to 256 x 256;
here they are prepared as in the paper.
"""

from alexnet_jax.data.augment import Augmentation
from alexnet_jax.experiment import Experiment
from alexnet_jax.other_networks import BVLC_ALEXNET
from alexnet_jax.schedule import Cuts

EXPERIMENT = Experiment(
    network=BVLC_ALEXNET,
    batch_size=256,
    schedule=Cuts(after=(20, 40, 60, 80)),
    bias_rate=2.0,
    augmentation=Augmentation(last_position=True, color=None),
)
