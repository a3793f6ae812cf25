"""Reference implementation of a two-tower network: float64 loops in NumPy, written from the paper, independent of the package."""

import numpy as np


def conv(x, kernel, bias, stride, before, after):
    x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    size = kernel.shape[0]
    side = (x.shape[1] - size) // stride + 1
    out = np.zeros((x.shape[0], side, side, kernel.shape[3]))
    for row in range(side):
        for column in range(side):
            patch = x[:, row * stride : row * stride + size, column * stride : column * stride + size]
            out[:, row, column] = np.tensordot(patch, kernel, 3) + bias
    return out


def norm(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    out = np.zeros_like(x)
    maps = x.shape[-1]
    for i in range(maps):
        window = x[..., max(0, i - n // 2) : min(maps - 1, i + n // 2) + 1]
        out[..., i] = x[..., i] / (k + alpha * (window**2).sum(-1)) ** beta
    return out


def pool(x, z=3, s=2):
    side = -(-(x.shape[1] - z) // s) + 1
    out = np.zeros((x.shape[0], side, side, x.shape[3]))
    for row in range(side):
        for column in range(side):
            out[:, row, column] = x[:, row * s : row * s + z, column * s : column * s + z].max((1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


def tiny_logits(params, images):
    """Return the test-time logits of `tests.tiny.TINY`, for parameters indexed by layer, name and tower."""
    p = {
        layer: {name: np.asarray(value, np.float64) for name, value in layer_params.items()}
        for layer, layer_params in params.items()
    }
    towers = []
    for t in (0, 1):
        x = pool(norm(relu(conv(images, p["conv1"]["kernel"][t], p["conv1"]["bias"][t], 2, 0, 2)), alpha=0.01))
        x = pool(norm(relu(conv(x, p["conv2"]["kernel"][t], p["conv2"]["bias"][t], 1, 1, 1)), alpha=0.01))
        towers.append(x)
    both = np.concatenate(towers, -1)
    both = np.concatenate([relu(conv(both, p["conv3"]["kernel"][t], p["conv3"]["bias"][t], 1, 1, 1)) for t in (0, 1)], -1)
    flat = both.reshape(len(images), -1)
    hidden = 0.5 * np.concatenate([relu(flat @ p["fc6"]["kernel"][t] + p["fc6"]["bias"][t]) for t in (0, 1)], -1)
    return np.concatenate([hidden @ p["fc7"]["kernel"][t] + p["fc7"]["bias"][t] for t in (0, 1)], -1)[:, :7]
