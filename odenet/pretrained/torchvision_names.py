"""Weights of torchvision's ResNets under the names that they have here.

The first block of each of their layers is a transition here, and the others are the nodes of one stage.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Of a block: convolution, batch norm, ReLU, convolution, ...
_LAYER = re.compile(r"layer(?P<layer>\d+)\.(?P<block>\d+)\.(?P<rest>.+)")
_PART = re.compile(r"(?P<kind>conv|bn)(?P<number>\d+)\.(?P<tensor>\w+)")


def is_torchvision(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether a state_dict has the names of torchvision's ResNets."""
    return "conv1.weight" in weights and "layer1.0.conv1.weight" in weights


def from_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of torchvision's `resnet18`, `resnet50`, ... for the network of that name here.

    Tensors of the blocks of a layer are stacked along a new first axis, the depth nodes. Counters of batches are kept
    where the networks here have them; names of other networks stay as they are.

    >>> theirs = {"bn1.weight": torch.ones(2), "layer2.0.conv1.weight": torch.ones(2, 2, 3, 3)}
    >>> theirs |= {f"layer2.{block}.bn1.weight": torch.ones(2) for block in (1, 2, 3)}
    >>> for name, tensor in from_torchvision(theirs).items():
    ...     print(name, tuple(tensor.shape))
    stem.1.weight (2,)
    transitions.1.residual.0.weight (2, 2, 3, 3)
    stages.1.rate.layers.0.inner.1.weight (3, 2)
    """
    named: dict[str, Tensor] = {}
    nodes: dict[str, dict[int, Tensor]] = {}
    for name, tensor in weights.items():
        found = _LAYER.fullmatch(name)
        if found is None:
            named[_outside(name)] = tensor
            continue
        stage, block = int(found["layer"]) - 1, int(found["block"])
        if block == 0:
            named[f"transitions.{stage}.{_in_transition(found['rest'])}"] = tensor
        elif not name.endswith("num_batches_tracked"):
            nodes.setdefault(f"stages.{stage}.rate.layers.0.inner.{_in_rate(found['rest'])}", {})[block - 1] = tensor
    for name, blocks in nodes.items():
        named[name] = torch.stack([blocks[block] for block in sorted(blocks)])
    return named


def _outside(name: str) -> str:
    for theirs, ours in (("conv1.", "stem.0."), ("bn1.", "stem.1."), ("fc.", "head.linear.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _in_transition(rest: str) -> str:
    if rest.startswith("downsample."):
        return rest.replace("downsample", "skip", 1)
    part = _PART.fullmatch(rest)
    return f"residual.{_place(part)}.{part['tensor']}" if part else rest


def _in_rate(rest: str) -> str:
    part = _PART.fullmatch(rest)
    if part is None:
        return rest
    return f"{_place(part)}.{'kernel' if part['kind'] == 'conv' else part['tensor']}"


def _place(part: re.Match[str]) -> int:
    return 3 * (int(part["number"]) - 1) + (part["kind"] == "bn")
