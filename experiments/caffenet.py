"""Caffe's reference network, which pools before it normalizes, trained as bvlc_alexnet.

    make train EXP=caffenet DATA=<ImageNet, prepared>

Published: 57.4 % top-1 and 80.4 % top-5 accuracy on the ILSVRC-2012 validation set, centre view,
after 310,000 steps of 256 images.
"""

from dataclasses import replace

from alexnet_jax.experiment import load_experiment
from alexnet_jax.other_networks import CAFFENET

EXPERIMENT = replace(load_experiment("bvlc_alexnet"), network=CAFFENET)
