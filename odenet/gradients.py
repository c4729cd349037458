"""Differentiating an integration without keeping all its activations.

`direct` leaves it to autograd: every activation is kept. The two others are one function that keeps states and
recomputes: `checkpointed` keeps about sqrt(steps) states (Chen et al. 2016, arXiv 1604.06174) and is exact;
`reconstructed` keeps the last state only, walks back by `unstep` and takes the local vector-Jacobian product of
`step`. Over a reversible scheme that is the memory-free backpropagation of Chang et al. 2018 (arXiv 1709.03698),
exact up to rounding; over Euler and Heun it is the discrete adjoint of Sander et al. 2022 (arXiv 2205.14612) with
errors of O(1/N) and O(1/N^2). Over other schemes it is as good as their steps are short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from odenet.schemes import SCHEMES
from odenet.stepping import Course, OpenRate, PairScheme, Slope, State, Stepping
from odenet.terms import Gradient, Stage


@dataclass(slots=True)
class Drift:
    """How far reconstruction strayed: max |h0 - reconstructed h0| / max |h0| of the passes since the last `take`."""

    values: list[Tensor] = field(default_factory=list)

    def take(self) -> float | None:
        """The largest so far, which is then forgotten; None where nothing was reconstructed."""
        largest = max((float(value) for value in self.values), default=None)
        self.values.clear()
        return largest


def integrate_recomputing(rate: OpenRate, state: State, course: Course, drift: Drift | None = None) -> State:
    """The last state of a fixed-step integration, differentiated as `course.gradient` says."""
    method = SCHEMES[course.scheme]
    assert isinstance(method, Stepping)
    replay = _Replay(state[0].device)
    walk = _Walk(method, replay.wrap(rate), course, replay, drift)
    result: State = _Recomputing.apply(walk, len(state), *state, *walk.reads(range(course.steps)))
    return result


class _Replay:
    """Random draws of a rate, repeated when an evaluation is: the generator's state before each is kept."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._states = device, list[tuple[Tensor, ...]]()
        self._cursor: Iterator[int] | None = None  # None: recording

    def wrap(self, rate: OpenRate) -> OpenRate:
        """The rate whose evaluations are counted."""
        halves = rate.halves and (self._wrapped(rate.halves[0]), self._wrapped(rate.halves[1]))
        return replace(rate, slope=self._wrapped(rate.slope), halves=halves)

    def rewind(self, evaluations: Sequence[int]) -> None:
        """The next evaluations are those that were recorded as these."""
        self._cursor = iter(evaluations)

    def _wrapped(self, slope: Slope) -> Slope:
        def counted(stage: Stage, h: Tensor) -> Tensor:
            if self._cursor is None:
                self._record()
            else:
                self._restore(next(self._cursor))
            return slope(stage, h)

        return counted

    def _record(self) -> None:
        state = (torch.get_rng_state(), *self._cuda_state())
        if self._states and all(map(torch.equal, state, self._states[-1])):
            state = self._states[-1]  # a rate that draws nothing keeps one
        self._states.append(state)

    def _restore(self, evaluation: int) -> None:
        if self._states[evaluation] is self._states[0] is self._states[-1]:
            return
        cpu, *cuda = self._states[evaluation]
        torch.set_rng_state(cpu)
        for state in cuda:
            torch.cuda.set_rng_state(state, self._device)

    def _cuda_state(self) -> tuple[Tensor, ...]:
        return (torch.cuda.get_rng_state(self._device),) if self._device.type == "cuda" else ()

    def forked(self) -> Any:
        """A context that leaves the generators as they were before it."""
        return torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else [])


class _Walk:
    """An integration forward, and backward with gradients."""

    def __init__(self, method: Stepping, rate: OpenRate, course: Course, replay: _Replay, drift: Drift | None) -> None:
        self.method, self.rate, self.course, self.drift = method, rate, course, drift
        self.replay = replay
        self.segments = [range(course.steps)]
        if course.gradient is Gradient.checkpointed:
            length = isqrt(course.steps - 1) + 1
            starts = range(0, course.steps, length)
            self.segments = [range(start, min(start + length, course.steps)) for start in starts]

    def reads(self, steps: range) -> list[Tensor]:
        """The distinct tensors that need gradients behind these steps."""
        stages = (stage for step in steps for stage in self.method.stages_of(step, self.course.steps))
        found = {id(tensor): tensor for stage in stages for tensor in self.rate.reads(stage)}
        return [tensor for tensor in found.values() if tensor.requires_grad]

    def forward(self, state: State) -> tuple[State, list[Tensor]]:
        """The last state, and the tensors to keep."""
        kept: list[Tensor] = []
        for segment in self.segments:
            if self.course.gradient is Gradient.checkpointed or self.drift is not None:
                kept += state
            for step in segment:
                state = self.method.step(self.rate, state, step, self.course)
        if self.course.gradient is Gradient.reconstructed:
            kept += state
        return state, kept

    def backward(self, kept: list[Tensor], grads: State, sums: "_Sums") -> State:
        """The gradients of the first state; those of what was read go to `sums`."""
        width = len(grads)
        if self.course.gradient is Gradient.checkpointed:
            for index, segment in reversed(list(enumerate(self.segments))):
                grads = self._pull_back(segment, tuple(kept[index * width : (index + 1) * width]), grads, sums)
            return grads
        state = tuple(kept[-width:])
        exact = isinstance(self.method, PairScheme) and self.method.reversible
        for step in reversed(range(self.course.steps)):
            state, grads = (self._undo if exact else self._reverse)(step, state, grads, sums)
        if self.drift is not None:
            self.drift.values.append(_distance(state, tuple(kept[:width])))
        return grads

    def _pull_back(self, steps: range, state: State, grads: State, sums: "_Sums") -> State:
        """The gradients before `steps` by a recomputation of them from `state`."""
        per_step = self._evaluations()
        self.replay.rewind(range(steps.start * per_step, steps.stop * per_step))
        leaves = tuple(x.detach().requires_grad_() for x in state)
        with torch.enable_grad():
            out = leaves
            for step in steps:
                out = self.method.step(self.rate, out, step, self.course)
        return sums.pull(out, leaves, self.reads(steps), grads)

    def _reverse(self, step: int, state: State, grads: State, sums: "_Sums") -> tuple[State, State]:
        per_step = self._evaluations()
        self.replay.rewind(range((step + 1) * per_step - 1, step * per_step - 1, -1))
        before = self.method.unstep(self.rate, state, step, self.course)
        return before, self._pull_back(range(step, step + 1), before, grads, sums)

    def _undo(self, step: int, state: State, grads: State, sums: "_Sums") -> tuple[State, State]:
        """One evaluation of each shear serves its inverse and its gradient."""
        assert isinstance(self.method, PairScheme)
        per_step = self._evaluations()
        self.replay.rewind(range((step + 1) * per_step - 1, step * per_step - 1, -1))
        reads = self.reads(range(step, step + 1))
        state, flows = self.method.swapped(state), list(self.method.swapped(grads))
        for shear in reversed(self.method.shears(self.rate, step, self.course)):
            source = state[shear.source].detach().requires_grad_()
            with torch.enable_grad():
                slope = shear.slope(shear.stage, source)
            flow = flows[shear.target]
            (pulled,) = sums.pull((slope,), (source,), reads, ((flow * shear.weight).to(slope.dtype),))
            flows[shear.source] = flows[shear.source] + pulled + (shear.add * flow if shear.add else 0)
            flows[shear.target] = shear.keep * flow if shear.keep != 1 else flow
            state = shear.invert(state, slope.detach())
        return state, tuple(flows)

    def _evaluations(self) -> int:
        """Calls of slopes a step."""
        return len(self.rate.halves) if self.method.needs == "halves" and self.rate.halves else self.method.evaluations


class _Sums:
    """Gradients of what was read, summed over the steps."""

    def __init__(self, reads: Sequence[Tensor]) -> None:
        self._reads, self._sums = reads, dict[int, Tensor]()

    def pull(self, out: State, leaves: State, reads: list[Tensor], grads: State) -> State:
        """The vector-Jacobian product of one piece: returns the gradients of `leaves`, adds those of `reads`."""
        _check_all_known(out, {*leaves, *reads})
        pulled = torch.autograd.grad(out, (*leaves, *reads), grads, allow_unused=True)
        for tensor, gradient in zip(reads, pulled[len(leaves) :], strict=True):
            if gradient is not None:
                known = self._sums.get(id(tensor))
                self._sums[id(tensor)] = gradient if known is None else known + gradient
        return tuple(
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, pulled, strict=False)
        )

    def totals(self) -> list[Tensor | None]:
        return [self._sums.get(id(tensor)) for tensor in self._reads]


def _check_all_known(out: State, known: set[Tensor]) -> None:
    """A tensor that a rate reads behind our back would silently get no gradient."""
    seen, stack = {tensor.grad_fn for tensor in known if tensor.grad_fn is not None}, [x.grad_fn for x in out]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # of torch's AccumulateGrad, the only node that has one
        if variable is not None and not any(variable is tensor for tensor in known):
            raise ValueError(
                f"The rate uses a tensor of shape {tuple(variable.shape)} that needs a gradient and is not among its "
                "parameters: make the rate a torch.nn.Module that holds it, or use gradient=direct."
            )
        stack += [following for following, _ in node.next_functions]


def _distance(state: State, first: State) -> Tensor:
    largest = torch.stack([x.abs().max() for x in first]).max()
    apart = torch.stack([(x - y).abs().max() for x, y in zip(state, first, strict=True)]).max()
    return apart / largest


class _Recomputing(torch.autograd.Function):
    """Keeps states, not activations. Inputs: the walk, the length of the state, the state, all that is read."""

    @staticmethod
    def forward(ctx: Any, walk: _Walk, width: int, *tensors: Tensor) -> State:
        state, kept = walk.forward(tensors[:width])
        ctx.walk, ctx.width, ctx.count = walk, width, len(kept)
        # What was read is saved only so that changing it in place before backward is an error.
        ctx.save_for_backward(*kept, *tensors[width:])
        device = tensors[0].device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        kept, walk = list(ctx.saved_tensors[: ctx.count]), ctx.walk
        sums = _Sums(walk.reads(range(walk.course.steps)))
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype, enabled), walk.replay.forked():
            flows = walk.backward(kept, grads, sums)
        return (None, None, *flows, *sums.totals())
