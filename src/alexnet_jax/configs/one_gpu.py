"""The one-GPU network of section 3.2 (footnote 2): one tower whose last convolution and dense layers have their full width.

    make train EXP=one_gpu DATA=<ImageNet, prepared>

Paper: the top-1 and top-5 errors of the two-tower network are 1.7 and 1.2 percentage points lower. Original log, ILSVRC-2010
test set, ten views: 39.17% and 18.23%, compared with 37.47% and 17.00% with two towers.
"""

from alexnet_jax.model.alexnet import ONE_GPU
from alexnet_jax.training.config import TrainConfig

CONFIG = TrainConfig(network=ONE_GPU)
