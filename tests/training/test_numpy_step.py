"""Test of whole training steps of a two-tower network against float64 NumPy, written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.pipeline.augment import Crop, Example
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.step import StepHparams, initial_state, make_train_step, put_batch
from tests.conftest import TINY, cpu_mesh, layer_outputs
from tests.numpy_network import relu, tiny_forward, tiny_gradients, to_float64

SEED, MOMENTUM, DECAY, FC7_DECAY, DIVISOR = 3, 0.9, 0.2, 0.5, 1.1
RATES, BIAS_RATES = (0.002, 0.001), (0.004, 0.0005)


def draw_batch(rng, full, size):
    """Return a batch whose images are half of one color, for equal maxima in pooling windows."""
    images = rng.integers(0, 256, (4, size, size, 3), np.uint8)
    images[:, :, : size // 2] = rng.integers(0, 256, (4, 1, 1, 3))
    crop = Crop(rng.integers(0, full - size + 1, (4, 2)).astype(np.int32), np.array([False, True, True, False]))
    return Example(images, rng.integers(0, 7, 4).astype(np.int32), rng.normal(0, 20, (4, 3)).astype(np.float32), crop)


def normalized_in_numpy(batch, mean):
    """Return pixels minus the crop of the mean image, plus the color shift, divided by the divisor of the original code."""
    rows = []
    size = batch.image.shape[1]
    for image, (top, left), flipped, shift in zip(batch.image, *batch.crop, batch.color_shift, strict=True):
        crop = mean[top : top + size, left : left + size]
        rows.append((image.astype(np.float64) - (crop[:, ::-1] if flipped else crop) + shift) / DIVISOR)
    return np.stack(rows)


def test_training_steps_equal_numpy(rng):
    """Compare losses, parameters and momentum of two steps on four devices: two towers, each with two parts of the batch.

    The dropout masks are those of the package. The mean image does not vary where images are of one color.
    """
    mesh, full = cpu_mesh(TINY, 2, split=True), TINY.input_size + 3
    optimizer = paper_update(momentum=MOMENTUM, weight_decay=DECAY, layer_decays={"fc7": FC7_DECAY})
    step = make_train_step(TINY, mesh, optimizer, seed=SEED)
    state = initial_state(TINY, mesh, optimizer, 0)
    mean = np.full((full, full, 3), 120, np.float32)
    mean[:, full // 2 + 3 :] += rng.normal(0, 10, (full, full - full // 2 - 3, 3)).astype(np.float32)
    p = to_float64(jax.device_get(state.params))
    v = jax.tree.map(np.zeros_like, p)
    ties = 0
    for number, (rate, bias_rate) in enumerate(zip(RATES, BIAS_RATES, strict=True)):
        batch = draw_batch(rng, full, TINY.input_size)
        images = normalized_in_numpy(batch, mean)
        key = jax.random.fold_in(jax.random.key(SEED), number)
        outputs = layer_outputs(TINY, jax.device_get(state.params), jnp.asarray(images, jnp.float32), key)
        masks = np.asarray(outputs["fc6/drop"]) != 0
        hidden = relu(np.asarray(outputs["fc6"]))
        np.testing.assert_array_equal(outputs["fc6/drop"], hidden * masks, "kept units are not scaled in training")
        assert 0.3 < masks[hidden > 0].mean() < 0.7
        assert not np.array_equal(masks[0], masks[1])

        hparams = StepHparams(learning_rates(state.params, rate, bias_rate), np.bool_(True), np.float32(DIVISOR))
        state, metrics = step(state, put_batch(batch, mesh), *jax.device_put((mean, hparams), replicated(mesh)))

        logits, activations = tiny_forward(p, images, masks)
        loss, gradients = tiny_gradients(p, images, batch.label, masks)
        ties += sum(equal_maxima(relu(activations["conv1", t])) for t in (0, 1))
        for layer, arrays in p.items():
            for name, w in arrays.items():
                decay = 0.0 if name == "bias" else FC7_DECAY if layer == "fc7" else DECAY
                epsilon = rate if name == "kernel" else bias_rate
                v[layer][name] = MOMENTUM * v[layer][name] - decay * epsilon * w - epsilon * gradients[layer][name]
                arrays[name] = w + v[layer][name]
        np.testing.assert_allclose(float(metrics.loss), loss, rtol=1e-4)
        assert float(metrics.top1_error) == (logits.argmax(1) != batch.label).mean()
    assert ties > 100
    jax.tree.map(assert_close, jax.device_get(state.params), p)
    jax.tree.map(assert_close, jax.device_get(state.opt_state[-1].trace), v)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def equal_maxima(x, z=3, s=2):
    """Return the number of pooling windows with several positive maxima."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (z, z), (1, 2))[:, ::s, ::s]
    maxima = windows.max((-2, -1), keepdims=True)
    return int((((windows == maxima) & (maxima > 0)).sum((-2, -1)) > 1).sum())
