"""The network of "ImageNet Classification with Deep Convolutional Neural Networks" (NIPS 2012), in JAX.

What is named here is the Python interface, and stays; it is imported when it is first asked for.

    import alexnet_jax as alexnet

    predict = alexnet.Predictor(alexnet.load("runs/two_tower/…"), views="ten")
    for guess in predict.classify(["photo.jpg"])[0]:
        print(guess.name, guess.probability)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.architectures import NETWORKS, ONE_GPU, QUICKSTART, SIXTH_CONV, SOURCE_145, TWO_TOWER
    from alexnet_jax.data.augment import Augmentation
    from alexnet_jax.errors import UserError
    from alexnet_jax.evaluation.predict import Guess, Predictor
    from alexnet_jax.experiment import Experiment, load_experiment
    from alexnet_jax.network import Network
    from alexnet_jax.trained import Trained, initialize, load, save
    from alexnet_jax.training import Options, train
    from alexnet_jax.weights.importing import import_weights

__all__ = [
    "NETWORKS",
    "ONE_GPU",
    "QUICKSTART",
    "SIXTH_CONV",
    "SOURCE_145",
    "TWO_TOWER",
    "Augmentation",
    "Experiment",
    "Guess",
    "Network",
    "Options",
    "Predictor",
    "Trained",
    "UserError",
    "import_weights",
    "initialize",
    "load",
    "load_experiment",
    "save",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "architectures": ["NETWORKS", "ONE_GPU", "QUICKSTART", "SIXTH_CONV", "SOURCE_145", "TWO_TOWER"],
    "data.augment": ["Augmentation"],
    "errors": ["UserError"],
    "evaluation.predict": ["Guess", "Predictor"],
    "experiment": ["Experiment", "load_experiment"],
    "network": ["Network"],
    "trained": ["Trained", "initialize", "load", "save"],
    "training": ["Options", "train"],
    "weights.importing": ["import_weights"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
