"""Settings of the configs against tables written by hand from the paper and the original code's logs and parameter files."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from alexnet_jax import NETWORKS
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import PCAColor, RandomCrop, RandomFlip
from alexnet_jax.model.cifar import CIFAR_NETWORKS
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, ReduceOnPlateau, StaircaseExponential, StepDecay

# Section 5 of the paper: batch size 128, momentum 0.9, weight decay 0.0005, initial rate 0.01 for all layers, about 90 epochs.
PAPER = {
    "default_data": "imagenet",
    "epochs": 90,
    "batch_size": 128,
    "learning_rate": 0.01,
    "schedule": ReduceOnPlateau(patience=5, min_delta=0.001, max_reductions=3),
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "layer_decays": (),
    "bias_rate": 1.0,
    "layer_rates": (),
    "color_epochs": None,
    "precision": "float32",
    "gradient_dtype": "float32",
    "init_from": None,
    "init_layers": None,
    "evaluate_every": 1,
    "evaluate_images": None,
    "seed": 0,
}

# Section 4.1: 32 x 32 positions and two reflections, the factor of 2048; eigenvalues times N(0, 0.1).
PAPER_AUGMENTATION = Augmentation(
    image_size=256,
    transforms=(
        RandomCrop(last_position=False, images_per_crop=1),
        RandomFlip(images_per_flip=1),
        PCAColor(scale="variance", std=0.1, divisor=1.0),
    ),
    mean="crop",
)
# convdata_jpeg.py: 33 x 33 positions, one for 32 consecutive images, the center of the mean image, standard deviations, / 1.1.
SOURCE_AUGMENTATION = Augmentation(
    image_size=256,
    transforms=(
        RandomCrop(last_position=True, images_per_crop=32),
        RandomFlip(images_per_flip=32),
        PCAColor(scale="deviation", std=0.1, divisor=1.1),
    ),
    mean="center",
)
CROP_AND_FLIP = (RandomCrop(last_position=True, images_per_crop=1), RandomFlip(images_per_flip=1))
SOURCE = PAPER | {"bias_rate": 2.0}  # weights 0.01, biases 0.02
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")

# Name: (network, settings, augmentation)
PUBLISHED = {
    "two_tower": ("two_tower", PAPER, PAPER_AUGMENTATION),
    "one_gpu": ("one_gpu", PAPER, PAPER_AUGMENTATION),
    "sixth_conv": ("sixth_conv", PAPER, PAPER_AUGMENTATION),
    "source_145": (
        "source_145",
        SOURCE
        | {
            "epochs": 91,
            "schedule": StepDecay(milestones=(25, 51, 79), bias_milestones=()),
            "layer_rates": (LayerRate("conv1", 67, 1e-5, None), LayerRate("conv1", 72, 0.0, 0.0)),
            "color_epochs": 67,
        },
        SOURCE_AUGMENTATION,
    ),
    "two_columns": (
        "two_columns",
        SOURCE
        | {
            "epochs": 92,
            "schedule": StepDecay(milestones=(25, 49, 79), bias_milestones=()),
            "layer_rates": (LayerRate("conv1", 66, 1e-5, None), LayerRate("conv1", 72, 0.0, 0.0)),
            "color_epochs": 66,
        },
        SOURCE_AUGMENTATION,
    ),
    "fall2009": (
        "fall2009",
        SOURCE
        | {
            "default_data": "fall2009",
            "epochs": 28,
            "schedule": StepDecay(milestones=(6, 13, 25), bias_milestones=()),
            "layer_rates": (
                LayerRate("conv1", 18, 1e-5, None),
                LayerRate("conv2", 18, 1e-5, None),
                LayerRate("conv1", 20, 0.0, 0.0),
                LayerRate("conv2", 20, 0.0, 0.0),
            ),
            "color_epochs": 18,
        },
        SOURCE_AUGMENTATION,
    ),
    "fall2009_from_145": (
        "fall2009",
        SOURCE
        | {
            "default_data": "fall2009",
            "epochs": 6,
            "schedule": StepDecay(milestones=(1,), bias_milestones=()),
            "layer_rates": tuple(LayerRate(name, 0, 0.001, None) for name in CONVOLUTIONS),
            "init_layers": CONVOLUTIONS,
        },
        SOURCE_AUGMENTATION,
    ),
    "fall2011": (
        "fall2011",
        SOURCE
        | {
            "default_data": "fall2011",
            "epochs": 8,
            "schedule": StepDecay(milestones=(6,), bias_milestones=()),
            "layer_rates": tuple(LayerRate(name, 0, 0.001, None) for name in (*CONVOLUTIONS, "conv6")),
            "init_layers": (*CONVOLUTIONS, "conv6"),
        },
        SOURCE_AUGMENTATION,
    ),
    "finetune": (
        "source_146",
        SOURCE
        | {
            "epochs": 54,
            "learning_rate": 0.001,
            "schedule": StepDecay(milestones=(22, 42), bias_milestones=()),
            "bias_rate": 20.0,
            "layer_rates": (
                LayerRate("conv1", 0, 1e-4, None),
                LayerRate("conv1", 5, 1e-5, None),
                LayerRate("conv1", 7, 0.0, 0.0),
                LayerRate("fc8", 0, 0.01, None),
                LayerRate("fc8", 9, 1e-3, None),
                LayerRate("fc8", 22, 1e-4, None),
                LayerRate("fc8", 42, 1e-5, None),
            ),
            "color_epochs": 38,
            "init_layers": (*CONVOLUTIONS, "conv6", "fc6", "fc7"),
        },
        SOURCE_AUGMENTATION,
    ),
    # Caffe's solver.prototxt: batch 256, rates /10 every 100,000 of 450,000 steps, biases twice the rate, no color shift.
    "bvlc_alexnet": (
        "bvlc_alexnet",
        PAPER | {"batch_size": 256, "schedule": StepDecay(milestones=(20, 40, 60, 80)), "bias_rate": 2.0},
        Augmentation(256, CROP_AND_FLIP, "crop"),
    ),
    "caffenet": (
        "caffenet",
        PAPER | {"batch_size": 256, "schedule": StepDecay(milestones=(20, 40, 60, 80)), "bias_rate": 2.0},
        Augmentation(256, CROP_AND_FLIP, "crop"),
    ),
    # torchvision's references/classification: 8 x 32 images, rates /10 every 30 of 90 epochs, weight decay 1e-4.
    "torchvision_alexnet": (
        "torchvision_alexnet",
        PAPER | {"batch_size": 256, "schedule": StepDecay(milestones=(30, 60)), "weight_decay": 1e-4},
        Augmentation(256, CROP_AND_FLIP, "channel"),
    ),
    "quickstart": (
        "quickstart",
        PAPER
        | {"default_data": "synthetic", "epochs": 28, "batch_size": 32, "learning_rate": 0.004, "schedule": StepDecay((22,))},
        replace(PAPER_AUGMENTATION, image_size=128),
    ),
    # layer-params-conv-local-11pct.cfg: rates 0.001 and 0.002, decay of the locally connected layers and the classifier only.
    "cifar_four_layers": (
        "cifar_norm",
        SOURCE
        | {
            "default_data": "cifar10",
            "epochs": 12,
            "learning_rate": 0.001,
            "schedule": StepDecay(milestones=(9, 11)),
            "weight_decay": 0.0,
            "layer_decays": (("local3", 0.004), ("local4", 0.004), ("fc10", 0.01)),
        },
        Augmentation(32, CROP_AND_FLIP, "center"),
    ),
}


def settings(config):
    return {name: value for name, value in vars(config).items() if name not in ("network", "augmentation")}


def test_all_configs_have_a_table():
    assert sorted(PUBLISHED) == config_names()


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_equals_its_table(name):
    config = load_config(name)
    network, expected, augmentation = PUBLISHED[name]
    assert config.network == (dict(NETWORKS) | CIFAR_NETWORKS)[network]
    assert settings(config) == expected
    assert config.augmentation == augmentation


def test_defaults_are_those_of_the_paper():
    config = TrainConfig(NETWORKS["two_tower"])
    assert settings(config) == PAPER
    assert config.augmentation == PAPER_AUGMENTATION


def test_default_schedules_are_those_of_the_logs():
    assert StepDecay() == StepDecay(milestones=(25, 51, 79), bias_milestones=None)
    expected = StaircaseExponential(decay_factor=250.0, num_levels=4, bias_decay_factor=10.0, bias_num_levels=2, decay_epochs=90)
    assert StaircaseExponential() == expected


def test_figure_1_has_no_regularization(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "experiments")
    config = import_module("cifar_figure1").CONFIG
    assert config.network == CIFAR_NETWORKS["cifar_19pct"]
    expected = {
        "default_data": "cifar10", "epochs": 10, "learning_rate": 0.001, "bias_rate": 2.0, "schedule": StepDecay(milestones=()),
        "weight_decay": 0.0,
    }  # fmt: skip
    assert settings(config) == PAPER | expected
    assert config.augmentation == Augmentation(image_size=32, transforms=(), mean="center")
