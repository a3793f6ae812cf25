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
# In 2012 the network did not fit into the memory of one GPU. The paper therefore puts half of the kernels on each of two GPUs,
# "with one additional trick: the GPUs communicate only in certain layers" (section 3.2). Most reimplementations omit this, or
# merge the halves into grouped convolutions. In this implementation, **one Flax module is a tower**, and a separate file places
# the towers on devices.
#
# This notebook prints the list of layers, draws Fig. 2 from it, runs the two towers on two devices and on one, and lists the
# communication between devices in the compiled program. It does not need a GPU: the CPU can be split into two virtual devices.

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
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from alexnet_jax import TWO_TOWER, configure_cpu
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import stacked_towers
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import make_mesh, parameter_sharding

configure_cpu(devices=2)  # before JAX is first used
gpus = [device for device in jax.devices() if device.platform != "cpu"]
pair = gpus[:2] if len(gpus) > 1 else jax.devices("cpu")[:2]
jax.config.update("jax_default_device", pair[0])
if len(gpus) == 1:
    print(gpus[0].device_kind, "is the only GPU; using two virtual CPU devices instead, to show the communication")
print("tower 0 runs on", pair[0], "and tower 1 on", pair[1])

# %% [markdown]
# ## A list of layers
#
# `TWO_TOWER` is a tuple of layers that follows the text of the paper (`model/alexnet.py`). Numbers of kernels are totals over
# both towers, as in the paper. `reads` specifies the input of a layer: "own" is the output of its own tower, "all" that of both
# towers.

# %%
layers = [row for row in summarize(TWO_TOWER) if row.per_tower]  # layers with weights
print("layer         output    kernels/tower  reads  parameters  gathered")
for row in layers:
    shape, gathered = "×".join(map(str, row.shape)), f"{row.gathered_bytes / 1e3:6.1f} kB" if row.gathered_bytes else ""
    print(f"{row.name:9}{shape:>11}{row.per_tower:>17}  {row.reads:5}{row.parameters:>12,}  {gathered}")
print(f"{'total':44}{sum(row.parameters for row in layers):>12,}")

# %% [markdown]
# The last column is the data that the towers exchange per image, in float32: a quarter of a megabyte, most of it before conv3. If
# conv2, conv4 and conv5 also read both towers, it would be four times as much.
#
# ## Fig. 2, drawn from the list
#
# The height of a box is the side of the feature maps, its width is proportional to the logarithm of their number. Gray lines are
# connections within a tower, red lines connections between towers.

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
axes.set(xlim=(-0.9, right + 0.2), ylim=(-2.3, 2.3), title="two towers; red: connections between towers")
axes.axis("off")
plt.show()

# %% [markdown]
# ## Parameters and computation
#
# The convolutional layers have 4% of the parameters and 92% of the multiply-accumulates; the fully-connected layers have the
# rest. This is why dropout is applied in fc6 and fc7 (section 4.2), the layers with the most parameters to overfit, and why
# Krizhevsky's later paper, "One weird trick for parallelizing convolutional neural networks", uses data parallelism for the
# convolutional layers and model parallelism for the fully-connected layers.

# %%
names = [row.name for row in layers]
figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(12, 2.8), layout="constrained")
left_axes.bar(names, [row.parameters / 1e6 for row in layers], color="#456")
left_axes.set(title="parameters, millions")
right_axes.bar(names, [row.macs / 1e6 for row in layers], color="#c63")
right_axes.set(title="multiply-accumulates per image, millions")
plt.show()

# %% [markdown]
# ## One module, two placements
#
# The Flax module `Tower` is written for a named axis `"tower"`. `shard_map` maps this axis to one device per tower, and `vmap`
# runs both towers on one device, with the same module. Parameters have a leading tower axis. They are the same arrays in both
# placements, with different shardings:

# %%
split = make_mesh(TWO_TOWER, pair, split_towers=True)
single = make_mesh(TWO_TOWER, pair[:1], split_towers=False)
images = 50 * jax.random.normal(jax.random.key(1), (4, 224, 224, 3))  # stands for images minus their mean

logits = {}
for name, mesh in (("shard_map, two devices", split), ("vmap, one device", single)):
    params = placement.init(TWO_TOWER, mesh, jax.random.key(0))
    kernels = params["conv1"]["kernel"]
    parts = [f"{part.data.shape} on {part.device}" for part in kernels.addressable_shards]
    print(f"{name}: conv1's kernels {kernels.shape} are placed as", " and ".join(parts))
    logits[name] = np.asarray(jax.jit(placement.forward(TWO_TOWER, mesh))(params, images, None))

two_devices, one_device = logits.values()
difference = np.abs(two_devices - one_device).max()
print(f"{two_devices.size:,} logits up to {np.abs(two_devices).max():.1e}; maximum difference {difference:.1e}")
np.testing.assert_allclose(two_devices, one_device, rtol=1e-3, atol=1e-5 * np.abs(two_devices).max())

# %% [markdown]
# ## Communication in the compiled program
#
# The compiled program shows which data is actually exchanged. This cell compiles the loss and its gradients for two devices, and
# lists all collective operations:


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
    if match := re.search(COLLECTIVE, line):
        name = re.search(r'op_name="([^"]*)"', line)
        layer = next((part for part in name[1].split("/") if part in names), "softmax") if name else ""
        print(f"{match[2]:16}{match[1]:22}{layer}")

# %% [markdown]
# The forward pass has four all-gathers, at conv3, fc6, fc7 and fc8. The backward pass has four reduce-scatters, which return the
# gradients of the gathered activations to the tower that computed them. The only other communication is a few numbers per image
# for the softmax over 1000 classes that are split over two devices. Gradients of parameters are never exchanged, because each
# tower owns half of the parameters.
#
# ## No communication before conv3
#
# The last experiment changes the first kernels of tower 1 and measures the change of the activations of tower 0, layer by layer.
# Up to the pooling after conv2 they are bit-identical; from conv3 on they change.


# %%
@jax.jit
def both_towers(params):
    _, state = stacked_towers(TWO_TOWER).apply({"params": params}, images[:1], capture_intermediates=True)
    return {name: state["intermediates"][name]["__call__"][0] for name in TWO_TOWER.named_layers}


params = placement.init(TWO_TOWER, single, jax.random.key(0))
kernels = params["conv1"]["kernel"]
changed = {**params, "conv1": {**params["conv1"], "kernel": kernels.at[1].multiply(3.0)}}
before, after = both_towers(params), both_towers(changed)

norm = jnp.linalg.norm
change = {name: float(norm(after[name][0] - before[name][0]) / norm(before[name][0])) for name in TWO_TOWER.named_layers}
figure, axes = plt.subplots(figsize=(12, 2.8), layout="constrained")
axes.bar(list(change), [100 * value for value in change.values()], color="tab:red")
axes.set(ylabel="%", title="change of the activations of tower 0 when the first kernels of tower 1 are multiplied by 3")
axes.tick_params(axis="x", rotation=60)
plt.show()

unchanged = [name for name, value in change.items() if value == 0]
print("bit-identical:", ", ".join(unchanged))
assert unchanged[-1] == "conv2/pool"

# %% [markdown]
# **Further reading**: `model/tower.py` (a tower; `gather_towers` is its only communication), `parallel/placement.py` (the two
# placements), `model/alexnet.py` (the lists of layers). `tests/parallel/test_placement.py` tests the claims of this notebook.
