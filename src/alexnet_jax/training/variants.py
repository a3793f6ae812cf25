"""Variants of a config, with components removed or replaced, for `train`, `summary` and `experiments/ablate.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from alexnet_jax.errors import UserError
from alexnet_jax.model import ablations
from alexnet_jax.model.summary import fits_input_size, smallest_input_size
from alexnet_jax.training.config import TrainConfig


@dataclass(frozen=True)
class Variant:
    """Components to remove or replace.

    Attributes:
      no_lrn: remove response normalization (section 3.3).
      no_overlap: use pooling windows that do not overlap (section 3.4).
      no_dropout: remove dropout (section 4.2).
      no_color: disable color augmentation (section 4.1).
      no_crop: use center crops instead of random crops (section 4.1).
      no_flip: disable horizontal flips (section 4.1).
      one_gpu: use one tower with half the kernels (section 3.2).
      no_cross_tower: remove communication between towers before the last layer.
      contrast_norm: use contrast normalization, which subtracts the mean, instead of response normalization (section 3.3).
      without_layer: layers to remove (section 7).
      nonlinearity: nonlinearity to use instead of ReLU (section 3.1).
      crop_size: side of the crops that the network reads, pixels; None uses the network's input size.

    Examples:
      >>> from alexnet_jax import load_config
      >>> variant = Variant(no_lrn=True, without_layer=("conv4",))
      >>> config = variant.apply(load_config("two_tower"))
      >>> config.network.name, "conv4" in config.network.named_layers
      ('two_tower-no_lrn+without_conv4', False)
    """

    no_lrn: bool = False
    no_overlap: bool = False
    no_dropout: bool = False
    no_color: bool = False
    no_crop: bool = False
    no_flip: bool = False
    one_gpu: bool = False
    no_cross_tower: bool = False
    contrast_norm: bool = False
    without_layer: tuple[str, ...] = ()
    nonlinearity: Literal["tanh", "abs_tanh", "sigmoid"] | None = None
    crop_size: int | None = None

    @property
    def name(self) -> str:
        """Name for run folders and tables, such as "no_lrn+without_conv4"; empty if nothing is changed."""
        return "+".join(name for name, _, _ in self._changes())

    def parts(self) -> "dict[str, Variant]":
        """Return the variants that each have one of the changes, by name."""
        parts = [replace(Variant(), **{flag: True}) for flag in _FLAGS if getattr(self, flag)]
        parts += [Variant(without_layer=(layer,)) for layer in self.without_layer]
        parts += [Variant(nonlinearity=self.nonlinearity)] if self.nonlinearity else []
        parts += [Variant(crop_size=self.crop_size)] if self.crop_size is not None else []
        return {part.name: part for part in parts}

    def apply(self, config: TrainConfig) -> TrainConfig:
        """Return the config with all changes. If its network changes, the name of the variant is appended to the network's name.

        Raises:
          UserError: if a change does not apply to the config or changes nothing in it, or no crop of this size fits.
        """
        changed, options = config, list[str]()
        for _, option, change in self._changes():
            before, changed = changed, change(changed)
            if changed == before:
                after = f" after {' '.join(options)}" if options else ""
                raise UserError(f"{option} changes nothing in {config.network.name}{after}: omit it")
            options.append(option)
        if changed.network == config.network:
            return changed
        return replace(changed, network=replace(changed.network, name=f"{config.network.name}-{self.name}"))

    def named(self, name: str) -> str:
        """Return the name of a config followed by that of the variant."""
        return f"{name}-{self.name}" if self.name else name

    def _changes(self) -> Iterator[tuple[str, str, Callable[[TrainConfig], TrainConfig]]]:
        """Yield the name, the option and the function of each change."""
        for flag, change in _FLAGS.items():
            if getattr(self, flag):
                yield flag, f"--{flag.replace('_', '-')}", change
        for layer in self.without_layer:
            yield f"without_{layer}", f"--without-layer {layer}", _change_network(ablations.without_layer(layer))
        if self.nonlinearity is not None:
            change = _change_network(ablations.with_nonlinearity(self.nonlinearity))
            yield self.nonlinearity, f"--nonlinearity {self.nonlinearity}", change
        if self.crop_size is not None:
            yield f"crop_{self.crop_size}", f"--crop-size {self.crop_size}", self._set_crop_size

    def _set_crop_size(self, config: TrainConfig) -> TrainConfig:
        assert self.crop_size is not None
        largest = config.augmentation.image_size
        network = replace(config.network, input_size=self.crop_size)
        if not (0 < self.crop_size <= largest and fits_input_size(network)):
            smallest = smallest_input_size(network, largest)
            sizes = f"choose {smallest} to {largest}" if smallest else "choose a larger --image-size"
            problem = f"--crop-size {self.crop_size} does not fit {config.network.name} and images of {largest} pixels"
            raise UserError(f"{problem}: {sizes}")
        return replace(config, network=network)


def _change_network(ablation: ablations.Ablation) -> Callable[[TrainConfig], TrainConfig]:
    """Return a function that applies an ablation to the network and drops the settings of removed layers."""

    def change(config: TrainConfig) -> TrainConfig:
        network = ablation(config.network)
        layers = network.named_layers
        return replace(
            config,
            network=network,
            layer_rates=tuple(rate for rate in config.layer_rates if rate.layer in layers),
            layer_decays=tuple((layer, decay) for layer, decay in config.layer_decays if layer in layers),
            init_layers=config.init_layers and tuple(layer for layer in config.init_layers if layer in layers),
        )

    return change


def _omit_transform(name: str) -> Callable[[TrainConfig], TrainConfig]:
    """Return a function that removes a transform of the augmentation, if there is one of this name."""

    def change(config: TrainConfig) -> TrainConfig:
        transforms = tuple(each for each in config.augmentation.transforms if type(each).__name__ != name)
        augmentation = replace(config.augmentation, transforms=transforms)
        color_epochs = config.color_epochs if augmentation.shifts_colors else None
        return replace(config, augmentation=augmentation, color_epochs=color_epochs)

    return change


_FLAGS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "no_lrn": _change_network(ablations.without_normalization),
    "no_overlap": _change_network(ablations.without_overlap),
    "no_dropout": _change_network(ablations.without_dropout),
    "no_color": _omit_transform("PCAColor"),
    "no_crop": _omit_transform("RandomCrop"),
    "no_flip": _omit_transform("RandomFlip"),
    "one_gpu": _change_network(ablations.one_tower),
    "no_cross_tower": _change_network(ablations.without_communication),
    "contrast_norm": _change_network(ablations.with_contrast_norm),
}
"""Function of each flag."""
