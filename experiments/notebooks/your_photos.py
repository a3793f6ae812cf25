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
# # Training on your photos
#
# This notebook trains a network on a folder of photos, shows the augmented training images, the learned kernels, predictions and
# retrieved images, and saves the network to one file. Without photos, it uses synthetic images of ten classes.

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

# %% [markdown]
# ## Data and config
#
# `DATA` is a folder with one folder of photos per class. A part of the photos is used for validation, unless there are folders
# `train` and `validation`. Photos are made square as in section 2: the shorter side is rescaled, and the center is cropped.
#
# The config is that of `make train`: a small version of the paper's two-tower network. Without a GPU, training and its schedule
# are shortened to six epochs, in which the error only begins to fall.

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
    schedule=StepDecay((22,)),  # epochs after which the learning rate is divided by 10
    augmentation=Augmentation(image_size=128),
)
# With a GPU and thousands of photos, train the full-size network. The other settings are those of section 5:
# CONFIG = TrainConfig(alexnet_jax.SOURCE_145, epochs=12, batch_size=64)
if shutil.which("nvidia-smi") is None:
    CONFIG = CONFIG.with_epochs(6)

ROOT = Path("../..") if Path("../../experiments").is_dir() else Path()  # the repository, or this folder

# %% [markdown]
# ## Augmented training images
#
# Training uses random crops with random horizontal flips and random color shifts (section 4.1). The last rows show the ten views
# over which predictions can be averaged at test time.

# %%
from IPython.display import Image, display  # type: ignore[reportMissingImports]

from alexnet_jax.analysis.contact_sheet import draw_contact_sheet
from alexnet_jax.data.find import find_dataset

dataset = find_dataset(DATA, DATA, ROOT / "data")
print(f"{len(dataset.manifest.classes)} classes;", ", ".join(f"{n} {split}" for split, n in dataset.manifest.splits.items()))

folder = ROOT / "runs" / "your_photos"
folder.mkdir(parents=True, exist_ok=True)
size = CONFIG.network.input_size
draw_contact_sheet(dataset, folder / "sheet.png", CONFIG.augmentation, input_size=size, seed=0)
display(Image(folder / "sheet.png"))

# %% [markdown]
# ## Training
#
# Both towers run on one device if there is only one; with two or more devices, each tower has its own. If this cell is
# interrupted, running it again resumes from the last checkpoint. A finished training is not repeated.

# %%
run = alexnet_jax.train("your_photos", CONFIG, Options(data=DATA, data_dir=ROOT / "data", runs_dir=ROOT / "runs")).run
alexnet_jax.write_training_report(run)
display(Image(run / "curves.png"))

# %% [markdown]
# The kernels of the first layer, tower 0 above tower 1, as in Fig. 3 of the paper. After 90 epochs on ImageNet, the kernels of
# one tower are largely color-agnostic and those of the other color-specific, "during every run" (section 6.1). A short training
# only begins to form such kernels. The initial kernels are noise, which has two thirds of its energy in color.

# %%
from alexnet_jax.analysis.kernel_colors import color_statistics, format_color_statistics

model = alexnet_jax.load(run, best=True)
display(Image(run / "kernels.png", width=800))
print(format_color_statistics(color_statistics(model.params["conv1"]["kernel"])))

# %% [markdown]
# ## Predictions on validation images
#
# As in Fig. 4 (left) of the paper: the five most probable classes, with the true class in red.

# %%
from alexnet_jax.analysis.examples import ExampleOptions, find_examples
from alexnet_jax.analysis.figure4 import draw_predictions, draw_retrievals

options = ExampleOptions(images=8, queries=4, nearest=6, searched=1000)
examples = find_examples(model, dataset, dataset.evaluation_split, options)
draw_predictions(examples.predictions, folder / "predictions.png")
display(Image(folder / "predictions.png", width=800))

# %% [markdown]
# ## Retrieval of similar images
#
# As in Fig. 4 (right) of the paper: each row shows a validation image and the training images with the most similar activations
# in the last hidden layer, by Euclidean distance. Similar activations do not require similar pixels (section 6.1).

# %%
draw_retrievals(examples.retrievals, folder / "retrievals.png")
display(Image(folder / "retrievals.png", width=900))

# %% [markdown]
# ## Saving the network
#
# `save` writes parameters, mean image, config and class names to one `.safetensors` file, which does not depend on the run folder
# or the data. The next cell loads the file and classifies a photo, from the center view and averaged over ten views.

# %%
from PIL import Image as PILImage

alexnet_jax.save(model, folder / "model.safetensors")
loaded = alexnet_jax.load(folder / "model.safetensors")

photo = folder / "photo.png"  # any image file works
PILImage.fromarray(examples.predictions[0].image.pixels).save(photo)
for views in ("center", "ten"):
    predictions = Predictor(loaded, views=views, batch_size=1).classify([photo], top=3)[0]
    print(f"{views:7}", ", ".join(f"{name} {probability:.0%}" for name, probability in predictions))
print("true class:", examples.predictions[0].image.label)

# %% [markdown]
# **Further reading**: `report.html` in the run folder shows all of this on one page. `docs/data.md` lists the supported data
# formats, `docs/training.md` explains why the loss of the paper's network does not fall at first, and `docs/weights.md` describes
# export to PyTorch and import.
