"""PyTorch versions of the AlexNets of Caffe and torchvision, written from Caffe's prototxt files and torchvision's module.

Layer widths are inferred from the weights or passed as arguments, so that tests can use smaller networks.
"""

# pyright: reportMissingImports=false
# PyTorch is not a development dependency; make parity installs it.
import torch
import torch.nn.functional as F
from torch import nn


def caffe(w, x, *, pool_first):
    """Return the logits of bvlc_alexnet or CaffeNet at test time.

    Args:
      w: weights by name, in PyTorch's layout.
      x: images minus their mean, [batch, 3, 227, 227], BGR.
      pool_first: whether pooling precedes normalization, as in CaffeNet.
    """

    def conv(name, x, **kwargs):
        return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **kwargs))

    def norm_and_pool(x):
        norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)  # PyTorch divides alpha by the window size, as Caffe does
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        return norm(pool(x)) if pool_first else pool(norm(x))

    def dense(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = norm_and_pool(conv("conv1", x, stride=4))
    x = norm_and_pool(conv("conv2", x, padding=2, groups=2))
    x = conv("conv3", x, padding=1)
    x = conv("conv4", x, padding=1, groups=2)
    x = F.max_pool2d(conv("conv5", x, padding=1, groups=2), 3, 2, ceil_mode=True)
    x = F.relu(dense("fc6", x.flatten(1)))
    return dense("fc8", F.relu(dense("fc7", x)))


class TorchvisionAlexNet(nn.Module):
    """Version of torchvision.models.AlexNet with configurable widths.

    Args:
      widths: numbers of kernels or units of all layers but the last.
      num_classes: number of classes.
      pooled: side of the feature maps after adaptive average pooling.
    """

    def __init__(self, widths=(64, 192, 384, 256, 256, 4096, 4096), num_classes=1000, pooled=6):
        super().__init__()
        a, b, c, d, e, f, g = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, a, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(a, b, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(b, c, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, d, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(d, e, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((pooled, pooled))
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(e * pooled * pooled, f),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(f, g),
            nn.ReLU(inplace=True),
            nn.Linear(g, num_classes),
        )

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))
