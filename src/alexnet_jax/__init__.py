"""AlexNet as in "ImageNet Classification with Deep Convolutional Neural Networks" (NIPS 2012), in JAX.

The names below are the public API. Each is imported on first use, so that `import alexnet_jax` does not import JAX.

    import alexnet_jax as alexnet

    predict = alexnet.Predictor(alexnet.load("runs/two_tower/…"), views="ten")
    for name, probability in predict.classify(["photo.jpg"])[0]:
        print(name, probability)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alexnet_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from alexnet_jax.analysis.report import write_training_report
    from alexnet_jax.configs import load_config
    from alexnet_jax.data.pipeline.augment import SOURCE_AUGMENTATION, Augmentation
    from alexnet_jax.data.pipeline.transforms import PCAColor, RandomCrop, RandomFlip, Transform
    from alexnet_jax.errors import DivergedError, UserError
    from alexnet_jax.evaluation.ensemble import Ensemble
    from alexnet_jax.evaluation.predictor import ClassProbability, Predictor
    from alexnet_jax.model.alexnet import ONE_GPU, QUICKSTART, SIXTH_CONV, SOURCE_145, TWO_TOWER
    from alexnet_jax.model.catalog import NETWORKS
    from alexnet_jax.model.network import Network
    from alexnet_jax.parallel.runtime import configure_cpu, enable_compilation_cache
    from alexnet_jax.training.config import Options, TrainConfig
    from alexnet_jax.training.preemption import StopOnSignal
    from alexnet_jax.training.result import TrainResult
    from alexnet_jax.training.train import train
    from alexnet_jax.weights.import_weights import import_weights
    from alexnet_jax.weights.trained_model import TrainedModel, initialize, load, save

__all__ = [
    "NETWORKS",
    "ONE_GPU",
    "QUICKSTART",
    "SIXTH_CONV",
    "SOURCE_145",
    "SOURCE_AUGMENTATION",
    "TWO_TOWER",
    "Augmentation",
    "ClassProbability",
    "DivergedError",
    "Ensemble",
    "Network",
    "Options",
    "PCAColor",
    "Predictor",
    "RandomCrop",
    "RandomFlip",
    "StopOnSignal",
    "TrainConfig",
    "TrainResult",
    "TrainedModel",
    "Transform",
    "UserError",
    "configure_cpu",
    "enable_compilation_cache",
    "import_weights",
    "initialize",
    "load",
    "load_config",
    "save",
    "train",
    "write_training_report",
]

_EXPORTS = {
    "analysis.report": ["write_training_report"],
    "configs": ["load_config"],
    "data.pipeline.augment": ["SOURCE_AUGMENTATION", "Augmentation"],
    "data.pipeline.transforms": ["PCAColor", "RandomCrop", "RandomFlip", "Transform"],
    "errors": ["DivergedError", "UserError"],
    "evaluation.ensemble": ["Ensemble"],
    "evaluation.predictor": ["ClassProbability", "Predictor"],
    "model.alexnet": ["ONE_GPU", "QUICKSTART", "SIXTH_CONV", "SOURCE_145", "TWO_TOWER"],
    "model.catalog": ["NETWORKS"],
    "model.network": ["Network"],
    "parallel.runtime": ["configure_cpu", "enable_compilation_cache"],
    "training.config": ["Options", "TrainConfig"],
    "training.preemption": ["StopOnSignal"],
    "training.result": ["TrainResult"],
    "training.train": ["train"],
    "weights.import_weights": ["import_weights"],
    "weights.trained_model": ["TrainedModel", "initialize", "load", "save"],
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
