"""Images per second on one core: odenet's batches against torchvision transforms with a DataLoader, interleaved.

Both crop after 4 pixels of zero padding, mirror, and normalise batches of 128 images of 3x32x32. The peer is the usual
CIFAR-10 pipeline: a PIL image at a time, no worker processes.

    python benchmarks/bench_data.py [--data-dir DIR] [--images 10000] [--repetitions 7]
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from odenet.data import Augment, Batches, DataConfig, DataSet, Images, Portion, Statistics, load_data

BATCH_SIZE = 128
RESULTS = Path(__file__).parent / "results" / "data.json"


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision's CIFAR10 does with each image."""

    def __init__(self, images: Images, transform: transforms.Compose) -> None:
        self._pixels_BHWC = np.ascontiguousarray(images.pixels_BCHW.transpose(0, 2, 3, 1))
        self._labels, self._transform = images.labels_B.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._pixels_BHWC[index])), self._labels[index]


def load_images(directory: str | None, count: int) -> Images:
    """The first `count` CIFAR-10 training images, or as many of random pixels."""
    if directory is None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        return Images(pixels, np.arange(count) % 10, np.arange(count))
    config = DataConfig(dataset=DataSet.cifar10, per_class=None, portion=Portion.trainval)
    return load_data(config, directory).train.take(np.arange(count))


def peer(images: Images, measured: Statistics) -> DataLoader[Any]:
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(measured.mean_C.tolist(), measured.std_C.tolist()),
    ]
    return DataLoader(PilImages(images, transforms.Compose(steps)), BATCH_SIZE, shuffle=True)


def images_per_second(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    started, seen = time.perf_counter(), 0
    for _, labels_B in batches:
        seen += len(labels_B)
    return seen / (time.perf_counter() - started)


def measure(images: Images, repetitions: int) -> dict[str, list[float]]:
    measured = Statistics.of(images)
    loader = peer(images, measured)
    batches = Batches(images, statistics=measured, dataset=DataSet.cifar10, augment=Augment.standard)
    rates: dict[str, list[float]] = {"torchvision": [], "odenet": []}
    for repetition in range(-1, repetitions):  # the first round warms both up and is not counted
        round_rates = {
            "torchvision": images_per_second(loader),
            "odenet": images_per_second(batches.epoch(0, repetition + 1, BATCH_SIZE)),
        }
        if repetition >= 0:
            for name, rate in round_rates.items():
                rates[name].append(rate)
    return rates


def summary(values: list[float]) -> dict[str, float]:
    return {"n": len(values), "min": min(values), "median": statistics.median(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", help="directory with cifar-10-batches-py; without it random pixels are used")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure(load_images(options.data_dir, options.images), options.repetitions)
    rates["ratio"] = [ours / theirs for ours, theirs in zip(rates["odenet"], rates["torchvision"], strict=True)]
    table = {name: summary(values) for name, values in rates.items()}
    source = "random pixels" if options.data_dir is None else "CIFAR-10"
    print(f"{source}, {options.images} images an epoch, batch {BATCH_SIZE}, one thread; images per second")
    print(f"{'':12} {'n':>3} {'min':>10} {'median':>10} {'max':>10}")
    for name, row in table.items():
        digits = 1 if name == "ratio" else 0
        print(f"{name:12} {row['n']:>3} " + " ".join(f"{row[key]:>10.{digits}f}" for key in ("min", "median", "max")))
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    document = {
        "images": source,
        "count": options.images,
        "batch_size": BATCH_SIZE,
        "versions": versions,
        "rows": table,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written to {RESULTS.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
