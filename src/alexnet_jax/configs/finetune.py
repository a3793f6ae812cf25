"""Fine-tuning on ILSVRC-2012 of the network pre-trained on all of ImageNet: "1 CNN*" of Table 2.

    make train EXP=source_145
    make train EXP=fall2009_from_145 ARGS="--init-from runs/source_145/…"
    make train EXP=fall2011 ARGS="--init-from runs/fall2009_from_145/…"
    make train EXP=finetune ARGS="--init-from runs/fall2011/…"

Paper: 39.0% top-1 and 16.6% top-5 error on the ILSVRC-2012 validation set, ten views. Original log (net 146-2012-2011,
layer-params-146-2012-2011.cfg): 38.99% and 16.62%; pre-trained on Fall 2009 alone, 39.10% and 16.88%. The first network of
this sequence, net 145, was itself trained on ILSVRC-2012, so the improvement is not due to the additional images alone.

conv1 to fc7 are copied; the bottleneck is dropped; fc8 is new. The schedule is that of the log: the learning rate is 0.001,
divided by ten after epochs 22 and 42. The rate of fc8 is 0.01 until epoch 9. That of conv1 is 0.0001, and 0.00001 after epoch
5; conv1 is frozen after epoch 7. The color noise ends after epoch 38, training after epoch 54. The original run trained fc8
with 0.001 for the first 300 batches; this is omitted. The log does not mention the rates of biases; the file that contains the
log has 0.02, and 0 for conv1.

    alexnet-jax schedule finetune

The ensembles of the paper average networks trained with the same settings: "5 CNNs" (38.1% and 16.4%) are five runs of
source_145, here with different seeds; "7 CNNs*" (36.7% and 15.4%) are these and two pre-trained networks.

    for seed in 0 1 2 3 4; do make train EXP=source_145 ARGS="--seed $seed"; done
    alexnet-jax evaluate runs/source_145/*-seed[0-4]-* --data data/imagenet --views ten
    alexnet-jax evaluate runs/source_145/*-seed[0-4]-* runs/finetune/* --data data/imagenet --views ten
"""

from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION
from alexnet_jax.model.alexnet import SOURCE_146
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, StepDecay

CONFIG = TrainConfig(
    network=SOURCE_146,
    epochs=54,
    learning_rate=0.001,
    schedule=StepDecay(milestones=(22, 42), bias_milestones=()),
    bias_rate=20.0,
    layer_rates=(
        LayerRate("conv1", after=0, weights=1e-4),
        LayerRate("conv1", after=5, weights=1e-5),
        LayerRate("conv1", after=7, weights=0.0, biases=0.0),
        LayerRate("fc8", after=0, weights=0.01),
        LayerRate("fc8", after=9, weights=1e-3),
        LayerRate("fc8", after=22, weights=1e-4),
        LayerRate("fc8", after=42, weights=1e-5),
    ),
    augmentation=SOURCE_AUGMENTATION,
    color_epochs=38,
    init_layers=("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7"),
)
