"""Config of a run: all settings that determine its results, as stored in config.json, in checkpoints and in exported files."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from alexnet_jax.data.class_names import printed_names
from alexnet_jax.data.manifest import are_names
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import Transform
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.files import resolved
from alexnet_jax.model.network import Network, layer_from_json, layer_to_json
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, LearningRateSchedule

# The network and the origin of copied layers are recorded separately; the default data set does not matter once one is chosen.
_NOT_RECORDED = ("network", "default_data", "init_from", "init_layers")
MAX_IMAGE_SIZE = 4096
"""Maximum side to which images are decoded, pixels."""
ADDED_SETTINGS: dict[str, Any] = {"gradient_dtype": "float32", "evaluate_every": 1, "evaluate_images": None}
"""Settings that the records of earlier versions lack, and the values that their runs have."""


@dataclass(frozen=True)
class DataRecord:
    """Data set that a network was trained on.

    Attributes:
      path: folder of the data set.
      splits: number of images by split; empty if unknown.
      classes: class names, ordered by label.
      checksum: checksum of the images and labels; empty if unknown.
      display_names: names of the classes to print, in the same order; empty if there are none besides `classes`.
    """

    path: str
    splits: dict[str, int]
    classes: list[str]
    checksum: str = ""
    display_names: list[str] = field(default_factory=list)

    @property
    def printed_classes(self) -> list[str]:
        """Names of the classes to print, see `class_names.printed_names`."""
        return printed_names(self.classes, self.display_names)


@dataclass(frozen=True)
class InitialLayersRecord:
    """Origin of layers that were copied from a trained network.

    Attributes:
      path: run folder or file of the trained network.
      step: training step at which it was saved.
      checksum: checksum of its parameters.
      layers: names of the requested layers; None if all matching layers were copied.
    """

    path: str
    step: int
    checksum: str
    layers: list[str] | None


@dataclass(frozen=True)
class RunConfig:
    """All settings that determine the results of a run, or what is known of an imported network.

    Attributes:
      network: network, with the number of classes of the data set.
      augmentation: augmentation, of which inference needs `image_size` and `mean`.
      data: data set.
      training: training config; None for a network that was not trained by this package.
      initial_layers: origin of the layers copied from a trained network; None for random initialization.
      imported: file from which the network was imported, if any.
    """

    network: Network
    augmentation: Augmentation
    data: DataRecord
    training: TrainConfig | None = None
    initial_layers: InitialLayersRecord | None = None
    imported: str | None = None

    @classmethod
    def of_training(
        cls, config: TrainConfig, network: Network, dataset: Dataset, initial_layers: InitialLayersRecord | None = None
    ) -> "RunConfig":
        """Return the config of a training run, whose network has the number of classes of the data set."""
        manifest, path = dataset.manifest, str(resolved(dataset.path))
        data = DataRecord(path, manifest.splits, manifest.classes, dataset.checksum, manifest.display_names)
        defaults = {each.name: each.default for each in fields(TrainConfig) if each.name in _NOT_RECORDED}
        training = replace(config, **{**defaults, "network": network})
        return cls(network, config.augmentation, data, training, initial_layers)

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON, for `from_json`."""
        record: dict[str, Any] = {"network": self.network.to_json()}
        if self.training is not None:
            record |= {name: value for name, value in vars(self.training).items() if name not in _NOT_RECORDED}
            record["schedule"] = _schedule_to_json(self.training.schedule)
            record["layer_rates"] = [asdict(change) for change in self.training.layer_rates]
        record |= {"augmentation": self.augmentation.to_json(), "data": asdict(self.data)}
        if self.initial_layers is not None:
            record["initial_layers"] = asdict(self.initial_layers)
        if self.imported is not None:
            record["imported"] = self.imported
        return record

    @classmethod
    def from_json(cls, record: Any, source: Path) -> "RunConfig":
        """Create a config from the return value of `to_json`; further entries of config.json are ignored.

        Args:
          record: JSON of the config.
          source: run folder or file that contains it, for messages.

        Raises:
          UserError: if an entry is missing or invalid, contradicts another one, or is not supported by this version.
        """
        try:
            network, augmentation = Network.from_json(record["network"]), Augmentation.from_json(record["augmentation"])
            initial = InitialLayersRecord(**record["initial_layers"]) if "initial_layers" in record else None
            config = cls(network, augmentation, DataRecord(**record["data"]), None, initial, record.get("imported"))
            config._check_entries()
            return replace(config, training=_training_from_json(record, config)) if "schedule" in record else config
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing = "no " if isinstance(error, KeyError) else ""
            problem = f"{source} has no valid config ({missing}{one_line(error, 200)})"
            raise UserError(f"{problem}: use the version that saved it, or an unchanged file") from error

    def _check_entries(self) -> None:
        """Check the types of entries that Python does not check, and that the classes are those of the network.

        Raises:
          ValueError: if one is invalid.
        """
        size, data = self.augmentation.image_size, self.data
        problems = {
            "image_size": isinstance(size, int) and self.network.input_size <= size <= MAX_IMAGE_SIZE,
            "mean": self.augmentation.mean in get_args(get_type_hints(Augmentation)["mean"]),
            "path": isinstance(data.path, str),
            "classes": isinstance(data.classes, list) and are_names(data.classes, len(data.classes)),
            "display_names": data.display_names == [] or are_names(data.display_names, len(data.classes)),
        }
        if invalid := [name for name, valid in problems.items() if not valid]:
            raise ValueError(f"invalid {', '.join(invalid)}")
        if len(data.classes) != self.network.num_classes:
            raise ValueError(f"{len(data.classes)} class names for {self.network.num_classes} classes")


def is_same_run(record: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether the JSON of two configs is of the same network and data, as that of all checkpoints of a run is."""
    data, other_data = ({**each["data"], "path": None, "display_names": None} for each in (record, other))
    return record["network"] == other["network"] and data == other_data


def _training_from_json(record: dict[str, Any], config: RunConfig) -> TrainConfig:
    record = ADDED_SETTINGS | record
    settings = {each.name: _as_tuples(record[each.name]) for each in fields(TrainConfig) if each.name not in _NOT_RECORDED}
    settings["schedule"] = _schedule_from_json(record["schedule"])
    settings["layer_rates"] = tuple(LayerRate(**change) for change in record["layer_rates"])
    try:
        return TrainConfig(config.network, **{**settings, "augmentation": config.augmentation})
    except UserError as error:  # its message is about an option of the command line
        raise ValueError(str(error)) from error


def check_settings_can_be_stored(config: TrainConfig) -> None:
    """Check that the config, its layers, schedule and transforms equal their copies that are stored as JSON and loaded again.

    Raises:
      UserError: if one does not, because of its class or one of its fields, or because its class has been defined again.
    """
    if type(config) is not TrainConfig:
        name = type(config).__name__
        raise UserError(f"{name} cannot be stored with the run, because it would be loaded as TrainConfig: pass a TrainConfig")
    settings: list[tuple[Any, Callable[[Any], dict[str, Any]], Callable[[dict[str, Any]], Any]]] = [
        *((layer, layer_to_json, layer_from_json) for layer in config.network.layers),
        (config.schedule, _schedule_to_json, _schedule_from_json),
        *((transform, Transform.to_json, Transform.from_json) for transform in config.augmentation.transforms),
    ]
    for setting, to_json, from_json in settings:
        name = type(setting).__name__
        try:
            copy = from_json(json.loads(json.dumps(to_json(setting))))
            if type(copy) is not type(setting):
                raise UserError(f"{name} has been defined again since it was used in the config: create the config again")
            if copy == setting:
                continue
            reason = "it differs from its stored copy"
        except (KeyError, TypeError, ValueError) as error:
            reason = one_line(error, 200)
        advice = "make it a frozen dataclass, or a layer, with fields that JSON can store: numbers, text, None and tuples of them"
        raise UserError(f"{name} cannot be stored with the run ({reason}): {advice}")


def _schedule_to_json(schedule: LearningRateSchedule) -> dict[str, Any]:
    return {"rule": type(schedule).__name__.lower(), **asdict(schedule)}


def _schedule_from_json(record: dict[str, Any]) -> LearningRateSchedule:
    values = {name: _as_tuples(value) for name, value in record.items()}
    return LearningRateSchedule.registry.find(values.pop("rule"))(**values)


def _as_tuples(value: Any) -> Any:
    """Convert JSON arrays to tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
