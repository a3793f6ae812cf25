"""Tests that training refuses layers, schedules and transforms that would be different when the run is loaded."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from alexnet_jax.data.pipeline.transforms import Transform
from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Layer
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.run_config import check_settings_can_be_stored
from alexnet_jax.training.schedule import LearningRateSchedule, StepDecay
from tests.conftest import TINY_CONFIG, assert_train_raises


@dataclass(frozen=True)
class Wrapped(LearningRateSchedule):
    wrapped: Any


@dataclass(frozen=True)
class Filtered(Transform):
    kernel: Any = (1, 2, 1)


class NoDataclass(Transform):
    pass


class OwnConfig(TrainConfig):
    pass


def with_transform(transform):
    return replace(TINY_CONFIG, augmentation=replace(TINY_CONFIG.augmentation, transforms=(transform,)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(TINY_CONFIG, schedule=Wrapped(StepDecay())),
            r"Wrapped cannot be stored with the run \(it differs from its stored copy\): make it",
        ),
        (with_transform(Filtered(np.ones(3))), r"Filtered cannot .* \(Object of type ndarray is not JSON serializable\)"),
        (with_transform(NoDataclass()), r"NoDataclass cannot .*: make it a frozen dataclass,"),
        (OwnConfig(TINY_CONFIG.network), "OwnConfig cannot be stored with the run, .*: pass a TrainConfig"),
    ],
    ids=["schedule", "transform", "class", "config"],
)
def test_settings_that_json_does_not_keep_are_refused(config, message, options):
    assert_train_raises(message, config, options)
    assert not options.runs_dir.exists()


def test_settings_that_json_keeps_are_accepted():
    check_settings_can_be_stored(replace(with_transform(Filtered()), schedule=Wrapped(((1, 2), "a", None))))


class DefinedTwice(Layer):
    short_name = "defined_twice"


@pytest.mark.usefixtures("registered_classes")
def test_layer_whose_class_is_defined_again_is_refused():
    layers = TINY_CONFIG.network.layers
    config = replace(TINY_CONFIG, network=replace(TINY_CONFIG.network, layers=(*layers[:-1], DefinedTwice(), layers[-1])))
    check_settings_can_be_stored(config)
    type("DefinedTwice", (Layer,), {"__module__": __name__, "short_name": "defined_twice"})
    with pytest.raises(UserError, match=r"DefinedTwice has been defined again .*: create the config again"):
        check_settings_can_be_stored(config)


@pytest.mark.usefixtures("registered_classes")
def test_setting_whose_class_is_defined_again_is_refused():
    config = with_transform(Filtered())
    namespace = {"__module__": __name__, "__annotations__": {"kernel": Any}, "kernel": (1, 2, 1)}
    dataclass(frozen=True)(type("Filtered", (Transform,), namespace))
    with pytest.raises(UserError, match=r"Filtered has been defined again .*: create the config again"):
        check_settings_can_be_stored(config)
