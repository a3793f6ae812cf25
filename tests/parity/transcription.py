"""Transcription of the paper's networks to PyTorch, from the paper and the 2012 code, independent of this package."""

# pyright: reportMissingImports=false
# PyTorch is not a development dependency; make parity installs it.
import torch
import torch.nn.functional as F

GROUPS = {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}


def weights(params, dtype):
    """Return the (weight, bias) of every layer in PyTorch's layouts, with both towers concatenated.

    Kernels are OIHW with the output channels of tower 0 first; the inputs of fc6 are flattened in the order channel, row, column.
    """
    out = {}
    for layer, p in params.items():
        kernel = torch.cat([torch.tensor(tower, dtype=dtype) for tower in p["kernel"]], -1)
        if layer.startswith("conv"):
            kernel = kernel.permute(3, 2, 0, 1)
        elif layer == "fc6":
            kernel = kernel.reshape(6, 6, 256, -1).permute(3, 2, 0, 1).reshape(-1, 9216)
        else:
            kernel = kernel.T
        out[layer] = (
            kernel.contiguous().requires_grad_(),
            torch.cat([torch.tensor(tower, dtype=dtype) for tower in p["bias"]]).requires_grad_(),
        )
    return out


def conv(w, name, x, **kwargs):
    return F.conv2d(x, *w[name], groups=GROUPS[name], **kwargs)


def norm(x, alpha):
    """Apply response normalization across 5 neighboring channels of each tower; PyTorch divides alpha by 5."""
    return torch.cat([F.local_response_norm(half, 5, alpha=alpha, beta=0.75, k=2.0) for half in x.chunk(2, 1)], 1)


def same_map_norm(x):
    """Apply the same-map normalization of the 2012 code, with scale 0.001 on the zero-padded mean of squares over 5x5 pixels."""
    return x * (1 + 0.001 * F.avg_pool2d(x * x, 5, stride=1, padding=2, count_include_pad=True)) ** -0.75


def pool(x):
    return F.max_pool2d(x, 3, 2)


def head(w, x):
    """Apply fc6 to fc8 at test time, where dropout multiplies every activation by 0.5."""
    x = 0.5 * F.relu(F.linear(x.flatten(1), *w["fc6"]))
    x = 0.5 * F.relu(F.linear(x, *w["fc7"]))
    return F.linear(x, *w["fc8"])


def two_tower(w, images):
    x = F.pad(images, (0, 3, 0, 3))
    x = pool(norm(F.relu(conv(w, "conv1", x, stride=4)), 5e-4))
    x = pool(norm(F.relu(conv(w, "conv2", x, padding=2)), 5e-4))
    x = F.relu(conv(w, "conv3", x, padding=1))
    x = F.relu(conv(w, "conv4", x, padding=1))
    x = pool(F.relu(conv(w, "conv5", x, padding=1)))
    return head(w, x)


def source_145(w, images):
    x = F.pad(images, (0, 3, 0, 3))
    x = F.relu(pool(norm(conv(w, "conv1", x, stride=4), 1e-4)))
    x = pool(same_map_norm(norm(F.relu(conv(w, "conv2", x, padding=2)), 1e-4)))
    x = F.relu(conv(w, "conv3", x, padding=1))
    x = F.relu(conv(w, "conv4", x, padding=1))
    x = F.relu(pool(conv(w, "conv5", x, padding=1)))
    return head(w, x)
