"""What cannot be attacked, told before anything is computed."""

import re
from collections.abc import Mapping

from odenet.data.images import Images
from odenet.inference.classifier import Classifier
from odenet.robustness.config import Attack, AttackConfig
from odenet.robustness.threat import is_adaptive

SQUARE_SIZE = 5  # pixels of the least image of an l2 Square: it starts from a grid of five by five


def check_attack(
    classifier: Classifier, images: Images, config: AttackConfig, others: Mapping[str, Classifier]
) -> None:
    """Raise ValueError where this network cannot be attacked so on these images, or not from the others."""
    _check_images(classifier, images, config)
    _check_networks(classifier, others, config)


def _check_images(classifier: Classifier, images: Images, config: AttackConfig) -> None:
    if len(images) != config.images:
        raise ValueError(f"attack.images={config.images}, but {len(images)} images were given: they must be as many.")
    shape, size = tuple(images.pixels_BCHW.shape[1:]), classifier.input_size
    if shape != size:
        raise ValueError(f"Images of shape {shape} were given, but the network takes {size}.")
    if images.labels_B.max() >= classifier.classes:
        raise ValueError(
            f"An image of class {images.labels_B.max()} was given, but the network tells 0 to {classifier.classes - 1}."
        )
    if Attack.square in config.attacks and config.l2 and min(size[1:]) < SQUARE_SIZE:
        raise ValueError(
            f"attack.l2={config.l2} with images of {size[1]}x{size[2]} pixels: Square needs at least {SQUARE_SIZE} on "
            "each side; use attack.l2=[], or attack.attacks without square."
        )


def _check_networks(classifier: Classifier, others: Mapping[str, Classifier], config: AttackConfig) -> None:
    if is_adaptive(classifier) and not config.allow_adaptive:
        raise ValueError(
            "The network chooses its own steps (dopri5): its gradients are masked, so an attack that fails says "
            "nothing. Attack it under a scheme of fixed steps (Classifier.manifest), or set "
            "attack.allow_adaptive=true to have the result labelled as an upper bound only."
        )
    for name, other in others.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(f"A network to transfer from cannot be called {name!r}: use letters, digits and '_.-'.")
        if (other.input_size, other.classes) != (classifier.input_size, classifier.classes):
            raise ValueError(
                f"{name}, to transfer from, takes {other.input_size} to {other.classes} classes, the network under "
                f"attack {classifier.input_size} to {classifier.classes}: both must be of one data set."
            )
    if others and Attack.transfer not in config.attacks:
        raise ValueError(
            f"Networks to transfer from ({', '.join(others)}) with attack.attacks without transfer have no effect: "
            "add transfer, or leave them out."
        )
