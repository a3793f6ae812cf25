# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Normalization and pooling
#
# Two operations of the paper are rarely used today: local response normalization (section 3.3) and overlapping pooling (section
# 3.4). This notebook shows their effect on numbers and on an image, and measures their time on the available device.

# %%
import importlib.util
import shutil
import subprocess
import sys

REPOSITORY = ""  # where the package is not installed, as on Colab: the address of its git repository, "https://…"

if importlib.util.find_spec("alexnet_jax") is None:
    if not REPOSITORY:
        raise SystemExit("alexnet_jax is not installed: set REPOSITORY to the address of its git repository, and run this again")
    extra = "[cuda12]" if shutil.which("nvidia-smi") else ""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"alexnet-jax{extra} @ git+{REPOSITORY}"], check=True)

# %%
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from alexnet_jax.data.sources.synthetic import draw_image
from alexnet_kernels import dispatch, max_pool, norm_pool, response_norm, triton

# %% [markdown]
# Each operation has several implementations: Pallas kernels for NVIDIA GPUs since Ampere, and XLA operations with custom
# gradients for all other devices, including a T4 (compute capability 7.5). This cell prints the implementation used on this
# device.

# %%
device = dispatch.current_device()
reason = triton.unsupported_reason("norm_pool", jnp.zeros((8, 55, 55, 96)), device)
print(f"{device.device_kind}:", f"XLA operations (Pallas kernels: {reason})" if reason else "Pallas kernels")

# %% [markdown]
# ## Response normalization
#
# $$b^i = a^i \Big/ \Big(k + \alpha \sum_{j=i-n/2}^{i+n/2} (a^j)^2\Big)^\beta \qquad k=2,\; n=5,\; \alpha=10^{-4},\; \beta=0.75$$
#
# The sum is over neighboring kernel maps at the same position; the order of the maps is arbitrary. The paper compares it to
# "lateral inhibition inspired by the type found in real neurons" (section 3.3). The left plot shows one map for different values
# of its neighbors. If the neighbors are zero, the output increases up to an input of 200 and then *decreases* as $1/\sqrt a$: the
# paper's constants are meant for activations of tens and hundreds, which result from pixel values between 0 and 255. The right
# plot shows one map with a large activation among 24. Its activation is reduced, and those of its four neighbors are reduced to a
# third.

# %%
a = jnp.linspace(0, 1000, 400)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
for neighbor in (0, 100, 200, 400):
    maps = jnp.full((len(a), 5), float(neighbor)).at[:, 2].set(a)
    left.plot(a, response_norm(maps)[:, 2], label=f"four neighbors of {neighbor}")
left.set(xlabel="activation before", ylabel="activation after", title="one map")
left.legend()

before = jnp.full(24, 60.0).at[12].set(400.0)
after = response_norm(before[None, None])[0, 0]
right.bar(np.arange(24) - 0.2, before / before[6], 0.4, label="before", color="#bbb")
right.bar(np.arange(24) + 0.2, after / after[6], 0.4, label="after")
right.set(xlabel="map", title="24 maps, relative to map 6")
right.legend()
plt.show()

# %% [markdown]
# ## Response normalization of an image
#
# Eight edge detectors of different orientations stand in for the kernels of a first layer. Where many of them have large
# activations, all are reduced. The faint gradients and the noise of the background become visible beside the zigzag pattern of
# the disc. Each map is scaled to its own 99th percentile.

# %%
rng = np.random.default_rng(4)
photo = draw_image("checked disc", rng)
y, x = np.mgrid[-5:6, -5:6] / 5
angles = np.arange(8) * np.pi / 8
edges = [np.sin(3 * (np.cos(angle) * x + np.sin(angle) * y)) * np.exp(-2 * (x**2 + y**2)) for angle in angles]
kernels = jnp.stack([edge / np.abs(edge).sum() for edge in edges], axis=-1)[:, :, None]
gray = jnp.asarray(photo, jnp.float32).mean(axis=-1)[None, ..., None]

LAYOUT = ("NHWC", "HWIO", "NHWC")
maps = jax.lax.conv_general_dilated(gray, kernels, (2, 2), "VALID", dimension_numbers=LAYOUT)
before = jax.nn.relu(6 * maps)
after = response_norm(before)

figure, cells = plt.subplots(2, 5, figsize=(12, 5), layout="constrained")
cells[0, 0].imshow(photo)
for row, (name, maps) in zip(cells, (("before", before), ("after", after)), strict=True):
    for axes, number in zip(row[1:], (0, 2, 4, 6), strict=True):
        axes.imshow(maps[0, ..., number], cmap="magma", vmin=0, vmax=np.percentile(maps, 99))
        axes.set_title(f"{name}, {180 * number // 8}°", size=10)
for axes in cells.flat:
    axes.axis("off")
plt.show()

# %% [markdown]
# ## Overlapping pooling
#
# The paper pools over windows of $z=3$ pixels with a stride of $s=2$ (section 3.4) instead of windows of 2 pixels that do not
# overlap. The plots show a one-dimensional example, in which a single bright pixel moves to the right. Without overlap, each
# position is in exactly one window. With overlap, every second position is in two windows, so the output distinguishes more
# positions.

# %%
pixels = jnp.eye(12)[:, None, :, None] * jnp.ones((1, 3, 1, 1))  # one image for each position of the bright pixel
figure, panels = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
pooled = {"input": pixels, "z = 2, s = 2": max_pool(pixels, 2, 2), "z = 3, s = 2": max_pool(pixels, 3, 2)}
for axes, (name, image) in zip(panels, pooled.items(), strict=True):
    axes.imshow(image[:, 0, :, 0], cmap="Grays", aspect="auto", vmax=1.4)
    axes.set(title=name, xlabel="position", xticks=range(image.shape[2]))
panels[0].set_ylabel("image")
plt.show()
distinct = {name: len(np.unique(np.asarray(image)[:, 0, :, 0], axis=0)) for name, image in pooled.items()}
print("distinguishable positions:", distinct)

# %% [markdown]
# The first of the maps above has the same size after both kinds of pooling, except at the edge. What differs is which pixels
# receive a gradient. Without overlap, a quarter of the pixels are the maximum of a window and receive its gradient. With overlap,
# fewer pixels do, and some of them receive the gradients of up to four windows:

# %%
figure, (two, three, wins) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
noise = jax.random.normal(jax.random.key(0), (1, 55, 55, 96))  # without equal pixels
for axes, z, shift in ((two, 2, -0.2), (three, 3, 0.2)):
    image = max_pool(after, z, 2)[0, ..., 0]
    axes.imshow(image, cmap="magma", vmin=0, vmax=np.percentile(after, 99))
    axes.set_title(f"z = {z}, s = 2: {image.shape[0]}x{image.shape[0]} pixels", size=10)
    axes.axis("off")
    gradient = jax.grad(lambda maps, z=z: max_pool(maps, z, 2).sum())(noise)  # a gradient of 1 from each window
    wins.bar(np.arange(5) + shift, [100 * float((gradient == count).mean()) for count in range(5)], 0.4, label=f"z = {z}")
wins.set(xlabel="windows of which a pixel is the maximum", ylabel="% of pixels")
wins.legend()
plt.show()

# %% [markdown]
# ## Time
#
# After conv1, the paper's network has 290,400 activations per image, which ReLU, normalization and pooling process, forward and
# backward. `norm_pool` combines the three in one operation. This cell times the definition with XLA's automatic gradient
# (`reference`), XLA operations with a custom gradient (`xla`), the Pallas kernel where it is supported (`triton`), and, for
# comparison, the convolution before them. Rounds alternate between them, and each ratio is computed within a round, so that
# changes in the speed of the machine affect all alike.

# %%
BATCH = 128 if device.platform == "gpu" else 8
images = jax.random.normal(jax.random.key(1), (BATCH, 224, 224, 3))
filters = 0.01 * jax.random.normal(jax.random.key(2), (11, 11, 3, 96))
activations = 40 * jax.random.normal(jax.random.key(3), (BATCH, 55, 55, 96))


def conv1(filters):
    return jax.lax.conv_general_dilated(images, filters, (4, 4), [(0, 3), (0, 3)], dimension_numbers=LAYOUT)


def timed(function, x):
    """Return a compiled function without arguments that computes values and gradient and waits for the result."""
    run = jax.jit(jax.value_and_grad(lambda x: jnp.square(function(x)).mean()))
    jax.block_until_ready(run(x))
    return lambda: jax.block_until_ready(run(x))


runs = {name: timed(partial(norm_pool, implementation=name), activations) for name in ("reference", "xla")}
if not reason:
    runs["triton"] = timed(partial(norm_pool, implementation="triton"), activations)
runs["conv1, for comparison"] = timed(conv1, filters)

rounds = []
for _ in range(9):
    seconds = {}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - start
    rounds.append(seconds)

# %%
milliseconds = {name: 1e3 * statistics.median(seconds[name] for seconds in rounds) for name in runs}
figure, axes = plt.subplots(figsize=(9, 0.6 + 0.55 * len(runs)), layout="constrained")
bars = axes.barh(list(milliseconds), list(milliseconds.values()), color=["#bbb", *["#456"] * (len(runs) - 2), "#e8d8c8"])
axes.bar_label(bars, fmt=" %.1f ms")
axes.invert_yaxis()
axes.margins(x=0.12)
axes.set_title(f"norm_pool after conv1, {BATCH} images, forward and backward, {device.device_kind}", size=10)
plt.show()

for name in list(runs)[1:-1]:
    ratio = statistics.median(seconds["reference"] / seconds[name] for seconds in rounds)
    print(f"{name}: {ratio:.1f} times as fast as reference (median of {len(rounds)} rounds)")

# %% [markdown]
# **Further reading**: `kernels/alexnet_kernels/reference.py` defines the operations; `xla/` and `triton/` implement them. `make
# gpu-check` times a complete training step, also in PyTorch. `experiments/ablate.py` measures the effect of both operations on
# the error, which is 1.4 and 0.4 points of top-1 error in the paper.
