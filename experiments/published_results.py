"""What the paper reports, and what the logs of its code say: the figures that ours stand beside (`make tables`).

Errors are fractions of images, the top-1 before the top-5. A log is a file of layers/ in computerhistory/AlexNet-Source-Code, at
whose end the errors of its network stand, as the mean over ten views if nothing else is said. Where the paper's figures
come from a log they agree with it to the last digit; where there is none, no line of the release has the figure.
"""

from typing import NamedTuple


class Errors(NamedTuple):
    """Top-1 and top-5 errors, or differences of them; None is not known."""

    top1: float | None
    top5: float | None


NOT_KNOWN = Errors(None, None)


class Row(NamedTuple):
    """A line of one of the paper's tables.

    Attributes:
      model: as the paper calls it.
      paper: on the test set of 2010 or 2009, on the validation set of 2012.
      test_top5: of Table 2, on a test set whose classes were never given away.
      logged: the same as `paper`, from the log of the original code.
      log: its file.
      ours: an errors.json of `evaluate` in results/, without its .json; None where there is nothing to train.
      views: of ours.
    """

    model: str
    paper: Errors
    test_top5: float | None = None
    logged: Errors = NOT_KNOWN
    log: str | None = None
    ours: str | None = None
    views: str = "ten"


TABLE_1 = (
    Row("sparse coding [2]", Errors(0.471, 0.282)),
    Row("SIFT + FVs [24]", Errors(0.457, 0.257)),
    Row("CNN", Errors(0.375, 0.170), None, Errors(0.374727, 0.169987), "layer-params-145-2010.cfg", "ilsvrc2010"),
    Row(
        "CNN, center view (footnote 5)",
        Errors(0.390, 0.183),
        None,
        Errors(0.390247, 0.182953),
        "layer-params-145-2010.cfg",
        "ilsvrc2010",
        "center",
    ),
)
"""Test set of ILSVRC-2010."""

TABLE_2 = (
    Row("SIFT + FVs [7]", NOT_KNOWN, 0.262),
    Row("1 CNN", Errors(0.407, 0.182), None, Errors(0.406640, 0.182100), "layer-params-145.cfg", "ilsvrc2012"),
    Row("5 CNNs", Errors(0.381, 0.164), 0.164, ours="ilsvrc2012_five"),
    Row(
        "1 CNN*",
        Errors(0.390, 0.166),
        None,
        Errors(0.389900, 0.166220),
        "layer-params-146-2012-2011.cfg",
        "ilsvrc2012_pretrained",
    ),
    Row("7 CNNs*", Errors(0.367, 0.154), 0.153, ours="ilsvrc2012_seven"),
)
"""Validation set of ILSVRC-2012, and top-5 error on its test set. A star: trained before on all of ImageNet, Fall 2011."""

FALL_2009 = (
    Row("best before [19]", Errors(0.781, 0.609)),
    Row("CNN with a sixth convolution", Errors(0.674, 0.409), ours="fall2009"),
)
"""Half of ImageNet, Fall 2009, with 10,184 classes (section 6)."""


class Ablation(NamedTuple):
    """What taking something away adds to the errors.

    Attributes:
      what: is taken away.
      section: of the paper.
      paper: what it says it adds.
      whole: errors of the whole network, from the log that it is compared with.
      ablated: errors without, from its log.
      log: of the network without.
      says: it in the paper's words, where they are not two figures.
    """

    what: str
    section: str
    paper: Errors = NOT_KNOWN
    whole: Errors = NOT_KNOWN
    ablated: Errors = NOT_KNOWN
    log: str | None = None
    says: str | None = None

    @property
    def logged(self) -> Errors:
        """What the logs say it adds."""
        pairs = zip(self.whole, self.ablated, strict=True)
        return Errors(*(None if whole is None or ablated is None else ablated - whole for whole, ablated in pairs))


_145 = Errors(0.406640, 0.182100)  # validation set of 2012, layer-params-145.cfg
_145_OF_2010 = Errors(0.374727, 0.169987)  # test set of 2010, layer-params-145-2010.cfg

ABLATIONS = {
    "one_gpu": Ablation(
        "the second tower", "3.2", Errors(0.017, 0.012), _145_OF_2010, Errors(0.391680, 0.182287), "layer-params-145-half.cfg"
    ),
    # Net 150 has a wider conv2 and twice the fc6 to make up for it.
    "no_cross_tower": Ablation(
        "the towers' communication", "3.2", NOT_KNOWN, _145, Errors(0.418280, 0.193300), "layer-params-150.cfg"
    ),
    # Net 148 lacks the normalization within maps, too, of which the paper says nothing.
    "no_lrn": Ablation(
        "response normalization", "3.3", Errors(0.014, 0.012), _145, Errors(0.420340, 0.193620), "layer-params-148.cfg"
    ),
    "no_overlap": Ablation(
        "the overlap of pooling", "3.4", Errors(0.004, 0.003), _145, Errors(0.410580, 0.185100), "layer-params-147.cfg"
    ),
    "no_crop": Ablation("random crops", "4.1", says="with mirroring: substantial overfitting"),
    "no_flip": Ablation("mirroring", "4.1", says="with crops: substantial overfitting"),
    "no_color": Ablation("shifts of color", "4.1", Errors(0.01, None), says="over +1"),
    "no_dropout": Ablation("dropout", "4.2", says="substantial overfitting"),
    "without_conv3": Ablation("conv3", "7", Errors(0.02, None), says="about +2"),
    "without_conv4": Ablation("conv4", "7", Errors(0.02, None), says="about +2"),
}
"""By what `ablate.py` calls them, in the order of the paper."""

FIGURE_1_RATIO = 6.0
"""Epochs until the training error on CIFAR-10 is 25 %: with tanh by with ReLUs (section 3.1)."""

CIFAR_WITHOUT_NORMALIZATION, CIFAR_WITH_NORMALIZATION = 0.13, 0.11
"""Test errors of the four-layer network on CIFAR-10 (section 3.3)."""
