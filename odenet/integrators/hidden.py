"""Finding the tensors that a rate reads behind the back of an integration, which would silently get no gradient.

What recomputes must name its inputs to autograd. An evaluation that is made with gradients on shows in its graph which
tensors it has read; whatever needs a gradient there and was not named is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from odenet.integrators.scheme import PlaceT


def clock() -> int:
    """Return a number below those of all nodes that autograd makes from now on in this thread, above all others."""
    with torch.enable_grad():
        node: Any = torch.zeros((), requires_grad=True).neg().grad_fn
    return node._sequence_nr()


def refuse_hidden(found: Sequence[Tensor], known: Sequence[Tensor], since: int) -> None:
    """Raise ValueError where `found`, computed since then (see `clock`), has a gradient by a tensor not `known`."""
    leaves = {id(tensor) for tensor in known if tensor.grad_fn is None}
    edges = {(tensor.grad_fn, tensor.output_nr) for tensor in known if tensor.grad_fn is not None}
    for tensor in found:
        if tensor.requires_grad and tensor.grad_fn is None and id(tensor) not in leaves:
            _refuse(tensor.shape)
    stack: list[tuple[Any, int]] = [(tensor.grad_fn, tensor.output_nr) for tensor in found]
    seen = set()
    while stack:
        node, output = edge = stack.pop()
        if node is None or node in seen or edge in edges:
            continue
        variable = getattr(node, "variable", None)  # of torch's AccumulateGrad, the only node that has one
        if variable is not None:
            if id(variable) not in leaves:
                _refuse(variable.shape)
        elif node._sequence_nr() <= since:
            _refuse(node._input_metadata[output].shape)
        seen.add(node)
        stack += node.next_functions


def _refuse(shape: Sequence[int]) -> NoReturn:
    raise ValueError(
        f"The rate uses a tensor of shape {tuple(shape)} that needs a gradient and is not among its parameters: make "
        "the rate a torch.nn.Module that holds it, or use gradient=direct."
    )


def watched(
    slope: Callable[[PlaceT, Tensor], Tensor], reads: Callable[[PlaceT], Sequence[Tensor]]
) -> Callable[[PlaceT, Tensor], Tensor]:
    """Return the slope, its first evaluation made with gradients on and searched for tensors that are not in `reads`.

    It costs no evaluation more, and the graph of one while it is searched.
    """
    first = True

    def evaluated(place: PlaceT, h: Tensor) -> Tensor:
        nonlocal first
        if not first:
            return slope(place, h)
        first = False
        with _traced(h.device.type):
            since = clock()
            state = h.detach().requires_grad_()  # as when the evaluation is repeated
            found = slope(place, state)
            refuse_hidden((found,), (state, *reads(place)), since)
        return found.detach()

    return evaluated


@contextmanager
def _traced(device: str) -> Iterator[None]:
    """Turn gradients on, for a graph that is not kept: what it saves is not reported to whoever counts saved tensors.

    Autocast's cache of weights is off: it would hand out casts that were made before, or keep those made here.
    """
    enabled = torch.is_autocast_enabled(device)
    keeping = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with (
        torch.enable_grad(),
        keeping,
        torch.autocast(device, torch.get_autocast_dtype(device), enabled, cache_enabled=False),
    ):
        yield
