"""torchvision's alexnet, trained with the settings of its references/classification (eight GPUs with 32 images each).

    make train EXP=torchvision_alexnet DATA=<ImageNet, prepared>

Published: 56.522% top-1 and 79.066% top-5 accuracy on the ILSVRC-2012 validation set, center view, after 90 epochs.

Three differences: torchvision crops with random size and aspect ratio, applies weight decay to biases, too, and initializes
biases at random. Here crops are those of the paper, weight decay applies to weights only, and initial biases are zero.
"""

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import RandomCrop, RandomFlip
from alexnet_jax.model.relatives import TORCHVISION_ALEXNET
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import StepDecay

CONFIG = TrainConfig(
    network=TORCHVISION_ALEXNET,
    batch_size=256,
    schedule=StepDecay(milestones=(30, 60)),
    weight_decay=1e-4,
    augmentation=Augmentation(transforms=(RandomCrop(last_position=True), RandomFlip()), mean="channel"),
)
