"""The four-layer network for CIFAR-10 that section 3.3 of the paper mentions: cuda-convnet's layers-conv-local-11pct.cfg.

    python -m alexnet_jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    make train EXP=cifar_four_layers

Two convolutions and two layers of local connections, response normalization after both convolutions. Random 24 x 24 pixels of
32 x 32, flipped at random; tested on nine views. Published for it: 11 % test error after some 520 epochs, the rate divided by
ten before the last 20 and the last 10. The epochs here are what a CPU has time for: experiments/cifar_lrn.py has what they led
to, with and without normalization.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.cifar import FOUR_LAYERS_NORM
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import StepDecay

CONFIG = TrainConfig(
    network=FOUR_LAYERS_NORM,
    default_data="cifar10",
    epochs=12,
    learning_rate=0.001,
    bias_rate=2.0,
    schedule=StepDecay(milestones=(9, 11)),
    weight_decay=0.0,
    layer_decays=(("local3", 0.004), ("local4", 0.004), ("fc10", 0.01)),
    augmentation=Augmentation(image_size=32, last_position=True, mean="center", color=None),
)
