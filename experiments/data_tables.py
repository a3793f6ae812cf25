"""Tables of the speed of the data pipeline, from experiments/results/data.json."""

from paper_tables import result, table

LOADERS = {
    "torch_pillow": "PyTorch DataLoader with Pillow",
    "torch_simplejpeg": "PyTorch DataLoader with simplejpeg",
    "torch_torchvision": "PyTorch DataLoader with torchvision's decoder",
    "spdl_simplejpeg": "SPDL with simplejpeg, one thread per core",
    "tf.data": "tf.data, decoding only the crop",
}
"""Names of the loaders of other libraries in the tables."""


def data() -> str:
    """Return a table of the speed of the data pipeline, compared with other loaders."""
    measured = result("data")
    rates, cores = measured["images_per_second"], measured["cores"]
    rows = [[f"this pipeline, `--threads {cores}`, the default", f"{rates[f'alexnet_jax {cores} threads']:,}", ""]]
    for kind, name in LOADERS.items():
        if kind in measured["ratios"]:
            rate = max(rate for loader, rate in rates.items() if loader.startswith(kind))
            best = ", best number of workers" if kind.startswith("torch") else ""
            rows.append([name + best, f"{rate:,}", f"{measured['ratios'][kind]:.2f}"])
    for count in (1, 4):
        rows.append([f"this pipeline, `--threads {count}`", f"{rates[f'alexnet_jax {count} threads']:,}", ""])
    for count in (1, 2, 4):
        rows.append([f"this pipeline, `--workers {count}`", f"{rates[f'alexnet_jax {count} processes']:,}", ""])
    rows.append(["this pipeline, raw records", f"{rates['alexnet_jax raw']:,}", ""])
    rows.append(["this pipeline, decoded images cached in memory", f"{rates['alexnet_jax in memory']:,}", ""])
    return table([f"JPEG to uint8 batch, {cores} CPU cores", "images/s", "speedup of this pipeline"], rows)


def lock() -> str:
    """Return a table of the limits of the threads of one process."""
    measured = result("data")
    null = min(measured["null_decoder_microseconds"].values())
    per_core = 1e6 / measured["images_per_second_per_core"]["all cores busy"]
    limit = 1e6 / measured["lock_microseconds"]
    rows = [
        ["on one core, all cores busy", f"{per_core:.0f}", ""],
        ["under the interpreter lock", f"{measured['lock_microseconds']:.1f}", f"limit: {limit:,.0f}"],
        [f"with a decoder that does nothing, {measured['cores']} cores", f"{null:.0f}", f"reached: {1e6 / null:,.0f}"],
    ]
    return table(["time per image", "microseconds", "images/s of the threads of one process"], rows)


TABLES = {"data": data, "data lock": lock}
