"""Images per second and core that are corrupted, for each corruption: in chunks, and one image at a time.

One at a time is how the published code and `imagecorruptions` go about it, here with our own functions; a round is all
five severities. Seconds are of the processor, so that other work on the machine does not count. Frost needs DIR/frost.

    python benchmarks/bench_corruptions.py [--data-dir DIR] [--images 1000] [--quick]
"""

from pathlib import Path
from time import process_time

import numpy as np
import torch
from measure import Spread, parser, print_table, write

from odenet.data.config import DataConfig, DataSet
from odenet.data.images import Images, MissingData
from odenet.data.sets import load_test
from odenet.enums import BENCHMARK, Corruption
from odenet.robustness.corruptions import SEVERITIES, corrupt

TEST_IMAGES = 10_000  # of CIFAR-10
SINGLE = 50  # images that are corrupted one at a time


def load_images(directory: Path | None, count: int) -> Images:
    """The first `count` CIFAR-10 test images, or as many of random pixels."""
    if directory is not None:
        return load_test(DataConfig(dataset=DataSet.cifar10, per_class=None), directory).take(np.arange(count))
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 10, np.arange(count))


def speed(parts: list[Images], corruption: Corruption, frost: Path | None) -> float:
    """Images per second of the processor, over all severities."""
    started = process_time()
    for severity in SEVERITIES:
        for images in parts:
            corrupt(images, corruption, severity, frost=frost)
    return len(SEVERITIES) * sum(map(len, parts)) / (process_time() - started)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--data-dir", type=Path, help="with cifar-10-batches-py and frost; without it pixels are random")
    made.add_argument("--images", type=int, default=1000)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    rounds = options.rounds or (2 if options.quick else 5)
    images = load_images(options.data_dir, 200 if options.quick else options.images)
    single = [images.take(np.array([place])) for place in range(min(SINGLE, len(images)))]
    frost = options.data_dir / "frost" if options.data_dir is not None else None
    chunks: dict[str, Spread] = {}
    ones: dict[str, Spread] = {}
    for corruption in Corruption:
        try:
            corrupt(single[0], corruption, 1, frost=frost)  # imports what it needs
        except MissingData as error:
            print(f"left out: {error}")
            continue
        chunks[corruption.name] = Spread.of(speed([images], corruption, frost) for _ in range(rounds))
        ones[corruption.name] = Spread.of(speed(single, corruption, frost) for _ in range(rounds))
    source = "random pixels" if options.data_dir is None else "CIFAR-10"
    columns = ["", "images/s", "one at a time", f"seconds of {TEST_IMAGES} x 5"]
    rows = [[name, of.text(0), ones[name].text(0), f"{5 * TEST_IMAGES / of.median:.0f}"] for name, of in chunks.items()]
    print_table(f"{len(images)} images of {source}, one core (min-max of n = {rounds})", columns, rows)
    timed = [corruption.name for corruption in BENCHMARK if corruption.name in chunks]
    whole = sum(5 * TEST_IMAGES / chunks[name].median for name in timed)
    print(f"{TEST_IMAGES} images, {len(timed)} of the benchmark's corruptions, 5 severities: {whole:.0f} s of one core")
    write(
        "corruptions", {"images": source, "count": len(images), "rows": chunks, "one_at_a_time": ones, "whole": whole}
    )


if __name__ == "__main__":
    main()
