"""PyTorch baseline of the benchmarks: the two-tower network, optimized for speed.

Layers whose towers read only their own channels are grouped convolutions. The optimizer is PyTorch's SGD, whose momentum buffer
does not include the learning rate, unlike the paper's; the amount of computation is the same.
"""

# pyright: reportMissingImports=false
# PyTorch is not a development dependency; the make targets that need it install it.
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def norm_pool(x: torch.Tensor, alpha: float = 1e-4) -> torch.Tensor:
    """Apply ReLU, response normalization and max pooling to one tower, [batch, channels, height, width].

    PyTorch divides alpha by the window size, so alpha is multiplied by it here.
    """
    return F.max_pool2d(F.local_response_norm(F.relu(x), 5, alpha=5 * alpha, beta=0.75, k=2.0), 3, 2, ceil_mode=True)


def response_norm(x: torch.Tensor, alpha: float = 1e-4) -> torch.Tensor:
    """Apply response normalization across channels, [batch, channels, height, width]."""
    return F.local_response_norm(x, 5, alpha=5 * alpha, beta=0.75, k=2.0)


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """Apply overlapping max pooling, [batch, channels, height, width]."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


class TwoTower(nn.Module):
    """Two-tower network, from images [batch, 3, 224, 224] to logits [batch, classes].

    Args:
      num_classes: number of classes.
      width: number of kernels and units relative to the paper's.
      dropout_rate: probability that a unit of fc6 and fc7 is dropped.
      pooled_size: side of the feature maps after the last pooling; 6 for images of 224 pixels.
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0, dropout_rate: float = 0.5, pooled_size: int = 6) -> None:
        super().__init__()
        c1, c2, c3, c4, c5, f6, f7 = (int(features * width) for features in (96, 256, 384, 384, 256, 4096, 4096))
        self.dropout_rate = dropout_rate
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(c5 * pooled_size**2, f6)
        self.fc7 = nn.Linear(f6, f7)
        self.fc8 = nn.Linear(f7, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _norm_pool_per_tower(self.conv1(F.pad(x, (0, 3, 0, 3))))
        x = _norm_pool_per_tower(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)
        x = F.dropout(F.relu(self.fc6(x.flatten(1))), self.dropout_rate, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout_rate, self.training)
        return self.fc8(x)


def _norm_pool_per_tower(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([norm_pool(tower) for tower in x.chunk(2, 1)], 1)


def optimizer_for(model: nn.Module) -> torch.optim.Optimizer:
    """Return an SGD optimizer with the paper's momentum and weight decay; biases have no weight decay."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.0005}, {"params": biases}]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9)


def train_step(model: Any, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Update the parameters once, and return the loss without waiting for the device.

    Args:
      model: model to train.
      optimizer: optimizer of its parameters.
      images: uint8 images, [batch, 3, height, width].
      labels: class labels, [batch].
    """
    loss = F.cross_entropy(model(images.float() - 128).float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()
