"""The order of convergence that a network's integrations show, its weights fixed.

p = log2(|x_n - x*| / |x_2n - x*|), x* by RK4 with 16 times the steps of the finest x_n, in float64 and evaluation mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from odenet.data.images import Images
from odenet.depth.bases import BASES
from odenet.diagnostics.probing import copied, first_pixels, integrated, opened
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage
from odenet.integrators.schemes import SCHEMES, Adaptive, TwoStep
from odenet.networks.blocks import DepthStage
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS

FINER = 16  # steps of the reference to one of the finest
ROUNDING = 1e-12  # relative errors below this are of the arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedOrder:
    """Orders on the finest pair, and the relative errors they come from, one for each factor of the steps."""

    blocks: float | None = None  # of the outputs of all integrations, each from the reference's input: mean square
    logits: float | None = None
    factors: tuple[int, ...] = ()  # of each stage's own steps
    block_errors: tuple[float, ...] = ()
    logit_errors: tuple[float, ...] = ()
    reason: str = ""  # why there is no order


def observed_order(
    classifier: Classifier, images: Images, *, factors: Sequence[int] = (1, 2, 4), count: int = 2
) -> ObservedOrder:
    """Measure the order of a network's own scheme; what approximates no ODE of its field has none.

    ReLU, whose slope jumps, and weights that jump inside a step lower what is observed. Costs about
    64 max(factors) rate evaluations per step of the network, stage by stage, and for weights that are continuous in
    depth the memory of as many copies of a stage's weights.

    Args:
        factors: of each stage's steps, which are rounded to a multiple of the cells of its weights; each twice the one
            before.
        count: of the first images that are integrated.

    Raises:
        ValueError: there are fewer images, they are not shaped as the classifier's, or the factors are no such row.
    """
    factors = tuple(factors)
    if len(factors) < 2 or factors[0] < 1 or any(fine != 2 * coarse for coarse, fine in pairwise(factors)):
        raise ValueError(f"factors={factors}: at least two whole numbers, each twice the one before.")
    x_BCHW = first_pixels(classifier, images, count)
    network = classifier.network
    reason = _no_reference(network)
    if reason:
        return ObservedOrder(reason=reason)
    exact = copied(classifier, torch.float64)
    block_errors, logit_errors = _errors(exact, x_BCHW.double(), factors)
    blocks = _order(block_errors)
    return ObservedOrder(
        blocks=blocks,
        logits=_order(logit_errors),
        factors=factors,
        block_errors=tuple(block_errors),
        logit_errors=tuple(logit_errors),
        reason="" if blocks is not None else "its error is not above that of rounding, or not finite",
    )


def _no_reference(network: DepthNet) -> str:
    scheme = network.depths()[-1].course.scheme
    method = SCHEMES[scheme]
    if isinstance(method, Adaptive):
        return "an adaptive scheme has no steps to halve"
    if method.order is None:
        return f"{method.name} approximates no ODE"
    can = NETWORKS[network.config.network].capability
    if Scheme.rk4 not in can.manifestations and not _is_second_order(scheme):
        return f"no RK4 reference: {can.because}"
    return ""


def _is_second_order(scheme: Scheme) -> bool:
    method = SCHEMES[scheme]
    return isinstance(method, TwoStep) and method.power == 2


def _errors(classifier: Classifier, x: Tensor, factors: Sequence[int]) -> tuple[list[float], list[float]]:
    network = classifier.network
    with torch.no_grad():
        x = network.stem(x * classifier.scale_C11 + classifier.shift_C11)
        coarse, squares = [x] * len(factors), [0.0] * len(factors)
        for transition, stage in zip(network.transitions, network.stages, strict=True):
            assert isinstance(stage, DepthStage)
            x = transition(x)
            scheme, steps = stage.depth.course.scheme, _aligned_steps(stage)
            reference = _reference(stage, x, FINER * factors[-1] * steps)
            for index, factor in enumerate(factors):
                squares[index] += _relative(integrated(stage, x, scheme=scheme, steps=factor * steps), reference) ** 2
                coarse[index] = integrated(stage, transition(coarse[index]), scheme=scheme, steps=factor * steps)
            x = reference
        logits = network.head(x)
        logit_errors = [_relative(network.head(one), logits) for one in coarse]
    return [math.sqrt(square / len(network.stages)) for square in squares], logit_errors


def _aligned_steps(stage: DepthStage) -> int:
    cells = BASES[stage.depth.basis].cells(stage.depth.nodes)
    return cells * max(1, round(stage.depth.course.steps / cells))


def _reference(stage: DepthStage, x: Tensor, steps: int) -> Tensor:
    """Return x(1) by RK4; of x'' = f as (x, v)' = (v, f(x)) with v(0) = 0."""
    if not _is_second_order(stage.depth.course.scheme):
        return integrated(stage, x, scheme=Scheme.rk4, steps=steps)
    course = Course(Scheme.rk4, steps, stage.depth.course.depth_time)
    rate = opened(stage, course)

    def slope(place: Stage, pair: Tensor) -> Tensor:
        position, velocity = pair.chunk(2, dim=1)
        return torch.cat([velocity, rate.slope(place, position)], dim=1)

    return integrate_stages(OpenRate(slope), torch.cat([x, torch.zeros_like(x)], dim=1), course).chunk(2, dim=1)[0]


def _relative(x: Tensor, reference: Tensor) -> float:
    return float((x - reference).norm() / reference.norm())


def _order(errors: Sequence[float]) -> float | None:
    coarse, fine = errors[-2:]
    if not (math.isfinite(coarse) and fine > ROUNDING):
        return None
    return math.log2(coarse / fine)
