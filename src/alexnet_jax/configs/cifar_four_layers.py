"""The four-layer CIFAR-10 network mentioned in section 3.3 of the paper: layers-conv-local-11pct.cfg of cuda-convnet.

    alexnet-jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    make train EXP=cifar_four_layers

The network has two convolutions, each with response normalization, and two locally connected layers. Training uses random
24 x 24 crops of the 32 x 32 images, flipped at random; evaluation averages nine views.

Published: 11% test error after about 520 epochs, with the learning rate divided by ten before the last 20 and before the last
10. Training is shorter here, for a CPU; experiments/cifar_lrn.py reports the measured errors with and without normalization.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import RandomCrop, RandomFlip
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
    augmentation=Augmentation(image_size=32, transforms=(RandomCrop(last_position=True), RandomFlip()), mean="center"),
)
