"""The two-tower network and its training as described in the paper (sections 3 to 5), for Tables 1 and 2.

    make train EXP=two_tower DATA=<ImageNet, prepared>

Paper: 40.7% top-1 and 18.2% top-5 error on the ILSVRC-2012 validation set, ten views; 37.5% and 17.0% on the ILSVRC-2010
test set (39.0% and 18.3% with the center view). Training took five to six days on two GTX 580 GPUs. These results are from net
145 of the original code, which differs in details from the description; see source_145.py.

The learning rate is divided by ten when the validation error stops improving, three times before the end of training, which
lasts at most 90 epochs. The paper does not define when an error stops improving: `patience` and `min_delta` are our choices.
"""

from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import ReduceOnPlateau

CONFIG = TrainConfig(network=TWO_TOWER, schedule=ReduceOnPlateau(patience=5, min_delta=0.001))
