"""Training on the 10,184 classes of ImageNet's Fall 2009 release (section 6), with a sixth convolution as in the original code.

    alexnet-jax prepare --from <folder of a .tar for each synset> --held-out 0.5 --to data/fall2009
    make train EXP=fall2009 ARGS="--evaluate-images 50000"

Without this option, every epoch is evaluated on half of the data set, 4.45 million images.

Paper: 67.4% top-1 and 40.9% top-5 error, with half of the images for training and half for testing. The best previously
published results were 78.1% and 60.9%.

Original log: the run for the comparison with other publications (layer-params-141-2009-half.cfg) logs no final error. Networks
without the sixth convolution had 69.4% and 43.7%.

The schedule is that of the log, with every change at the nearest end of an epoch: the learning rate of weights is divided by ten
after epochs 6, 13 and 25; after epoch 18, conv1 and conv2 get a lower rate and the color noise ends; after epoch 20, both are
frozen; training ends after epoch 28. An entry such as "epoch 21.1949" is batch 1,949, of about 4,350, in the 21st epoch. The
original run then continued with a larger rate, which increased the validation error. Its network had 32 kernels per tower in
conv1, and its conv2 also read a blurred copy of the image; here, the network is net 146, a later one with a sixth convolution, as
in fall2009_from_145.py.
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import FALL2009
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=FALL2009,
    default_data="fall2009",
    epochs=28,
    schedule=StepDecay(milestones=(6, 13, 25), bias_milestones=()),
    bias_rate=2.0,
    layer_rates=(
        *(LayerRate(layer, after=18, weights=1e-5) for layer in ("conv1", "conv2")),
        *(LayerRate(layer, after=20, weights=0.0, biases=0.0) for layer in ("conv1", "conv2")),
    ),
    augmentation=SOURCE_AUGMENTATION,
    color_epochs=18,
)
