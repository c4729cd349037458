"""Images per second on one core: odenet's batches against torchvision transforms with a DataLoader, interleaved.

Both crop after 4 pixels of zero padding, mirror, and normalise batches of 128 images of 3x32x32. The peer is the usual
CIFAR-10 pipeline: a PIL image at a time, no worker processes.

    python benchmarks/bench_data.py [--data-dir DIR] [--images 10000] [--quick]
"""

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import torch
from measure import Seconds, Spread, interleaved, parser, print_table, ratio, write
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from odenet.data.batches import Batches, Statistics
from odenet.data.config import Augment, DataConfig, DataSet, Portion
from odenet.data.sets import Images
from odenet.data.subsets import load_data

BATCH_SIZE = 128


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


def measure(images: Images, rounds: int) -> Seconds:
    """Seconds of an epoch."""
    measured = Statistics.of(images)
    loader = peer(images, measured)
    batches = Batches(images, statistics=measured, dataset=DataSet.cifar10, augment=Augment.standard)
    epochs = count()
    calls: dict[str, Callable[[], object]] = {
        "torchvision": lambda: deque(loader, maxlen=0),
        "odenet": lambda: deque(batches.epoch(0, next(epochs), BATCH_SIZE), maxlen=0),
    }
    return interleaved(calls, rounds)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--data-dir", help="directory with cifar-10-batches-py; without it random pixels are used")
    made.add_argument("--images", type=int, default=10_000)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    rounds = options.rounds or (2 if options.quick else 7)
    seconds = measure(load_images(options.data_dir, options.images), rounds)
    speeds = {name: Spread.of(options.images / s for s in each) for name, each in seconds.items()}
    speed_up = ratio(seconds, "torchvision", "odenet")
    source = "random pixels" if options.data_dir is None else "CIFAR-10"
    title = f"{source}, {options.images} images an epoch, batch {BATCH_SIZE}, {options.threads} thread(s)"
    rows = [*([name, speed.text(0)] for name, speed in speeds.items()), ["ratio", speed_up.text(1)]]
    print_table(f"{title} (min-max of n = {rounds})", ["", "images/s"], rows)
    document = {"images": source, "count": options.images, "batch_size": BATCH_SIZE, "rows": speeds, "ratio": speed_up}
    write("data", document, peers=["torchvision"])


if __name__ == "__main__":
    main()
