"""Tables of the studies in this folder, other than those of the paper's tables (`paper_tables.py`)."""

import json
import statistics

import paper_tables
from paper_tables import DASH, mean_and_deviation, result, result_or_none, table


def quickstart() -> str:
    """Return a table of the result of `make train` with the quickstart config."""
    run, linear = result("quickstart"), result("linear_baseline")
    return table(
        ["`make train`", "measured"],
        [
            ["validation top-1 accuracy", f"{1 - run['top1_error']:.1%} of {run['images']} images"],
            ["accuracy of a linear classifier on the same images", f"{max(linear.values()):.1%}"],
            [
                "time, including evaluation",
                f"{run['seconds'] / 60:.1f} minutes for {run['epochs']} epochs",
            ],
            ["time spent waiting for data", f"{run['data_wait_fraction']:.1%}"],
            ["throughput", f"{run['images_per_second']:,.0f} images/s on 2 CPU cores, jax {run['jax']}"],
        ],
    )


def photos_by_epoch() -> str:
    """Return a table of the validation errors of full-size networks on photos of clothes, by epoch."""
    measured = result("photos")
    epochs = [1, 2, 4, 6, 8, 10, 12, 18, 30, 45]
    rows = []
    for name in ("two_tower", "source_145"):
        errors = measured["runs"][name]["validation_top1_error"]
        rows.append([f"`{name}`", *(f"{errors[epoch - 1]:.1%}" if epoch <= len(errors) else DASH for epoch in epochs)])
    rows.append(["always predicting the most frequent class", *[f"{measured['majority_class_error']:.1%}"] * len(epochs)])
    header = f"{measured['images']:,} photos of clothes in {measured['classes']} classes, validation top-1 error after epoch"
    return table([header, *map(str, epochs)], rows)


def photos() -> str:
    """Return a table of the test errors of `make train` on photos of clothes, and its time."""
    measured = result("photos")
    run = measured["runs"]["quickstart"]
    photos = f"{measured['images']:,} photos of clothes in {measured['classes']} classes, {measured['test_images']} to test"
    header = [f"{photos}, {measured['cores']} CPU cores", "epochs", "training time", "error, center view", "ten views"]
    errors = [f"{run['test'][views]['top1_error']:.1%}" for views in ("center", "ten")]
    return table(header, [["`quickstart`", str(run["epochs"]), f"{run['minutes']:.1f} minutes", *errors]])


def initial_weights() -> str:
    """Return a table of the validation errors of a three-layer network, by initial weights and learning rate."""
    measured = result("initial_weights")
    rows = []
    for name, errors in measured["errors"].items():
        logits = f"{measured['initial_logits'][name]:.1f}"
        rows.append([name, logits, *("diverged" if error is None else f"{error:.1%}" for error in errors)])
    rates = [f"rate {rate:g}" for rate in measured["rates"]]
    return table(["standard deviation σ of the weights", "logits at the start", *rates], rows)


def code_recall() -> str:
    """Return a table of the recall of search by binary codes in an index of images."""
    measured = result("code_recall")
    images = f"`{measured['layer']}` of `{measured['network']}`, {measured['images']:,} images, {measured['bits']}-bit codes"
    rows = [[row["method"], *(f"{value:.1%}" for value in row["recall"].values())] for row in measured["codes"]]
    return table([images, *(f"{int(count):,} candidates" for count in measured["codes"][0]["recall"])], rows)


def codes() -> str:
    """Return a table of the quality and speed of search by binary codes."""
    measured = result("codes")
    k, times = measured["neighbors"], measured["milliseconds a query"]
    features = f"`{measured['network']}`, {measured['features']} features of {measured['images']:,} images"
    recall = [f"recall of the {k} nearest among the first {k}", "among the first 100"]
    header = [features, "bits", *recall, "neighbors of the same class", f"ms per query, {times['images']:,} images"]
    same_class = f"{measured['same class, exact']:.1%}"
    rows = [["exact search", f"{32 * measured['features']:,}", "100%", "100%", same_class, str(times["exact"])]]
    for row in measured["codes"]:
        if row["method"] != "autoencoder" and row["bits"] != 128:
            continue
        fractions = [f"{row[name]:.1%}" for name in (f"recall among {k}", "recall among 100", "same class")]
        rows.append([row["method"], str(row["bits"]), *fractions, str(times[f"{row['bits']} bits"])])
    return table(header, rows)


def transfer() -> str:
    """Return a table of the errors of fine-tuning, compared with training from scratch."""
    measured = result("transfer")
    rows = []
    for method, errors in measured["test_error"].items():
        mean = f"{sum(errors) / len(errors):.1%}"
        if method == "scratch":
            rows.append([method, mean, ""])
            continue
        gain = measured["better_than_scratch_by"][method]
        interval = "" if gain["low"] is None else f" ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        rows.append([method, mean, f"{100 * gain['mean']:+.1f}{interval}"])
    pretrained, trained = measured["pretrained_on"], measured["trained_on"]
    header = (
        f"trained on {trained['images']} photos of {len(trained['classes'])} classes of clothes, "
        f"pretrained on {pretrained['images']:,} photos of other classes"
    )
    seeds = f"error, mean of {len(measured['seeds'])} seeds"
    return table([header, seeds, "improvement over scratch, points (95% interval)"], rows)


def jarrett() -> str:
    """Return a table of the layers of Jarrett et al. 2009 and those of the paper, on Caltech-101."""
    methods = {
        "two_stages": "ReLU, response normalization, max pooling",
        "jarrett": r"\|tanh\|, contrast normalization, average pooling",
    }
    rows = []
    for data in ("caltech101-30", "caltech101-11-classes-30"):
        for method, layers in methods.items():
            measured = result_or_none(f"baselines/{data}-{method}")
            if measured is None or "training_error_by_epoch" not in measured:
                continue
            curves = measured["training_error_by_epoch"]
            halved = [next((epoch for epoch, error in enumerate(curve, 1) if error <= 0.5), None) for curve in curves]
            reached = [epoch for epoch in halved if epoch is not None]
            epochs = f"{statistics.mean(reached):.0f}" if len(reached) == len(curves) else DASH
            training_error = f"{statistics.mean(curve[-1] for curve in curves):.1%}"
            accuracy = mean_and_deviation(measured["mean_class_accuracy"])
            settings = [f"{measured['learning_rate']:g}", str(measured["epochs"])]
            rows.append([str(measured["classes"]), layers, *settings, epochs, training_error, accuracy])
    if not rows:
        return "Not measured yet."
    header = ["classes", "layers", "rate", "epochs", "epochs to a training error of 50%", "last training error"]
    return table([*header, "test: mean accuracy of the classes"], rows)


def pixel_neighbors() -> str:
    """Return a table of the neighbors of images by features, by pixels, and by codes of both."""
    rows = []
    for file in sorted((paper_tables.RESULTS / "pixel_neighbors").glob("*.json")):
        measured = json.loads(file.read_text())
        data = f"{measured['queries']:,} queries, {measured['images']:,} images of {measured['data']}"
        for name, method in measured["methods"].items():
            kind = f"{measured['bits']}-bit {name}" if name.startswith("codes") else f"{name}, Euclidean distance"
            fractions = [f"{method[key]:.1%}" for key in ("first", f"first {measured['neighbors']}")]
            distances = [f"{method['distance by mean distance']:.2f}", f"{method['fraction nearer']:.1%}"]
            rows.append([data if kind.startswith("features") else "", kind, *fractions, *distances])
        rows.append(["", "random images", *[f"{measured['same class, random images']:.1%}"] * 2, "1.00", "50.0%"])
    if not rows:
        return "Not measured yet."
    header = ["data", "nearest by", "nearest has the class of the query", "nearest ten"]
    return table([*header, "pixel distance of the nearest, by the mean", "images with nearer pixels"], rows)


TABLES = {
    "jarrett": jarrett,
    "pixel neighbors": pixel_neighbors,
    "quickstart": quickstart,
    "photos-by-epoch": photos_by_epoch,
    "photos": photos,
    "initial weights": initial_weights,
    "code recall": code_recall,
    "codes": codes,
    "transfer": transfer,
}
