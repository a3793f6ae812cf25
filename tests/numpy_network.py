"""Reference of a two-tower network and its gradients in NumPy: float64 loops, written from the paper, without the package."""

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


def conv_gradients(x, kernel, g, stride, before, after):
    """Return the gradients of `conv` with respect to x, kernel and bias."""
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    dx, dkernel, size = np.zeros_like(padded), np.zeros_like(kernel), kernel.shape[0]
    for row, column in np.ndindex(g.shape[1:3]):
        window = np.s_[:, row * stride : row * stride + size, column * stride : column * stride + size]
        dkernel += np.tensordot(padded[window], g[:, row, column], (0, 0))
        dx[window] += np.tensordot(g[:, row, column], kernel, (1, 3))
    side = x.shape[1]
    return dx[:, before : before + side, before : before + side], dkernel, g.sum((0, 1, 2))


def norm_gradient(x, g, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Return the gradient of `norm`, from the derivative of each output with respect to each map in its window."""
    dx = np.zeros_like(x)
    maps = x.shape[-1]
    for i in range(maps):
        window = np.s_[..., max(0, i - n // 2) : min(maps - 1, i + n // 2) + 1]
        s = k + alpha * (x[window] ** 2).sum(-1)
        dx[..., i] += g[..., i] * s**-beta
        dx[window] -= 2 * alpha * beta * x[window] * (g[..., i] * x[..., i] * s ** (-beta - 1))[..., None]
    return dx


def pool_gradient(x, g, z=3, s=2):
    """Return the gradient of `pool`, which goes to the first of equal pixels, row by row."""
    dx = np.zeros_like(x)
    for image, row, column, channel in np.ndindex(g.shape):
        pixels = x[image, row * s : row * s + z, column * s : column * s + z, channel]
        first = np.unravel_index(pixels.argmax(), pixels.shape)
        dx[image, row * s + first[0], column * s + first[1], channel] += g[image, row, column, channel]
    return dx


def tiny_forward(p, images, scale):
    """Return the logits of `tests.tiny.TINY`, and the activations by name and tower.

    Args:
      p: parameters by layer and name, indexed by tower.
      images: input of conv1.
      scale: factors of the outputs of fc6, [tower, batch, unit]: a dropout mask, or 0.5 at test.
    """
    a = {}
    for t in (0, 1):
        a["conv1", t] = conv(images, p["conv1"]["kernel"][t], p["conv1"]["bias"][t], 2, 0, 2)
        a["pool1", t] = pool(norm(relu(a["conv1", t]), alpha=0.01))
        a["conv2", t] = conv(a["pool1", t], p["conv2"]["kernel"][t], p["conv2"]["bias"][t], 1, 1, 1)
    a["pool2"] = np.concatenate([pool(norm(relu(a["conv2", t]), alpha=0.01)) for t in (0, 1)], -1)
    for t in (0, 1):
        a["conv3", t] = conv(a["pool2"], p["conv3"]["kernel"][t], p["conv3"]["bias"][t], 1, 1, 1)
    a["flat"] = np.concatenate([relu(a["conv3", t]) for t in (0, 1)], -1).reshape(len(images), -1)
    for t in (0, 1):
        a["fc6", t] = a["flat"] @ p["fc6"]["kernel"][t] + p["fc6"]["bias"][t]
    a["hidden"] = np.concatenate([scale[t] * relu(a["fc6", t]) for t in (0, 1)], -1)
    return np.concatenate([a["hidden"] @ p["fc7"]["kernel"][t] + p["fc7"]["bias"][t] for t in (0, 1)], -1)[:, :7], a


def tiny_gradients(p, images, labels, masks):
    """Return the mean cross-entropy of `tests.tiny.TINY`, and its gradients, by backpropagation; arguments as `tiny_forward`."""
    logits, a = tiny_forward(p, images, masks)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    g = (probabilities - np.eye(7)[labels]) / len(labels)
    gradients = {layer: {name: np.zeros_like(value) for name, value in values.items()} for layer, values in p.items()}

    def set_gradients(layer, tower, kernel, bias):
        gradients[layer]["kernel"][tower], gradients[layer]["bias"][tower] = kernel, bias

    g = np.pad(g, ((0, 0), (0, 1)))  # the last tower has a unit without a class
    for t, part in enumerate(np.split(g, 2, -1)):
        set_gradients("fc7", t, a["hidden"].T @ part, part.sum(0))
    g = sum(part @ p["fc7"]["kernel"][t].T for t, part in enumerate(np.split(g, 2, -1)))
    parts = [part * masks[t] * (a["fc6", t] > 0) for t, part in enumerate(np.split(g, 2, -1))]
    for t, part in enumerate(parts):
        set_gradients("fc6", t, a["flat"].T @ part, part.sum(0))
    g = (parts[0] @ p["fc6"]["kernel"][0].T + parts[1] @ p["fc6"]["kernel"][1].T).reshape(len(images), 3, 3, 10)
    g_pool2 = np.zeros_like(a["pool2"])
    for t, part in enumerate(np.split(g, 2, -1)):
        dx, *parameters = conv_gradients(a["pool2"], p["conv3"]["kernel"][t], part * (a["conv3", t] > 0), 1, 1, 1)
        set_gradients("conv3", t, *parameters)
        g_pool2 += dx  # both towers read both
    for t, part in enumerate(np.split(g_pool2, 2, -1)):
        part = _relu_norm_pool_gradient(a["conv2", t], part)
        dx, *parameters = conv_gradients(a["pool1", t], p["conv2"]["kernel"][t], part, 1, 1, 1)
        set_gradients("conv2", t, *parameters)
        part = _relu_norm_pool_gradient(a["conv1", t], dx)
        set_gradients("conv1", t, *conv_gradients(images, p["conv1"]["kernel"][t], part, 2, 0, 2)[1:])
    return loss, gradients


def _relu_norm_pool_gradient(x, g):
    positive = relu(x)
    return norm_gradient(positive, pool_gradient(norm(positive, alpha=0.01), g), alpha=0.01) * (x > 0)


def to_float64(params):
    return {layer: {name: np.asarray(value, np.float64) for name, value in values.items()} for layer, values in params.items()}


def tiny_logits(params, images):
    """Return the test-time logits of `tests.tiny.TINY`, for parameters indexed by layer, name and tower."""
    return tiny_forward(to_float64(params), images, np.full((2, 1, 1), 0.5))[0]
