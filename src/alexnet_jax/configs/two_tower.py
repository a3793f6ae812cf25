"""The paper's network by the paper's prose (sections 3 to 5), Table 1 and Table 2.

    make train EXP=two_tower DATA=<ImageNet, prepared>

Paper: 40.7 % top-1 and 18.2 % top-5 on the ILSVRC-2012 validation set, ten views; 37.5 % and 17.0 % on the ILSVRC-2010 test
set (39.0 % and 18.3 % with the center view), on two GTX 580 in five to six days. Those figures come from the original code's
net 145, which is not quite what the prose says: see source_145.py.

The rate is divided by ten when the validation error stops improving with the current rate, three times before the end, after
90 epochs at most. When an error has stopped, the paper leaves open; patience and smallest improvement are ours.
"""

from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import ReduceOnPlateau

CONFIG = TrainConfig(network=TWO_TOWER, schedule=ReduceOnPlateau(patience=5, min_delta=0.001))
