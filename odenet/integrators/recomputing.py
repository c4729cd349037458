"""The autograd function of what recomputes its forward pass in the backward pass instead of keeping activations."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from odenet.enums import Gradient
from odenet.integrators.hidden import refuse_hidden
from odenet.integrators.replay import Replay
from odenet.integrators.scheme import Course, State


class Walk(ABC):
    """One integration, forward, and backward with gradients. `known` is all that is read and needs gradients."""

    course: Course
    known: list[Tensor]
    replay: Replay  # of the forward pass

    @abstractmethod
    def plainly(self, state: State) -> State:
        """Return the last state where nothing that is known needs a gradient; ValueError where something else does."""

    @abstractmethod
    def forward(self, state: State) -> tuple[State, list[Tensor]]:
        """Return the last state, and the tensors to keep."""

    @abstractmethod
    def backward(self, kept: list[Tensor], grads: State, sums: "Sums") -> State:
        """Return the gradients of the first state; those of what is known go to `sums`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an integration with its graph: `out` was computed from `leaves` and `reads` since a time of `clock`."""

    out: State
    leaves: State
    reads: list[Tensor]
    since: int


class Sums:
    """Gradients of what was read, summed over the steps."""

    def __init__(self, reads: Sequence[Tensor]) -> None:
        self._reads, self._sums = reads, dict[int, Tensor]()

    def pull(self, piece: Piece, grads: State) -> State:
        """Return the gradients of a piece's leaves, its vector-Jacobian product; add those of its reads."""
        inputs = (*piece.leaves, *piece.reads)
        refuse_hidden(piece.out, inputs, piece.since)
        if not any(out.requires_grad for out in piece.out):  # a constant slope
            return tuple(torch.zeros_like(leaf) for leaf in piece.leaves)
        pulled = torch.autograd.grad(piece.out, inputs, grads, allow_unused=True)
        self.add(piece.reads, pulled[len(piece.leaves) :])
        return tuple(
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(piece.leaves, pulled, strict=False)
        )

    def add(self, reads: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Add to the gradients of `reads`."""
        for tensor, gradient in zip(reads, gradients, strict=True):
            if gradient is not None:
                known = self._sums.get(id(tensor))
                self._sums[id(tensor)] = gradient if known is None else known + gradient

    def totals(self) -> list[Tensor | None]:
        """Return the sums in the order of what was read; None where there is none."""
        return [self._sums.get(id(tensor)) for tensor in self._reads]


def differentiated(walk: Walk, state: State) -> State:
    """Return the last state, which autograd differentiates by the walk back.

    Raises:
        ValueError: the rate hides a tensor that needs a gradient, or more than first derivatives are asked for.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise ValueError(_first_derivatives_only(walk.course.gradient))
    if any(tensor.requires_grad for tensor in (*state, *walk.known)):
        result: State = _Recomputing.apply(walk, len(state), *state, *walk.known)
        return result
    # Nothing is to be differentiated; what comes out of it must not need a gradient either.
    return walk.plainly(state)


def _first_derivatives_only(gradient: Gradient) -> str:
    return (
        f"gradient={gradient.value} recomputes the integration and has first derivatives by backward() only: second "
        "derivatives, forward mode and the transforms of torch.func need gradient=direct."
    )


class _Recomputing(torch.autograd.Function):
    """Keeps states, not activations. Inputs: the walk, the length of the state, the state, all that is read."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, width: int, *tensors: Tensor) -> State:
        state, kept = walk.forward(tensors[:width])
        ctx.walk, ctx.count = walk, len(kept)
        # What was read is saved only so that changing it in place before backward is an error.
        ctx.save_for_backward(*kept, *tensors[width:])
        device = tensors[0].device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved, walk = ctx.saved_tensors, ctx.walk
        sums = Sums(walk.known)
        # Without autocast's cache: a cast that it keeps is of the graph of the step before.
        device, dtype, enabled = ctx.autocast
        autocast = torch.autocast(device, dtype, enabled, cache_enabled=False)
        with torch.no_grad(), autocast, walk.replay.left_alone():
            flows = walk.backward(list(saved[: ctx.count]), grads, sums)
        found = [*flows, *sums.totals()]
        if torch.is_grad_enabled():  # with create_graph=True
            found = _OnceDifferentiable.apply(_first_derivatives_only(walk.course.gradient), found, *saved, *grads)
        return (None, None, *found)


class _OnceDifferentiable(torch.autograd.Function):
    """Gradients that raise when they are differentiated in turn: to autograd they are constants, silently wrong ones.

    Inputs: the message, the gradients, the tensors of which they are functions.
    """

    @staticmethod
    def forward(ctx: Any, message: str, gradients: list[Tensor | None], *_: Tensor) -> tuple[Tensor | None, ...]:
        ctx.message = message
        return tuple(gradients)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Any, ...]:
        raise ValueError(ctx.message)
