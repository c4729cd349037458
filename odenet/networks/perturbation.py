"""What is random in a forward pass of training, and where its draws come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from odenet.integrators.scheme import Course, OpenRate, Slope, Stage, composed
from odenet.seeding import derive

DrawKey = tuple[int, ...]  # of a draw: the stage, for noise the half of its rate, the step


class Draws:
    """The random draws of one forward pass, each a function of (seed, place), so that a recomputation repeats it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def stays(self, probability: float, place: DrawKey) -> Tensor | float:
        """Draw 1 with this probability, else 0."""
        draw = torch.rand((), generator=_generator("cpu", self._seed, "drop", *place))
        return float(draw < probability)

    def normal(self, shape: torch.Size, dtype: torch.dtype, device: torch.device, place: DrawKey) -> Tensor:
        """Draw from N(0, 1), on the device itself."""
        generator = _generator(device.type, self._seed, "noise", *place)
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)


class HeldDraws(Draws):
    """The same in tensors that stay where they are: `fill` draws anew what the first forward pass has asked for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(0)
        self._device = device
        self._held: dict[tuple[str, DrawKey], tuple[Tensor, Callable[[], Tensor | float]]] = {}

    def fill(self, seed: int) -> None:
        self._seed = seed
        for tensor, draw in self._held.values():
            tensor.copy_(torch.as_tensor(draw()))

    def stays(self, probability: float, place: DrawKey) -> Tensor:
        return self._hold(("stays", place), partial(super().stays, probability, place))

    def normal(self, shape: torch.Size, dtype: torch.dtype, device: torch.device, place: DrawKey) -> Tensor:
        return self._hold(("normal", place), partial(super().normal, shape, dtype, device, place))

    def _hold(self, name: tuple[str, DrawKey], draw: Callable[[], Tensor | float]) -> Tensor:
        if name not in self._held:
            self._held[name] = torch.as_tensor(draw(), device=self._device), draw
        return self._held[name][0]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Random regularization of one forward pass in training.

    Stochastic depth (Huang et al. 2016, arXiv 1603.09382): the rate of step l of L in the whole network is left out
    with probability l/L * stochastic_depth, else divided by the probability to stay. Noise: x gains
    noise * sqrt(h) * N(0, 1) a step of depth time h, Euler-Maruyama's term of dx = R dt + noise dB (the view of Lu et
    al. 2018, arXiv 1710.10121); two-step midpoint doubles it, leapfrog has it in x''.
    """

    stochastic_depth: float
    noise: float
    draws: Draws

    def of(self, rate: OpenRate, course: Course, place: tuple[int, int]) -> OpenRate:
        """Return the perturbed rate of stage `place[0]` of `place[1]`."""

        def perturbed(slope: Slope, half: int) -> Slope:
            def randomly(stage: Stage, h: Tensor) -> Tensor:
                found = slope(stage, h)
                if self.stochastic_depth:
                    found = self._kept(found, stage, place)
                if self.noise:
                    draw = self.draws.normal(h.shape, h.dtype, h.device, (place[0], half, stage.step))
                    found = found + draw * (self.noise / sqrt(course.size))
                return found

            return randomly

        if rate.halves is None:
            return replace(rate, slope=perturbed(rate.slope, 0))
        halves = perturbed(rate.halves[0], 0), perturbed(rate.halves[1], 1)
        return replace(rate, slope=composed(*halves), halves=halves)

    def _kept(self, slope: Tensor, stage: Stage, place: tuple[int, int]) -> Tensor:
        index, stages = place
        stays = 1 - self.stochastic_depth * (index + (stage.step + 1) / stage.steps) / stages
        # Two factors, because 0 and 1 are exact in half precision.
        return (1 / stays) * slope * self.draws.stays(stays, (index, stage.step))


def _generator(device: str, seed: int, purpose: str, *indices: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive(seed, purpose, *indices))
