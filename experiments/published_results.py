"""Errors published in the paper and logged by the original code, for comparison with ours (`make tables`).

Errors are fractions of images. The logs are the files in layers/ of computerhistory/AlexNet-Source-Code, each of which ends with
the errors of its network, averaged over ten views unless noted otherwise. Where a log is given, the paper's errors agree with it
to the last digit; where none is given, no line of that release contains the paper's error.
"""

from typing import NamedTuple


class Errors(NamedTuple):
    """Top-1 and top-5 errors, or their differences; None if unknown."""

    top1: float | None
    top5: float | None


UNKNOWN = Errors(None, None)


class Row(NamedTuple):
    """A row of one of the paper's tables.

    Attributes:
      model: name of the model in the paper.
      paper: errors in the paper, on the test set for 2010 and 2009 and on the validation set for 2012.
      test_top5: top-5 error in Table 2 on the test set, whose labels are not public.
      logged: errors in the log of the original code, on the same images as `paper`.
      log: file name of that log.
      ours: name without suffix of an errors.json of `evaluate` in results/; None if there is no network to train.
      views: views that our predictions are averaged over.
    """

    model: str
    paper: Errors
    test_top5: float | None = None
    logged: Errors = UNKNOWN
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
"""Table 1: test set of ILSVRC-2010."""

TABLE_2 = (
    Row("SIFT + FVs [7]", UNKNOWN, 0.262),
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
"""Table 2: validation set of ILSVRC-2012, and top-5 error on its test set. An asterisk marks pretraining on all of ImageNet,
Fall 2011."""

FALL_2009 = (
    Row("best published before [19]", Errors(0.781, 0.609)),
    Row("CNN with a sixth convolutional layer", Errors(0.674, 0.409), ours="fall2009"),
)
"""ImageNet, Fall 2009, with 10,184 classes: the half of the images used for testing (section 6)."""


class Ablation(NamedTuple):
    """Increase in the errors when a component is removed.

    Attributes:
      component: the removed component.
      section: section of the paper.
      paper: increase in the errors, from the paper.
      base: errors of the network with the component, from its log.
      ablated: errors of the network without it, from its log.
      log: file name of the log of the network without it.
      paper_text: the paper's statement, where it does not give two numbers.
    """

    component: str
    section: str
    paper: Errors = UNKNOWN
    base: Errors = UNKNOWN
    ablated: Errors = UNKNOWN
    log: str | None = None
    paper_text: str | None = None

    @property
    def logged(self) -> Errors:
        """Increase in the errors, from the logs."""
        pairs = zip(self.base, self.ablated, strict=True)
        return Errors(*(None if base is None or ablated is None else ablated - base for base, ablated in pairs))


_145 = Errors(0.406640, 0.182100)  # validation set of 2012, layer-params-145.cfg
_145_OF_2010 = Errors(0.374727, 0.169987)  # test set of 2010, layer-params-145-2010.cfg

ABLATIONS = {
    "one_gpu": Ablation(
        "the second tower", "3.2", Errors(0.017, 0.012), _145_OF_2010, Errors(0.391680, 0.182287), "layer-params-145-half.cfg"
    ),
    # Network 150 compensates with a wider conv2 and twice as many units in fc6.
    "no_cross_tower": Ablation(
        "communication between towers", "3.2", UNKNOWN, _145, Errors(0.418280, 0.193300), "layer-params-150.cfg"
    ),
    # Network 148 also lacks the normalization within maps, which the paper does not mention.
    "no_lrn": Ablation(
        "response normalization", "3.3", Errors(0.014, 0.012), _145, Errors(0.420340, 0.193620), "layer-params-148.cfg"
    ),
    "no_overlap": Ablation(
        "overlapping pooling", "3.4", Errors(0.004, 0.003), _145, Errors(0.410580, 0.185100), "layer-params-147.cfg"
    ),
    "no_crop": Ablation("random crops", "4.1", paper_text="without crops and flips: substantial overfitting"),
    "no_flip": Ablation("horizontal flips", "4.1", paper_text="without crops and flips: substantial overfitting"),
    "no_color": Ablation("color augmentation", "4.1", Errors(0.01, None), paper_text="over +1"),
    "no_dropout": Ablation("dropout", "4.2", paper_text="substantial overfitting"),
    "without_conv3": Ablation("conv3", "7", Errors(0.02, None), paper_text="about +2"),
    "without_conv4": Ablation("conv4", "7", Errors(0.02, None), paper_text="about +2"),
}
"""Published ablations by their name in `ablate.py`, in the order of the paper."""


class Method(NamedTuple):
    """Image classifier that is compared on a small data set.

    Attributes:
      description: name in the paper, or of the config, and what is trained.
      accuracy: published mean accuracy over the classes of Caltech-101, with 30 training images per class and whole images; not
        checked against the publication.
      reference: publication with that accuracy.
    """

    description: str
    accuracy: float | None = None
    reference: str = ""


METHODS = {
    "sparse_coding": Method("sparse coding [2], as LLC", 0.7344, "Wang et al. 2010"),
    "fisher_vectors": Method("SIFT + FVs [24]", 0.7778, "Chatfield et al. 2011"),
    "quickstart": Method("`quickstart`, from scratch"),
    "two_tower": Method("`two_tower`, from scratch"),
    "source_145": Method("`source_145`, from scratch"),
}
"""Baselines of Tables 1 and 2, and networks trained on the same images (experiments/baselines/)."""

FIGURE_1_RATIO = 6.0
"""Ratio, tanh to ReLU, of the number of epochs to a training error of 25% on CIFAR-10 (section 3.1)."""

CIFAR_WITHOUT_NORMALIZATION, CIFAR_WITH_NORMALIZATION = 0.13, 0.11
"""Test errors of the four-layer network on CIFAR-10 without and with response normalization (section 3.3)."""
