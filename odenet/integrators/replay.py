"""Evaluations of a rate, repeated as they were: with the same random draws and from the same buffers.

A recomputation that drew anew would differentiate another function, one that found other buffers too (the vectors of
spectral norm move with each evaluation), and one that left its own behind would move batch-norm statistics twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from odenet.integrators.scheme import OpenRate, Slope, Stage


@dataclass(frozen=True, slots=True)
class _Place:
    """A buffer's place: the module that owns it, and its name there."""

    owner: nn.Module
    name: str

    def put(self, value: Tensor) -> None:
        setattr(self.owner, self.name, value)


Buffers = dict[_Place, Tensor]


@dataclass(frozen=True, slots=True)
class _Moment:
    """The state that an evaluation begins from: that of the generators, and the buffers."""

    draws: tuple[Tensor, ...]
    buffers: Buffers


class Replay:
    """The moments of one integration's evaluations, recorded in the forward pass and brought back in the backward pass.

    A moment shares with the one before whatever is the same: a rate that neither draws nor changes buffers keeps a
    state of the generators and one copy of the buffers, at any depth.
    """

    def __init__(self, device: torch.device, modules: Sequence[nn.Module] = ()) -> None:
        """Begin to record; the buffers inside `modules`, those of the rate, are looked after."""
        self._device = device
        self._owners = list({id(owner): owner for module in modules for owner in module.modules()}.values())
        self._moments: list[_Moment] = []
        self._cursor: Iterator[int] | None = None  # None: recording

    def wrap(self, rate: OpenRate) -> OpenRate:
        """Return the rate with its evaluations counted."""
        halves = rate.halves and (self._wrapped(rate.halves[0]), self._wrapped(rate.halves[1]))
        return replace(rate, slope=self._wrapped(rate.slope), halves=halves)

    def rewind(self, evaluations: Sequence[int]) -> None:
        """Let the next evaluations be those that were recorded as these."""
        self._cursor = iter(evaluations)

    def close(self) -> None:
        """End the recording. The last moment is what the last evaluation has left."""
        self._record()

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Leave generators and buffers after this context as they were before it; the buffers inside are copies."""
        before = self._buffers()
        for place, buffer in before.items():
            place.put(buffer.detach().clone())
        try:
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                yield
        finally:
            for place, buffer in before.items():
                place.put(buffer)

    def _wrapped(self, slope: Slope) -> Slope:
        def counted(stage: Stage, h: Tensor) -> Tensor:
            if self._cursor is None:
                self._record()
            else:
                self._restore(self._moments[next(self._cursor)])
            return slope(stage, h)

        return counted

    def _record(self) -> None:
        draws, buffers = self._generators(), self._buffers()
        last = self._moments[-1] if self._moments else _Moment((), {})
        if len(draws) == len(last.draws) and all(map(torch.equal, draws, last.draws)):
            draws = last.draws
        kept = {
            place: last.buffers[place] if _same(now, last.buffers.get(place)) else now.detach().clone()
            for place, now in buffers.items()
        }
        self._moments.append(_Moment(draws, kept))

    def _restore(self, moment: _Moment) -> None:
        """Bring back what the forward pass has changed, and nothing else."""
        first, last = self._moments[0], self._moments[-1]
        if first.draws is not last.draws:
            cpu, *cuda = moment.draws
            torch.set_rng_state(cpu)
            for state in cuda:
                torch.cuda.set_rng_state(state, self._device)
        for place, value in moment.buffers.items():
            if first.buffers.get(place) is not last.buffers.get(place):
                place.put(value.clone())

    def _buffers(self) -> Buffers:
        return {
            _Place(owner, name): buffer for owner in self._owners for name, buffer in owner.named_buffers(recurse=False)
        }

    def _generators(self) -> tuple[Tensor, ...]:
        """Return the states of torch's generators; none in a CUDA graph, where they cannot be read: what is captured
        takes its draws from tensors."""
        if self._device.type != "cuda":
            return (torch.get_rng_state(),)
        if torch.cuda.is_current_stream_capturing():
            return ()
        return torch.get_rng_state(), torch.cuda.get_rng_state(self._device)


def _same(now: Tensor, then: Tensor | None) -> bool:
    # By value: batch norm's kernels change running statistics without counting up their version.
    return then is not None and now.dtype == then.dtype and now.device == then.device and torch.equal(now, then)
