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
# Two operations of the paper have gone out of use: local response normalization (section 3.3) and pooling with overlap (section
# 3.4). This notebook shows what they do to numbers and to a picture, and what they cost, on whatever device is here.

# %%
import importlib.util
import shutil
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/alexnet-jax"  # where this notebook is from; nothing happens if the package is here

if importlib.util.find_spec("alexnet_jax") is None:
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
from alexnet_kernels import dispatch as choice
from alexnet_kernels import max_pool, norm_pool, response_norm, triton

# %% [markdown]
# Each operation has several implementations: Pallas kernels for NVIDIA GPUs from Ampere on, and XLA operations with gradients
# written by hand for everything else, a T4 (compute capability 7.5) among them. Which one runs here?

# %%
device = choice.current_device()
why_not = triton.unsupported_reason("norm_pool", jnp.zeros((8, 55, 55, 96)), device)
print(f"{device.device_kind}:", f"XLA operations, for a kernel {why_not}" if why_not else "the Pallas kernels")

# %% [markdown]
# ## Normalization: who is loud is turned down, and so are the neighbors
#
# $$b^i = a^i \Big/ \Big(k + \alpha \sum_{j=i-n/2}^{i+n/2} (a^j)^2\Big)^\beta \qquad k=2,\; n=5,\; \alpha=10^{-4},\; \beta=0.75$$
#
# The sum goes over neighboring kernel maps at the same place, in the order that they happen to have: "lateral inhibition
# inspired by the type found in real neurons" (section 3.3). On the left one map, for different neighbors. A lone activity
# grows until 200 and then *falls*, as $1/\sqrt a$: the paper's constants are for activities of tens and hundreds, from pixels
# between 0 and 255. On the right one loud map among equals. It is no longer so loud, and its four neighbors are turned down to
# a third.

# %%
a = jnp.linspace(0, 1000, 400)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
for neighbor in (0, 100, 200, 400):
    place = jnp.full((len(a), 5), float(neighbor)).at[:, 2].set(a)
    left.plot(a, response_norm(place)[:, 2], label=f"four neighbors at {neighbor}")
left.set(xlabel="activity before", ylabel="activity after", title="one map")
left.legend()

before = jnp.full(24, 60.0).at[12].set(400.0)
after = response_norm(before[None, None])[0, 0]
right.bar(np.arange(24) - 0.2, before / before[6], 0.4, label="before", color="#bbb")
right.bar(np.arange(24) + 0.2, after / after[6], 0.4, label="after")
right.set(xlabel="map", title="24 maps, as multiples of map 6")
right.legend()
plt.show()

# %% [markdown]
# ## On a picture
#
# Eight edge detectors that differ in direction stand in for the kernels of a first layer. Where many of them answer, each is
# turned down: the zigzag of the disc no longer drowns the faint slopes of the background, nor their noise. Each row is scaled
# to its own 99th percentile.

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
# ## Pooling: squares that share their edges
#
# Squares of $z=3$ pixels, $s=2$ apart (section 3.4), against squares of 2 that do not overlap. In one dimension: a single
# bright pixel wanders to the right. Without overlap it is in one square, always; with overlap every second place is in two, and
# what comes out says more finely where it was.

# %%
pixels = jnp.eye(12)[:, None, :, None] * jnp.ones((1, 3, 1, 1))  # a picture for each place of the bright pixel
figure, panels = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
pooled = {"the pixel": pixels, "z = 2, s = 2": max_pool(pixels, 2, 2), "z = 3, s = 2": max_pool(pixels, 3, 2)}
for axes, (name, picture) in zip(panels, pooled.items(), strict=True):
    axes.imshow(picture[:, 0, :, 0], cmap="Grays", aspect="auto", vmax=1.4)
    axes.set(title=name, xlabel="place", xticks=range(picture.shape[2]))
panels[0].set_ylabel("step of the walk")
plt.show()
codes = {name: len(np.unique(np.asarray(picture)[:, 0, :, 0], axis=0)) for name, picture in pooled.items()}
print("places that can be told apart:", codes)

# %% [markdown]
# The first of the maps above, pooled both ways, comes out at the same size, but for the edge. What changes is who learns.
# Without overlap a quarter of the pixels win their square and get its gradient. With overlap fewer win, and some of them up to
# four squares:

# %%
figure, (two, three, wins) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
noise = jax.random.normal(jax.random.key(0), (1, 55, 55, 96))  # no two pixels alike
for axes, z, shift in ((two, 2, -0.2), (three, 3, 0.2)):
    picture = max_pool(after, z, 2)[0, ..., 0]
    axes.imshow(picture, cmap="magma", vmin=0, vmax=np.percentile(after, 99))
    axes.set_title(f"z = {z}, s = 2: {picture.shape[0]} pixels a side", size=10)
    axes.axis("off")
    won = jax.grad(lambda maps, z=z: max_pool(maps, z, 2).sum())(noise)  # a gradient of 1 from each square
    wins.bar(np.arange(5) + shift, [100 * float((won == count).mean()) for count in range(5)], 0.4, label=f"z = {z}")
wins.set(xlabel="squares that a pixel is the maximum of", ylabel="% of pixels")
wins.legend()
plt.show()

# %% [markdown]
# ## What they cost
#
# Behind conv1 the paper's network has 290,400 activities for each image, and ReLU, normalization and pooling go over all of
# them, forward and backward. `norm_pool` is the three as one operation. Timed here: what XLA derives from the plain definition
# (`reference`), XLA operations with a gradient written by hand (`xla`), the kernel where it runs (`triton`), and, for scale,
# the convolution before them. They take turns, and ratios are of the same round: the speed of a machine drifts, for all of them
# alike.

# %%
BATCH = 128 if device.platform == "gpu" else 8
images = jax.random.normal(jax.random.key(1), (BATCH, 224, 224, 3))
filters = 0.01 * jax.random.normal(jax.random.key(2), (11, 11, 3, 96))
activities = 40 * jax.random.normal(jax.random.key(3), (BATCH, 55, 55, 96))


def conv1(filters):
    return jax.lax.conv_general_dilated(images, filters, (4, 4), [(0, 3), (0, 3)], dimension_numbers=LAYOUT)


def timed(function, x):
    """Values and gradient as a function without arguments that waits for them, compiled."""
    run = jax.jit(jax.value_and_grad(lambda x: jnp.square(function(x)).mean()))
    jax.block_until_ready(run(x))
    return lambda: jax.block_until_ready(run(x))


runs = {name: timed(partial(norm_pool, implementation=name), activities) for name in ("reference", "xla")}
if not why_not:
    runs["triton"] = timed(partial(norm_pool, implementation="triton"), activities)
runs["conv1, for scale"] = timed(conv1, filters)

rounds = []
for _ in range(9):
    seconds = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - began
    rounds.append(seconds)

# %%
milliseconds = {name: 1e3 * statistics.median(seconds[name] for seconds in rounds) for name in runs}
figure, axes = plt.subplots(figsize=(9, 0.6 + 0.55 * len(runs)), layout="constrained")
bars = axes.barh(list(milliseconds), list(milliseconds.values()), color=["#bbb", *["#456"] * (len(runs) - 2), "#e8d8c8"])
axes.bar_label(bars, fmt=" %.1f ms")
axes.invert_yaxis()
axes.margins(x=0.12)
axes.set_title(f"norm_pool behind conv1, {BATCH} images, forward and backward, {device.device_kind}", size=10)
plt.show()

for name in list(runs)[1:-1]:
    ratio = statistics.median(seconds["reference"] / seconds[name] for seconds in rounds)
    print(f"{name}: {ratio:.1f} times as fast as what XLA derives (median of {len(rounds)} rounds)")

# %% [markdown]
# **To read on**: `kernels/alexnet_kernels/reference.py` says what the operations mean, `xla/` and `triton/` how they are done.
# `make gpu-check` times a whole training step, against PyTorch, too; `experiments/ablate.py` asks what the two are worth: by
# the paper, 1.4 and 0.4 points of top-1 error.
