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
# # Your photos
#
# From a folder of photos to a trained network: what training sees, what the network learns, what it takes to be alike, and the
# whole of it in one file. Without photos it takes pictures that are drawn by code, ten classes of them.

# %%
import importlib.util
import shutil
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/alexnet-jax"  # where this notebook is from; nothing happens if the package is here

if importlib.util.find_spec("alexnet_jax") is None:
    extra = "[cuda12]" if shutil.which("nvidia-smi") else ""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"alexnet-jax{extra} @ git+{REPOSITORY}"], check=True)

# %% [markdown]
# ## What to train, and on what
#
# `DATA` is a folder with a folder of photos for each class; some are held out to measure the error on, unless there are `train`
# and `validation` folders already. A photo becomes a square as in section 2: the shorter side scaled, the center cut out.
#
# The experiment is that of `make train`: the paper's network made small, two towers and all. Without a GPU it is shortened to
# six epochs, with its schedule, which is enough to see it begin.

# %%
from pathlib import Path

import alexnet_jax
from alexnet_jax import Augmentation, Options, Predictor, TrainConfig
from alexnet_jax.training.schedule import StepDecay

DATA = "synthetic"  # or "path/to/photos"
CONFIG = TrainConfig(
    alexnet_jax.QUICKSTART,
    epochs=28,
    batch_size=32,
    learning_rate=0.004,
    schedule=StepDecay((22,)),  # epochs after which the rate falls to a tenth
    augmentation=Augmentation(image_size=128),
)
# With a GPU and thousands of photos, the paper's size. What is not said is as in section 5:
# CONFIG = TrainConfig(alexnet_jax.SOURCE_145, epochs=12, batch_size=64)
if shutil.which("nvidia-smi") is None:
    CONFIG = CONFIG.in_epochs(6)

ROOT = Path("../..") if Path("../../experiments").is_dir() else Path()  # of the repository, or this folder

# %% [markdown]
# ## What training sees
#
# Hardly ever the same twice: a random square of a picture, flipped or not, under light of a slightly different color (section
# 4.1). Below are the ten views of a picture over which predictions can be averaged at test.

# %%
from IPython.display import Image, display  # type: ignore[reportMissingImports]

from alexnet_jax.analysis.contact_sheet import draw_contact_sheet
from alexnet_jax.data.find import find_dataset

dataset = find_dataset(DATA, DATA, ROOT / "data")
print(f"{len(dataset.manifest.classes)} classes;", ", ".join(f"{n} {split}" for split, n in dataset.manifest.splits.items()))

pictures = ROOT / "runs" / "your_photos"
pictures.mkdir(parents=True, exist_ok=True)
size = CONFIG.network.input_size
draw_contact_sheet(dataset, pictures / "sheet.png", CONFIG.augmentation, input_size=size, seed=0)
display(Image(pictures / "sheet.png"))

# %% [markdown]
# ## Training
#
# On one GPU or CPU device both towers share it; with two or more, each tower has its own. Stopped halfway, the cell goes on
# from its last checkpoint when it is run again; when it is finished, it says so.

# %%
run = alexnet_jax.train("your_photos", CONFIG, Options(data=DATA, data_dir=ROOT / "data", runs_dir=ROOT / "runs"))
display(Image(run / "curves.png"))

# %% [markdown]
# The first kernels, tower 0 above and tower 1 below: the paper's Fig. 3. In its 90 epochs of ImageNet one tower became largely
# blind to color and the other a specialist for it, "during every run" (section 6.1). So short a training only begins to form
# them; noise, which they are at first, has two thirds of its energy in color.

# %%
from alexnet_jax.analysis.kernel_colors import color_statistics, format_color_statistics

trained = alexnet_jax.load(run, best=True)
display(Image(run / "kernels.png", width=800))
print(format_color_statistics(color_statistics(trained.params["conv1"]["kernel"])))

# %% [markdown]
# ## What it says of pictures it has not seen
#
# The paper's Fig. 4, left: the five best guesses, red for the right class.

# %%
from alexnet_jax.analysis.examples import ExampleOptions, find_examples
from alexnet_jax.analysis.figure4 import draw_predictions, draw_retrieved

choice = ExampleOptions(images=8, queries=4, nearest=6, searched=1000)
examples = find_examples(trained, dataset, dataset.evaluation_split, choice)
draw_predictions(examples.predictions, pictures / "predictions.png")
display(Image(pictures / "predictions.png", width=800))

# %% [markdown]
# ## What looks alike to it
#
# Fig. 4, right: in each row a held-out picture, then the training pictures whose activities in the last hidden layer are
# nearest to its own. Pixel by pixel they have little in common; what they share is what the network has learned to see (section
# 6.1).

# %%
draw_retrieved(examples.retrieved, pictures / "retrieved.png")
display(Image(pictures / "retrieved.png", width=900))

# %% [markdown]
# ## One file
#
# Parameters, mean image, settings and the names of the classes go into one `.safetensors` file; whoever has it needs neither
# run nor data. Here it is loaded again and asked about a file, over one view and over ten.

# %%
from PIL import Image as Picture

alexnet_jax.save(trained, pictures / "model.safetensors")
again = alexnet_jax.load(pictures / "model.safetensors")

photo = pictures / "photo.png"  # any file does
Picture.fromarray(examples.predictions[0].picture.pixels).save(photo)
for views in ("center", "ten"):
    guesses = Predictor(again, views=views, batch_size=1).classify([photo], top=3)[0]
    print(f"{views:7}", ", ".join(f"{name} {probability:.0%}" for name, probability in guesses))
print("it is a", examples.predictions[0].picture.label)

# %% [markdown]
# **To read on**: `report.html` in the folder of the run has all of this on a page. `docs/data.md` has what else can be read,
# `docs/training.md` why the paper's network seems not to learn at first, `docs/weights.md` the way to PyTorch and back.
