"""Differentiating an integration without keeping all its activations.

`direct` leaves it to autograd: every activation is kept. The others are one function that keeps states and recomputes:
`checkpointed` keeps about sqrt(steps) states (Chen et al. 2016, arXiv 1604.06174) and is exact; `reconstructed` keeps
the last state, walks back by `unstep` and takes the local vector-Jacobian product of `step`. Over a reversible scheme
that is the memory-free backpropagation of Chang et al. 2018 (arXiv 1709.03698), exact up to rounding, and the first
state is kept, too, as in the reversible papers' code; over Euler and Heun it is the discrete adjoint of Sander et al.
2022 (arXiv 2205.14612) with errors of O(1/N) and O(1/N^2). Over other schemes it is as good as their steps are short,
and over an adaptive one it is the adjoint equation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isqrt

import torch
from torch import Tensor

from odenet.enums import Gradient
from odenet.integrators.hidden import clock, refuse_hidden, watched
from odenet.integrators.recomputing import Piece, Sums, Walk, differentiated
from odenet.integrators.replay import Replay
from odenet.integrators.scheme import Course, OpenRate, PairScheme, Stage, State, Stepping
from odenet.integrators.schemes import SCHEMES, Adaptive, named_failures


@dataclass(slots=True)
class Drift:
    """The error of reconstruction: max |h0 - reconstructed h0| / max |h0| of the passes since the last `take`."""

    values: list[Tensor] = field(default_factory=list)

    def take(self) -> float | None:
        """Return the largest so far, and forget it; None where nothing was reconstructed."""
        largest = max((float(value) for value in self.values), default=None)
        self.values.clear()
        return largest


def integrate_recomputing(rate: OpenRate, state: State, course: Course, drift: Drift | None = None) -> State:
    """Return the last state of a fixed-step integration, differentiated as `course.gradient` says.

    Raises:
        ValueError: the rate hides a tensor that needs a gradient, or more than first derivatives are asked for.
    """
    method = SCHEMES[course.scheme]
    assert isinstance(method, Stepping)
    return differentiated(_Steps(method, rate, course, drift), state)


def integrate_by_adjoint(
    slope: Callable[[float, Tensor], Tensor], rate: OpenRate, h0: Tensor, course: Course
) -> Tensor:
    """Return h(1) of an adaptive scheme, differentiated by its adjoint equation.

    Args:
        slope: of (t, h), in place of the rate's slopes at stages; its reads must be the same at every stage.

    Raises:
        ValueError: as `integrate_recomputing`.
    """
    (h,) = differentiated(_Adjoint(slope, rate, course), (h0,))
    return h


class _Steps(Walk):
    """A fixed-step integration forward, and backward with gradients."""

    def __init__(self, method: Stepping, rate: OpenRate, course: Course, drift: Drift | None) -> None:
        self.method, self.course, self.drift = method, course, drift
        self._plain = self.rate = rate
        self.known = self.reads(range(course.steps))
        self.reversible = isinstance(method, PairScheme) and method.reversible
        self.segments = [range(course.steps)]
        if course.gradient is Gradient.checkpointed:
            length = isqrt(course.steps - 1) + 1
            starts = range(0, course.steps, length)
            self.segments = [range(start, min(start + length, course.steps)) for start in starts]

    def reads(self, steps: range) -> list[Tensor]:
        """Return the distinct tensors that need gradients behind these steps."""
        stages = (stage for step in steps for stage in self.method.stages_of(step, self.course.steps))
        found = {id(tensor): tensor for stage in stages for tensor in self.rate.reads(stage)}
        return [tensor for tensor in found.values() if tensor.requires_grad]

    def plainly(self, state: State) -> State:
        since = clock()
        for step in range(self.course.steps):
            state = self.method.step(self._plain, state, step, self.course)
            refuse_hidden(state, (), since)
        return state

    def forward(self, state: State) -> tuple[State, list[Tensor]]:
        self.replay = Replay(state[0].device, self._plain.modules)
        self.rate = _watched(self.replay.wrap(self._plain))
        kept: list[Tensor] = []
        for segment in self.segments:
            if self.course.gradient is Gradient.checkpointed or self.reversible or self.drift is not None:
                kept += state
            for step in segment:
                state = self.method.step(self.rate, state, step, self.course)
        if self.course.gradient is Gradient.reconstructed:
            kept += state
        self.replay.close()
        return state, kept

    def backward(self, kept: list[Tensor], grads: State, sums: Sums) -> State:
        width = len(grads)
        if self.course.gradient is Gradient.checkpointed:
            for index, segment in reversed(list(enumerate(self.segments))):
                grads = self._pull_back(segment, tuple(kept[index * width : (index + 1) * width]), grads, sums)
            return grads
        first, state = tuple(kept[:width]), tuple(kept[-width:])
        step_back = self._undo if self.reversible else self._reverse
        for step in reversed(range(1 if self.reversible else 0, self.course.steps)):
            state, grads = step_back(step, state, grads, sums)
        if self.reversible:
            if self.drift is not None:
                state = self._before(0, state)
            # From the first state itself: its ties (channels that are 0 throughout, say) decide ReLUs, and would not
            # survive the rounding of a walk back.
            grads = self._pull_back(range(1), first, grads, sums)
        if self.drift is not None:
            self.drift.values.append(_distance(state, first))
        return grads

    def _pull_back(self, steps: range, state: State, grads: State, sums: Sums) -> State:
        """Return the gradients before `steps` by a recomputation of them from `state`."""
        per_step = self._evaluations()
        self.replay.rewind(range(steps.start * per_step, steps.stop * per_step))
        leaves = tuple(x.detach().requires_grad_() for x in state)
        since = clock()
        with torch.enable_grad():
            out = leaves
            for step in steps:
                out = self.method.step(self.rate, out, step, self.course)
        return sums.pull(Piece(out, leaves, self.reads(steps), since), grads)

    def _reverse(self, step: int, state: State, grads: State, sums: Sums) -> tuple[State, State]:
        before = self._before(step, state)
        return before, self._pull_back(range(step, step + 1), before, grads, sums)

    def _before(self, step: int, state: State) -> State:
        self._rewind_back(step)
        return self.method.unstep(self.rate, state, step, self.course)

    def _undo(self, step: int, state: State, grads: State, sums: Sums) -> tuple[State, State]:
        """Undo a step: one evaluation of each shear serves its inverse and its gradient."""
        assert isinstance(self.method, PairScheme)
        self._rewind_back(step)
        reads = self.reads(range(step, step + 1))
        state, flows = self.method.swapped(state), list(self.method.swapped(grads))
        for shear in reversed(self.method.shears(self.rate, step, self.course)):
            source, since = state[shear.source].detach().requires_grad_(), clock()
            with torch.enable_grad():
                slope = shear.slope(shear.stage, source)
            flow = flows[shear.target]
            piece = Piece((slope,), (source,), reads, since)
            (pulled,) = sums.pull(piece, ((flow * shear.weight).to(slope.dtype),))
            flows[shear.source] = flows[shear.source] + pulled + (shear.add * flow if shear.add else 0)
            flows[shear.target] = shear.keep * flow if shear.keep != 1 else flow
            state = shear.invert(state, slope.detach())
        return state, tuple(flows)

    def _rewind_back(self, step: int) -> None:
        """Let the next evaluations be those of `step`, the last one first."""
        per_step = self._evaluations()
        self.replay.rewind(range((step + 1) * per_step - 1, step * per_step - 1, -1))

    def _evaluations(self) -> int:
        """Return the calls of slopes a step."""
        return len(self.rate.halves) if self.method.needs == "halves" and self.rate.halves else self.method.evaluations


def _watched(rate: OpenRate) -> OpenRate:
    halves = rate.halves and (watched(rate.halves[0], rate.reads), watched(rate.halves[1], rate.reads))
    return replace(rate, slope=watched(rate.slope, rate.reads), halves=halves)


class _Adjoint(Walk):
    """The adjoint equation of an adaptive scheme, which torchdiffeq solves.

    Its evaluations are not those of the forward pass, so no draw is repeated; they begin from the buffers as they are.
    """

    def __init__(self, slope: Callable[[float, Tensor], Tensor], rate: OpenRate, course: Course) -> None:
        self.course, self._plain, self._modules = course, slope, rate.modules
        reads = rate.reads(Stage(0, 1, Fraction(0)))
        self.known = list({id(tensor): tensor for tensor in reads if tensor.requires_grad}.values())
        self._watched = watched(slope, lambda _: self.known)
        method = SCHEMES[course.scheme]
        assert isinstance(method, Adaptive)
        self._method = method

    def plainly(self, state: State) -> State:
        since = clock()
        h = self._method.solve(self._plain, state[0], self.course)
        refuse_hidden((h,), (), since)
        return (h,)

    def forward(self, state: State) -> tuple[State, list[Tensor]]:
        self.replay = Replay(state[0].device, self._modules)
        self._first = state[0].detach().requires_grad_()
        with torch.enable_grad():
            self._last = self._method.solve(self._evaluated, self._first, self.course, self.known)
        last = (self._last.detach(),)
        return last, [*last]

    def backward(self, kept: list[Tensor], grads: State, sums: Sums) -> State:  # noqa: ARG002
        with named_failures():
            flow, *found = torch.autograd.grad(self._last, (self._first, *self.known), grads, retain_graph=True)
        sums.add(self.known, found)
        return (flow,)

    def _evaluated(self, t: float, h: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._watched(t, h)
        since = clock()  # on the way back
        slope = self._plain(t, h)
        refuse_hidden((slope,), (h, *self.known), since)
        return slope if slope.requires_grad else slope.detach().requires_grad_()  # a constant one has a gradient of 0


def _distance(state: State, first: State) -> Tensor:
    largest = torch.stack([x.abs().max() for x in first]).max()
    apart = torch.stack([(x - y).abs().max() for x, y in zip(state, first, strict=True)]).max()
    return apart / largest
