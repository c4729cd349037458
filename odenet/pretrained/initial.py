"""A network that begins with the weights of a file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from odenet.networks.model import DepthNet
from odenet.pretrained.torchvision_names import from_torchvision, is_torchvision
from odenet.pretrained.weight_file import NoWeights, hash_of, read_weights

HEAD = "head.linear."
COUNTED = "num_batches_tracked"  # by torch's batch norms, and of no effect at a fixed momentum
NAMED = 4  # of what does not fit, in a message


class UnfitWeights(ValueError):
    """The weights are of another network."""


def begin_with(model: DepthNet, path: Path | str, *, sha256: str | None = None) -> list[str]:
    """Load the weights of a file into a network in place: one of this project's, or of torchvision's ResNets.

    A linear layer of another number of classes is left as it was drawn; all else must fit.

    Args:
        sha256: of the file; None: any.

    Returns:
        the names of what was left as drawn; empty where all was loaded.

    Raises:
        UnfitWeights: names that only one of the two has, or shapes that differ. NoWeights: as `read_weights`, or the
            file is another than the one meant.

    >>> import tempfile, torch
    >>> from odenet import ModelConfig, build_model
    >>> trained = build_model(ModelConfig(width=4), channels=3, classes=10)
    >>> model = build_model(ModelConfig(width=4), channels=3, classes=2, seed=1)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     torch.save(trained.state_dict(), f"{place}/weights.pth")
    ...     begin_with(model, f"{place}/weights.pth")
    ['head.linear.weight', 'head.linear.bias']
    >>> torch.equal(model.stem[0].weight, trained.stem[0].weight)
    True
    """
    if sha256 is not None and (present := hash_of(path)) != sha256:
        raise NoWeights(f"model.initial={path} is another file now: its SHA-256 is {present}, and was {sha256}.")
    weights = read_weights(path)
    if is_torchvision(weights):
        weights = from_torchvision(weights)
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(COUNTED)}
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTED)}
    drawn = [name for name in own if name.startswith(HEAD) and not _fits(weights.get(name), own[name])]
    if drawn:  # a weight without its bias would be of neither
        drawn = [name for name in own if name.startswith(HEAD)]
    _check(path, own, weights, drawn)
    model.load_state_dict({name: weights[name] for name in own if name not in drawn}, strict=False)
    return drawn


def _fits(theirs: Tensor | None, own: Tensor) -> bool:
    return theirs is not None and theirs.shape == own.shape


def _check(path: Path | str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], drawn: list[str]) -> None:
    missing = [name for name in own if name not in weights and name not in drawn]
    foreign = [name for name in weights if name not in own and not name.startswith(HEAD)]
    shapes = [
        f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
        for name in own
        if name not in drawn and name in weights and not _fits(weights[name], own[name])
    ]
    parts = [("lacks", missing), ("has besides", foreign), ("has other shapes:", shapes)]
    said = [f"{verb} {_some(names)}" for verb, names in parts if names]
    if said:
        raise UnfitWeights(
            f"model.initial={path} is of another network: it {'; it '.join(said)}. Network, stem, width, widen, basis "
            "and nodes of each stage must be those that it was trained with."
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
