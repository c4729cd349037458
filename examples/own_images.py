"""Images of one's own: a folder for each class, here written from scikit-learn's digits, and read by `data=folder`.

Run it with `python examples/own_images.py DIR`; then `sweep plan data=folder data.path=DIR`.
"""

import sys
from pathlib import Path

from PIL import Image

from odenet import DataConfig, DataSet, load_data, load_test


def main(directory: str = "images") -> None:
    # Files of one size, grey or RGB, in DIR/CLASS/: the names of the folders are the classes.
    digits = load_data(DataConfig(per_class=60)).train
    for pixels_CHW, label, index in zip(digits.pixels_BCHW, digits.labels_B, digits.indices_B, strict=True):
        if label < 4:
            folder = Path(directory, ("zero", "one", "two", "three")[label])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_CHW[0]).save(folder / f"{index:04d}.png")

    # Draws, subsets and hashes are made as of every other data set. Every third image is kept for the test, because
    # there is no DIR/test/.
    for draw in (0, 1):
        config = DataConfig(dataset=DataSet.folder, path=directory, per_class=10, draw=draw)
        data = load_data(config)
        assert data.val is not None
        print(f"draw {draw}: {data.classes} classes, {len(data.train)} train, {len(data.val)} val, hash {data.hash}")
    shape = "x".join(map(str, data.train.pixels_BCHW.shape[1:]))
    print(f"{len(load_test(config))} test images, each {shape}")


if __name__ == "__main__":
    main(*sys.argv[1:])
