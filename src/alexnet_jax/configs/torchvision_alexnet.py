"""torchvision's network with the training of its references/classification, on eight GPUs with 32 images each.

    make train EXP=torchvision_alexnet DATA=<ImageNet, prepared>

Published: 56.522 % top-1 and 79.066 % top-5 accuracy on the ILSVRC-2012 validation set, center view, after 90 epochs.
Its crops vary in size and shape; here they are those of the paper. It decays biases, too; here weights alone.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.model.relatives import TORCHVISION_ALEXNET
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import StepDecay

CONFIG = TrainConfig(
    network=TORCHVISION_ALEXNET,
    batch_size=256,
    schedule=StepDecay(milestones=(30, 60)),
    weight_decay=1e-4,
    augmentation=Augmentation(last_position=True, mean="channel", color=None),
)
