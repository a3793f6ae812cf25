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
# # Two towers
#
# In 2012 the network did not fit into one GPU. So the paper puts half of the kernels on each of two, "with one additional
# trick: the GPUs communicate only in certain layers" (section 3.2). Most copies leave this out, or merge the halves into
# grouped convolutions. Here it is the network: **one function describes a tower**, and where the towers run is decided
# elsewhere.
#
# This notebook looks at the list of layers, draws Fig. 2 from it, runs the two towers on two devices and on one, and asks the
# compiled program who talks to whom. It needs no GPU: the cores of a CPU can pose as two devices.

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
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from alexnet_jax import TWO_TOWER
from alexnet_jax.model import tower
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel import placement
from alexnet_jax.parallel import runtime as devices
from alexnet_jax.parallel.mesh import make_mesh, parameter_sharding

devices.set_cpu_device_count(2)  # before JAX looks at its devices
gpus = [device for device in jax.devices() if device.platform != "cpu"]
pair = gpus[:2] if len(gpus) > 1 else jax.devices("cpu")[:2]
jax.config.update("jax_default_device", pair[0])
if len(gpus) == 1:
    print(gpus[0].device_kind, "alone would have both towers: the CPU's cores pose as two devices, to see what crosses")
print("tower 0 runs on", pair[0], "and tower 1 on", pair[1])

# %% [markdown]
# ## A list of layers
#
# `TWO_TOWER` is the paper's prose as a tuple of layers (`architectures.py`). Kernels are counted over both towers, as in the
# paper. `reads` is the only thing that a layer knows of the other tower: "own" is what its tower has computed, "all" is both.

# %%
layers = [row for row in summarize(TWO_TOWER) if row.per_tower]  # those with weights
print("layer         output  kernels a tower  reads  parameters  gathered")
for row in layers:
    shape, gathered = "×".join(map(str, row.shape)), f"{row.gathered_bytes / 1e3:6.1f} kB" if row.gathered_bytes else ""
    print(f"{row.name:9}{shape:>11}{row.per_tower:>17}  {row.reads:5}{row.parameters:>12,}  {gathered}")
print(f"{'all':44}{sum(row.parameters for row in layers):>12,}")

# %% [markdown]
# The last column is what the towers have to tell each other about one image, float32: a quarter of a megabyte, most of it
# before conv3. Had conv2, conv4 and conv5 read both towers, too, it would be four times as much.
#
# ## Fig. 2, from the list
#
# The height of a box is the side of its maps, its width the logarithm of how many there are. Gray lines stay inside a tower;
# red ones cross.

# %%
figure, axes = plt.subplots(figsize=(12, 4.2), layout="constrained")
right, sources = 0.2, (0.0,)
axes.text(0.15, 0, "224×224×3", size=8, ha="right", va="center")
for row in layers:
    side = row.shape[0] if len(row.shape) == 3 else 1
    height, width = 0.3 + side / 40, 0.12 * np.log2(row.per_tower)
    left = right + 0.75
    for middle in (1.1, -1.1):
        axes.add_patch(Rectangle((left, middle - height / 2), width, height, facecolor="#dbe5ef", edgecolor="#456"))
        for source in sources:
            crosses = source == -middle
            if row.reads == "all" or not crosses:
                axes.plot([right, left], [source, middle], color="tab:red" if crosses else "#bbb", linewidth=1.5, zorder=0)
        size = f"{side}×{side}×{row.per_tower}" if side > 1 else f"{row.per_tower}"
        axes.text(left + width / 2, middle + np.sign(middle) * (height / 2 + 0.12), size, size=8, ha="center", va="center")
    axes.text(left + width / 2, 0, row.name, weight="bold", ha="center", va="center")
    right, sources = left + width, (1.1, -1.1)
axes.set(xlim=(-0.9, right + 0.2), ylim=(-2.3, 2.3), title="the two towers; red: what is gathered")
axes.axis("off")
plt.show()

# %% [markdown]
# ## Parameters here, work there
#
# Convolutions hold 4 % of the parameters and do 92 % of the work; in the fully-connected layers it is the other way round. So
# dropout is in fc6 and fc7 (section 4.2), where there is so much to overfit with, and Krizhevsky's later paper, "One weird
# trick for parallelizing convolutional neural networks", divides images among devices in the one part and units in the other.

# %%
names = [row.name for row in layers]
figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(12, 2.8), layout="constrained")
left_axes.bar(names, [row.parameters / 1e6 for row in layers], color="#456")
left_axes.set(title="parameters, millions")
right_axes.bar(names, [row.macs / 1e6 for row in layers], color="#c63")
right_axes.set(title="multiply-accumulates for one image, millions")
plt.show()

# %% [markdown]
# ## One function, two placements
#
# `tower.logits` is written for an axis of the name `"tower"`. `shard_map` provides it with a device for each tower, `vmap` with
# both on one device, and the function cannot tell. Parameters are stacked along a first axis of towers, so that they are the
# same array either way, and only lie elsewhere:

# %%
split = make_mesh(TWO_TOWER, pair, split_towers=True)
single = make_mesh(TWO_TOWER, pair[:1], split_towers=False)
images = 50 * jax.random.normal(jax.random.key(1), (4, 224, 224, 3))  # in place of pixels less their mean

logits = {}
for name, mesh in (("shard_map, two devices", split), ("vmap, one device", single)):
    params = placement.init(TWO_TOWER, mesh, jax.random.key(0))
    kernels = params["conv1"]["kernel"]
    parts = [f"{part.data.shape} on {part.device}" for part in kernels.addressable_shards]
    print(f"{name}: conv1's kernels {kernels.shape} lie as", " and ".join(parts))
    logits[name] = np.asarray(jax.jit(placement.forward(TWO_TOWER, mesh))(params, images, None))

ours, theirs = logits.values()
print(f"{ours.size:,} logits of up to {np.abs(ours).max():.1e} differ by {np.abs(ours - theirs).max():.1e} at most")
np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(ours).max())

# %% [markdown]
# ## Who talks to whom? Ask the program
#
# Whatever the Python says, only what XLA has compiled counts. Here is a step of training for two devices, loss and gradients,
# and every operation in it that crosses from one device to the other:


# %%
def loss(params, images, labels):
    log_probabilities = jax.nn.log_softmax(placement.forward(TWO_TOWER, split)(params, images, None))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


shapes = jax.eval_shape(partial(placement.init, TWO_TOWER, split), jax.random.key(0))
sharding = parameter_sharding(split)
shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
labels = jnp.zeros(len(images), jnp.int32)
program = jax.jit(jax.value_and_grad(loss)).lower(shapes, images, labels).compile().as_text() or ""

COLLECTIVE = r"= \(?(\w+\[[\d,]*\]).* (all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)(?:-start)?\("
for line in program.splitlines():
    if found := re.search(COLLECTIVE, line):
        name = re.search(r'op_name="([^"]*)"', line)
        layer = next((part for part in name[1].split("/") if part in names), "softmax") if name else ""
        print(f"{found[2]:16}{found[1]:22}{layer}")

# %% [markdown]
# Four all-gathers on the way up, at conv3, fc6, fc7 and fc8, and four reduce-scatters on the way down, which bring the
# gradients of what was gathered back to the tower it came from. Nothing else but a few numbers for each image, by which the
# softmax is taken over a thousand classes that lie on two devices. Gradients of the parameters never cross: each tower owns its
# half.
#
# ## Before conv3 a tower is alone
#
# A last test needs no program text. Change tower 1's first kernels and see what that does to tower 0, layer by layer: nothing
# at all up to conv2's pooling, to the last bit, and something from conv3 on.


# %%
@jax.jit
def both_towers(params):
    return jax.vmap(lambda own: tower.activations(TWO_TOWER, own, images[:1]), axis_name="tower")(params)


params = placement.init(TWO_TOWER, single, jax.random.key(0))
kernels = params["conv1"]["kernel"]
changed = {**params, "conv1": {**params["conv1"], "kernel": kernels.at[1].multiply(3.0)}}
before, after = both_towers(params), both_towers(changed)

norm = jnp.linalg.norm
change = {name: float(norm(after[name][0] - before[name][0]) / norm(before[name][0])) for name in TWO_TOWER.named_layers}
figure, axes = plt.subplots(figsize=(12, 2.8), layout="constrained")
axes.bar(list(change), [100 * value for value in change.values()], color="tab:red")
axes.set(ylabel="%", title="tower 0's activities: change when the first kernels of tower 1 are tripled")
axes.tick_params(axis="x", rotation=60)
plt.show()

alone = [name for name, value in change.items() if value == 0]
print("not a bit differs at", ", ".join(alone))
assert alone[-1] == "conv2/pool"

# %% [markdown]
# **To read on**: `tower.py` (the function, `gather_towers` is its only communication), `placement.py` (the two placements),
# `architectures.py` (the lists). `tests/test_placement.py` holds all that was seen here.
