"""Caffe's reference network (models/bvlc_reference_caffenet), which pools before it normalizes; trained like bvlc_alexnet.

    make train EXP=caffenet DATA=<ImageNet, prepared>

Published: 57.4% top-1 and 80.4% top-5 accuracy on the ILSVRC-2012 validation set, center view, after 310,000 steps of 256
images.
"""

from dataclasses import replace

from alexnet_jax.configs import bvlc_alexnet
from alexnet_jax.model.relatives import CAFFENET

CONFIG = replace(bvlc_alexnet.CONFIG, network=CAFFENET)
