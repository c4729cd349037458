"""The attacks, each a function of the network, images that it classifies right, and a ball.

Those of pyautoattack are called one by one, at the settings of its standard set, with three differences: random starts
belong to the image (its number and the seed), not to its place in a batch; what an attack returns is checked to lie in
the ball; and FAB, whose steps do not depend on epsilon, runs once for all of them.

Shapes: `B` batch, `C` channels, `H W` space.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odenet.robustness.config import AttackConfig, Norm
from odenet.robustness.threat import Ball, Cases, Subject
from odenet.seeding import global_seed

ADVICE = re.compile(r"(?<=[!.]) (To|Please|This|See|Consider|The evaluation) .*|, please be sure .*")  # after a warning
NAMES = {Norm.linf: "Linf", Norm.l2: "L2"}  # as pyautoattack has them
TARGETS = 9  # of the targeted attacks, as in its standard set, where there are as many other classes
DECREASE = 0.75  # its rho
FIRST_SQUARE = 0.8  # its share of pixels
PGD_REACH = 2.5  # epsilons that PGD's steps add up to

Attempt = Callable[[Cases], Tensor]  # images to moved images (B, C, H, W)


@dataclass(slots=True)
class _Warnings:
    """A logger for pyautoattack that keeps what it is told."""

    told: list[str] = field(default_factory=list)

    def warning(self, message: str) -> None:
        self.told.append(ADVICE.sub("", message).strip())


@contextmanager
def _contained(seed: int, purpose: str) -> Iterator[None]:
    """Keep what pyautoattack does to torch's global state inside the block: its generator, and gradients."""
    with global_seed(seed, purpose), torch.no_grad():
        yield


def withstood(subject: Subject, cases: Cases, ball: Ball, attempts: Iterable[Attempt]) -> Tensor:
    """Return a mask (B,) of the images that no attempt broke; each attempt sees those that are left, in batches."""
    left_B = torch.ones(len(cases), dtype=torch.bool, device=cases.labels_B.device)
    for attempt in attempts:
        indices = left_B.nonzero().flatten()
        for which in indices.split(subject.batch_size) if len(indices) else ():
            part = cases.take(which)
            left_B[which] = ~_broken(subject, part, ball, attempt(part))
    return left_B


def _broken(subject: Subject, cases: Cases, ball: Ball, moved_BCHW: Tensor) -> Tensor:
    """Return a mask (B,): the moved image is wrong; one outside of the ball counts as not moved."""
    inside_B = ball.holds(moved_BCHW, cases.x_BCHW)
    return ~subject.right(torch.where(inside_B.view(-1, 1, 1, 1), moved_BCHW, cases.x_BCHW), cases.labels_B)


@dataclass(frozen=True, slots=True)
class Attacker:
    """The attacks on one network at one configuration; each returns a mask (B,) of the images that withstood it."""

    subject: Subject
    config: AttackConfig

    def apgd_ce(self, cases: Cases, ball: Ball) -> Tensor:
        """Attack by APGD on the cross-entropy (Croce and Hein 2020, arXiv 2003.01690)."""
        attack = self._apgd(self.subject, ball)

        def attempt(part: Cases) -> Tensor:
            return _run(attack, part, ball.random(part, self.config.seed, f"apgd_ce/{ball.norm.value}"))[-1]

        with _contained(self.config.seed, "apgd_ce"):
            return withstood(self.subject, cases, ball, [attempt])

    def apgd_t(self, cases: Cases, ball: Ball) -> Tensor:
        """Attack by APGD towards each of the likeliest other classes in turn."""
        from pyautoattack.autopgd_base import APGDAttack_targeted  # type: ignore[import-untyped]

        attack = self._apgd(self.subject, ball, APGDAttack_targeted)
        attack.loss = "dlr-targeted" if self.subject.classes > 3 else "ce-targeted"

        def towards(rank: int) -> Attempt:
            def attempt(part: Cases) -> Tensor:
                attack.y_target = _ranked(self.subject, part, rank)
                return _run(attack, part, ball.random(part, self.config.seed, f"apgd_t/{ball.norm.value}/{rank}"))[-1]

            return attempt

        with _contained(self.config.seed, "apgd_t"):
            return withstood(self.subject, cases, ball, map(towards, self._ranks()))

    def transfer(self, cases: Cases, ball: Ball, source: Subject) -> Tensor:
        """Attack with the images of largest cross-entropy that APGD finds on another network."""
        attack = self._apgd(source, ball)

        def attempt(part: Cases) -> Tensor:
            return _run(attack, part, ball.random(part, self.config.seed, f"transfer/{ball.norm.value}"))[0]

        with _contained(self.config.seed, "transfer"):
            return withstood(self.subject, cases, ball, [attempt])

    def least_norms(self, cases: Cases, norm: Norm) -> Tensor:
        """Return the least norm (B,) at which FAB (Croce and Hein 2020, arXiv 1907.02044) broke an image, else inf."""
        from pyautoattack.fab_pt import FABAttack_PT  # type: ignore[import-untyped]

        ball = Ball.whole(norm, cases.x_BCHW.shape[1:])
        fab = FABAttack_PT(
            self.subject, norm=NAMES[norm], n_restarts=1, n_iter=self.config.fab_steps, eps=ball.epsilon,
            targeted=True, device=self.subject.device,
        )  # fmt: skip
        found = [torch.empty(0, device=cases.x_BCHW.device)]
        with _contained(self.config.seed, "fab_t"):
            for part in cases.parts(self.subject.batch_size):
                least_B = torch.full((len(part),), torch.inf, device=cases.x_BCHW.device)
                for rank in self._ranks():
                    fab.target_class = rank
                    moved = fab.attack_single_run(part.x_BCHW, part.labels_B, is_targeted=True)
                    broken_B = _broken(self.subject, part, ball, moved)
                    least_B = torch.where(broken_B, least_B.minimum(ball.length(moved - part.x_BCHW)), least_B)
                found.append(least_B)
        return torch.cat(found)

    def square(self, cases: Cases, ball: Ball) -> Tensor:
        """Attack by random squares (Andriushchenko et al. 2020, arXiv 1912.00049), which needs no gradient.

        Its draws are shared by all images, so all are attacked at once: only the network sees them in batches.
        """
        from pyautoattack.square import SquareAttack  # type: ignore[import-untyped]

        if not len(cases):
            return torch.ones(0, dtype=torch.bool, device=cases.labels_B.device)
        attack = SquareAttack(
            self.subject.in_parts, p_init=FIRST_SQUARE, n_queries=self.config.square_queries, eps=ball.epsilon,
            norm=NAMES[ball.norm], n_restarts=1, resc_schedule=False, device=self.subject.device,
        )  # fmt: skip
        attack.init_hyperparam(cases.x_BCHW)
        with _contained(self.config.seed, f"square/{ball.norm.value}"):
            _, moved = attack.attack_single_run(cases.x_BCHW, cases.labels_B)
            return ~_broken(self.subject, cases, ball, moved)

    def pgd(self, cases: Cases, ball: Ball, *, steps: int, restarts: int) -> Tensor:
        """Attack by projected steps along the gradient of the cross-entropy (Madry et al. 2018, arXiv 1706.06083)."""

        def from_start(restart: int) -> Attempt:
            def attempt(part: Cases) -> Tensor:
                start = ball.random(part, self.config.seed, f"pgd/{ball.norm.value}/{restart}")
                return self._descend(part, ball, start, steps)

            return attempt

        with _contained(self.config.seed, "pgd"):
            return withstood(self.subject, cases, ball, map(from_start, range(restarts)))

    def noise(self, cases: Cases, ball: Ball, *, draws: int) -> Tensor:
        """Move the images at random: what any attack must do better than."""

        def drawn(number: int) -> Attempt:
            return lambda part: ball.random(part, self.config.seed, f"noise/{ball.norm.value}/{number}")

        return withstood(self.subject, cases, ball, map(drawn, range(draws)))

    def _descend(self, part: Cases, ball: Ball, start_BCHW: Tensor, steps: int) -> Tensor:
        """Return the first wrong image of each walk, or where it ends."""
        x = found = start_BCHW
        going_B = torch.ones(len(part), dtype=torch.bool, device=x.device)
        for _ in range(steps):
            logits_BK, gradient = self.subject.gradient(x, part.labels_B)
            going_B = going_B & (logits_BK.argmax(1) == part.labels_B)
            if not going_B.any():
                return found
            x = ball.project(x + PGD_REACH * ball.epsilon / steps * ball.direction(gradient), part.x_BCHW)
            found = torch.where(going_B.view(-1, 1, 1, 1), x, found)
        return found

    def _ranks(self) -> range:
        """Return the places of the targets among the logits of an image, the largest of which is its own class."""
        return range(2, min(TARGETS, self.subject.classes - 1) + 2)

    def _apgd(self, subject: Subject, ball: Ball, kind: Any = None) -> Any:
        from pyautoattack.autopgd_base import APGDAttack

        return (kind or APGDAttack)(
            subject, n_iter=self.config.apgd_steps, norm=NAMES[ball.norm], eps=ball.epsilon, rho=DECREASE,
            device=subject.device, logger=_Warnings(),
        )  # fmt: skip


def _run(attack: Any, part: Cases, start_BCHW: Tensor) -> tuple[Tensor, ...]:
    """Return (images of largest loss, mask, losses, wrong images) of one APGD run."""
    attack.init_hyperparam(part.x_BCHW)
    return attack.attack_single_run(part.x_BCHW, part.labels_B, x_init=start_BCHW)


def _ranked(subject: Subject, part: Cases, rank: int) -> Tensor:
    return subject.in_parts(part.x_BCHW).argsort(dim=1)[:, -rank]


def flags(subject: Subject, cases: Cases, gradient_BCHW: Tensor) -> list[str]:
    """Return what pyautoattack warns of before it attacks: draws at random, probabilities in place of logits, work at
    inference, or images with a gradient of zero."""
    from pyautoattack import checks  # type: ignore[import-untyped]

    found, before = _Warnings(), sys.gettrace()
    with _contained(0, "flags"):
        checks.check_randomized(subject.in_parts, cases.x_BCHW, cases.labels_B, logger=found)
        checks.check_range_output(subject.in_parts, cases.x_BCHW, logger=found)
        checks.check_zero_gradients(gradient_BCHW.flatten(1), logger=found)
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # it counts calls since it was imported
        try:
            checks.check_dynamic(subject.in_parts, cases.x_BCHW, logger=found)
        finally:
            sys.settrace(before)  # which it takes away from debuggers
    return found.told
