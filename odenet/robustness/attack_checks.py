"""The nine sanity checks of an evaluation under attack: an attack that fails says nothing where gradients are masked.

After Athalye et al. 2018 (arXiv 1802.00420), Carlini et al. 2019 (arXiv 1902.06705), Tramer et al. 2020 (arXiv
2002.08347) and the flags of AutoAttack. One that fails makes the accuracies upper bounds.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes, `V` directions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet.enums import Gradient
from odenet.inference.classifier import Classifier
from odenet.integrators.schemes import refusal
from odenet.networks.model import DepthNet
from odenet.robustness.attack_results import Check, GradientError
from odenet.robustness.attacks import Attacker, flags
from odenet.robustness.config import Norm
from odenet.robustness.threat import Ball, Cases, Subject, by_stored_activations, differentiated, is_adaptive
from odenet.seeding import generator

PGD_STEPS = (10, 50, 200)
NOT_SATURATED = 0.02  # by which 50 and 200 steps may differ
NOT_WEAKER = 0.002  # of the images, that Square or transfer may break and no gradient of the network; AutoAttack's
COSINE = 0.999
DIRECTIONS = 64  # in which the gradient is compared with differences; drawn anew for each image
DIFFERENCE = 1e-6  # half the distance of two images, whose logits are float64
GRADIENT_IMAGES = 8  # on which gradients are compared
SAME_GRADIENT = 1e-4  # relative; float32, summed in another order
DEPTHS = (1, 2, 4)  # times the steps, at which the error of the memory-free gradient is reported

OF_NETWORK = ("finite_differences", "stored_activations", "no_flag", "deterministic")


def worst(checks: Sequence[Check]) -> Check:
    """Return the check that stands for the same one in several norms."""
    return next((check for check in checks if not check.passed), checks[0])


# --- of one norm ----------------------------------------------------------------------------------------------------


def checks_of_norm(attacker: Attacker, cases: Cases, norm: Norm) -> list[Check]:
    """Check PGD: more steps do no less and end by doing no more; the whole ball breaks all; noise does less.

    The first and the last at the least epsilon, of those asked for or doubled beyond, at which PGD breaks half.
    """
    steps, restarts = attacker.config.pgd_steps, attacker.config.pgd_restarts
    whole = Ball.whole(norm, cases.x_BCHW.shape[1:])
    whole_ball = Check.at_most("whole_ball", _share(attacker.pgd(cases, whole, steps=steps, restarts=restarts)), 0.0)
    ball, shares, noise = _breaking_half(attacker, cases, norm), [math.nan] * len(PGD_STEPS), math.nan
    if ball is not None:
        shares = [_share(attacker.pgd(cases, ball, steps=n, restarts=1)) for n in PGD_STEPS]
        noise = _share(attacker.noise(cases, ball, draws=restarts))
    return [check_saturates(shares, len(cases)), whole_ball, Check.above("noise_weaker", noise - shares[1], 0.0)]


def check_saturates(shares: Sequence[float], n: int) -> Check:
    """Check that PGD with more steps leaves no more of `n` images, and that in the end more steps change nothing."""
    few, some, many = shares
    return Check.at_most("pgd_saturates", max(some - few, abs(some - many)), max(NOT_SATURATED, 1 / max(n, 1)))


def _breaking_half(attacker: Attacker, cases: Cases, norm: Norm) -> Ball | None:
    radius = Ball.whole(norm, cases.x_BCHW.shape[1:]).epsilon
    epsilons = attacker.config.epsilons(norm)
    while epsilons[-1] * 2 <= radius:
        epsilons.append(epsilons[-1] * 2)
    for epsilon in epsilons:
        ball = Ball(norm, epsilon)
        if _share(attacker.pgd(cases, ball, steps=attacker.config.pgd_steps, restarts=1)) <= 0.5:
            return ball
    return None


def _share(left_B: Tensor) -> float:
    return float(left_B.double().mean())  # nan of no images


# --- of the rows ----------------------------------------------------------------------------------------------------


def check_weaker(name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Check:
    """Check that an attack without the network's gradients breaks no image that they leave.

    Args:
        pairs: for each epsilon masks (B,) of what withstood the white-box attacks and what withstood this one; none
            where one of them was not run, which is no pass.
    """
    shares = [float((white_B & ~other_B).mean()) for white_B, other_B in pairs] or [math.nan]
    n = len(pairs[0][0]) if pairs else 1
    return Check.at_most(name, max(shares), max(NOT_WEAKER, 1 / n))


# --- of the network -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfNetwork:
    """Checks that need no attack, and what they measure beside."""

    checks: list[Check]
    flags: list[str]
    gradient_errors: list[GradientError]


def checks_of_network(classifier: Classifier, subject: Subject, cases: Cases) -> OfNetwork:
    """Check the gradient that attacks use against differences and stored activations, and the forward pass.

    Args:
        classifier: as it was given, whatever gradient it was trained with.
        subject: the same as it is attacked.
        cases: images that it classifies right.
    """
    if not len(cases):
        return OfNetwork([Check(name, False, math.nan, math.nan) for name in OF_NETWORK], [], [])
    few = cases.take(slice(GRADIENT_IMAGES))
    used = margin_gradient(subject, few)
    stored = margin_gradient(by_stored_activations(classifier).float().eval(), few)
    told = flags(subject, cases, margin_gradient(subject, cases))
    passes = [subject.in_parts(cases.x_BCHW) for _ in range(3)]
    apart = max(float((one - passes[0]).abs().max()) for one in passes[1:])
    checks = [
        Check.above("finite_differences", least_cosine(classifier, few), COSINE),
        Check.at_most("stored_activations", _relative(used, stored), SAME_GRADIENT),
        Check.at_most("no_flag", float(len(told)), 0.0),
        Check.at_most("deterministic", apart, 0.0),
    ]
    return OfNetwork(checks, told, gradient_errors(classifier, few))


def margin_gradient(model: torch.nn.Module, cases: Cases) -> Tensor:
    """Return the gradient (B, C, H, W) of each image's margin, the own logit less the largest other."""
    x = cases.x_BCHW.detach().clone().requires_grad_()
    with torch.enable_grad():
        margin = _margin(model(x), cases.labels_B).sum()
        if not margin.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(margin, x, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _margin(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    own = F.one_hot(labels_B, logits_BK.shape[1]).bool()
    others = logits_BK.masked_fill(own, -torch.inf)
    return logits_BK.gather(1, labels_B.unsqueeze(1)).squeeze(1) - others.amax(1)


def least_cosine(classifier: Classifier, cases: Cases) -> float:
    """Return the least cosine, over images, of slopes by autograd and by central differences in float64."""
    model = by_stored_activations(classifier).double().eval()
    exact = Cases(cases.x_BCHW.double(), cases.labels_B, cases.indices_B)
    gradients = margin_gradient(model, exact)
    cosines = []
    for index in range(len(exact)):
        one = exact.take(slice(index, index + 1))
        shape = (DIRECTIONS, *one.x_BCHW.shape[1:])
        drawn = torch.randn(shape, generator=generator(0, "directions", int(one.indices_B[0])), dtype=torch.float64)
        directions_VCHW = drawn.to(one.x_BCHW.device)
        labels_V = one.labels_B.expand(DIRECTIONS)
        with torch.no_grad():
            ahead, behind = (
                _margin(model(one.x_BCHW + sign * DIFFERENCE * directions_VCHW), labels_V) for sign in (1, -1)
            )
        slopes_V = (directions_VCHW * gradients[index]).flatten(1).sum(1)
        cosines.append(float(F.cosine_similarity(slopes_V, (ahead - behind) / (2 * DIFFERENCE), dim=0)))
    return min(cosines)


def _relative(found: Tensor, expected: Tensor) -> float:
    return 0.0 if torch.equal(found, expected) else float((found - expected).norm() / expected.norm())


def gradient_errors(classifier: Classifier, cases: Cases) -> list[GradientError]:
    """Return the relative errors of the input gradient by reconstruction, which no attack uses, at multiples of the
    steps; nothing where there is no such gradient."""
    if not isinstance(classifier.network, DepthNet) or is_adaptive(classifier):
        return []
    courses = [depth.course for depth in classifier.network.depths()]
    scheme, steps = courses[-1].scheme, max(course.steps for course in courses)
    if refusal(scheme, Gradient.reconstructed):
        return []
    errors = []
    for factor in DEPTHS:
        deep = classifier if factor == 1 else classifier.manifest(scheme=scheme, steps=factor * steps)
        found, expected = (
            margin_gradient(differentiated(deep, gradient).float().eval(), cases)
            for gradient in (Gradient.reconstructed, Gradient.direct)
        )
        errors.append(GradientError(factor * steps, _relative(found, expected)))
    return errors
