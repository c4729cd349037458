"""A network under attack: every attack at every epsilon, what survives them all, and whether that can be believed.

Legend: `B` images, `C` channels, `H W` space.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from odenet.arithmetic import autocast, products
from odenet.data.images import Images
from odenet.enums import Precision
from odenet.inference.classifier import Classifier
from odenet.robustness.attack_checks import check_weaker, checks_of_network, checks_of_norm, worst
from odenet.robustness.attack_results import AttackReport, AttackResult, Check, GradientError, rows_of
from odenet.robustness.attackable import check_attack
from odenet.robustness.attacks import Attacker
from odenet.robustness.cells import Cells
from odenet.robustness.config import LEVELS, WHITE_BOX, Attack, AttackConfig, Norm
from odenet.robustness.threat import (
    Ball,
    Cases,
    Subject,
    digest_of_images,
    fingerprint,
    is_adaptive,
    solver_surrogates,
)

TRANSFER = "transfer_"  # before the name of the network that it is from
SETTINGS = {  # what the result of an attack depends on, besides seed, network and images
    Attack.apgd_ce: ("apgd_steps",),
    Attack.apgd_t: ("apgd_steps",),
    Attack.fab_t: ("fab_steps",),
    Attack.pgd: ("pgd_steps", "pgd_restarts"),
    Attack.transfer: ("apgd_steps",),
    Attack.square: ("square_queries",),
}


def attack(
    classifier: Classifier,
    images: Images,
    config: AttackConfig,
    *,
    others: Mapping[str, Classifier] | None = None,
    cells: Cells | None = None,
) -> AttackReport:
    """Attack a network, by gradients through stored activations whatever it was trained with.

    The result is a function of network, images and config: the same whether it was interrupted or not and, up to the
    rounding of the network, whatever the batch size.

    Args:
        classifier: is left as it is, on its device; a frozen float32 copy of it is attacked.
        images: as many as the config says; `odenet.balanced_test` picks the same ones for every network.
        others: name to a network from which APGD transfers, such as the tuned ResNet and a sibling seed. The same
            weights under another scheme and at 2 and 4 times the steps are added to them.
        cells: where parts are kept, and who is told of each; nowhere and nobody by default.

    Raises:
        ValueError: the images do not fit the network or the config, another network does not fit this one, the scheme
            is adaptive and the config does not allow it, or a kept part is of something else.

    >>> from odenet import AttackConfig, ExperimentConfig, ModelConfig, Training, balanced_test
    >>> experiment = ExperimentConfig(model=ModelConfig(width=2, nodes=1))
    >>> classifier = Training(experiment).checkpoint().classifier()  # an untrained one, which guesses
    >>> config = AttackConfig(linf_255=[8.0], l2=[], attacks=["apgd_ce"], images=9, pgd_steps=5, apgd_steps=5)
    >>> report = attack(classifier, balanced_test(experiment.data, count=9), config)
    >>> [row.attack for row in report.results], report.label  # most attacks of the protocol were not run
    (['apgd_ce', 'union'], 'masked: upper bound only')
    """
    others = dict(others or {})
    check_attack(classifier, images, config, others)
    if Attack.transfer in config.attacks:
        others.update(_surrogates(classifier, others))
    with products(Precision.fp32), autocast(classifier.scale_C11.device, Precision.fp32):
        return _Evaluation.of(classifier, images, config, others).run(cells or Cells())


def _surrogates(classifier: Classifier, others: Mapping[str, Classifier]) -> dict[str, Classifier]:
    own = solver_surrogates(classifier)
    if taken := own.keys() & others.keys():
        raise ValueError(
            f"A network to transfer from cannot be called {min(taken)}: that is the attacked one under another "
            "manifestation."
        )
    return own


# --- the evaluation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the evaluation that is computed and kept as a whole."""

    name: str
    source: dict[str, Any]  # what it is a function of
    compute: Callable[[], Any]  # plain JSON values


@dataclass(slots=True)
class _Evaluation:
    classifier: Classifier
    attacker: Attacker
    clean_B: np.ndarray
    right: Cases  # the images that are attacked
    checked: Cases  # those of them that checks are made on
    source: dict[str, Any]  # of every part
    others: dict[str, Subject]
    found: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        classifier: Classifier, images: Images, config: AttackConfig, others: Mapping[str, Classifier]
    ) -> "_Evaluation":
        subject = Subject(classifier, batch_size=config.batch_size)
        x = torch.tensor(images.pixels_BCHW, device=subject.device) / LEVELS
        labels, indices = (torch.tensor(one, device=subject.device) for one in (images.labels_B, images.indices_B))
        right_B, cases, few = subject.right(x, labels), Cases(x, labels, indices), slice(config.check_images)
        return _Evaluation(
            classifier=classifier,
            attacker=Attacker(subject, config),
            clean_B=right_B.cpu().numpy(),
            right=cases.take(right_B),
            checked=cases.take(few).take(right_B[few]),
            source={"network": fingerprint(classifier), "images": digest_of_images(images), "seed": config.seed},
            others={name: Subject(other, batch_size=config.batch_size) for name, other in others.items()},
        )

    @property
    def config(self) -> AttackConfig:
        return self.attacker.config

    def run(self, cells: Cells) -> AttackReport:
        parts = list(self._parts())
        for done, part in enumerate(parts, start=1):
            self.found[part.name] = cells.get(part.name, part.source, part.compute)
            cells.tell(part.name, done, len(parts))
        return self._report()

    def _parts(self) -> Iterator[_Part]:
        checked = {**self.source, "check_images": self.config.check_images}
        yield _Part("network-checks", checked, self._check_network)
        for norm in self.config.norms:
            for name, kind in self._attacks():
                source = {**self.source, **self._settings(name, kind)}
                if kind is Attack.fab_t:
                    yield _Part(f"{norm.value}-{name}", source, partial(self._least_norms, norm))
                    continue
                for epsilon in self.config.epsilons(norm):
                    compute = partial(self._withstood, name, kind, Ball(norm, epsilon))
                    yield _Part(_place(norm, epsilon, name), source, compute)
            source = {**checked, **self._settings("pgd", Attack.pgd), "epsilons": self.config.epsilons(norm)}
            yield _Part(f"{norm.value}-checks", source, partial(self._check_norm, norm))

    def _attacks(self) -> list[tuple[str, Attack]]:
        """Return the attacks by name and kind, in the order in which "first broken by" is counted."""
        names = {kind: [kind.value] for kind in Attack if kind in self.config.attacks}
        if Attack.transfer in names:
            names[Attack.transfer] = [f"{TRANSFER}{name}" for name in self.others]
        return [(name, kind) for kind in names for name in names[kind]]

    def _settings(self, name: str, kind: Attack) -> dict[str, Any]:
        settings: dict[str, Any] = {one: getattr(self.config, one) for one in SETTINGS[kind]}
        if kind is Attack.transfer:
            settings["from"] = fingerprint(self.others[name.removeprefix(TRANSFER)].classifier)
        return settings

    # --- what parts compute ---

    def _withstood(self, name: str, kind: Attack, ball: Ball) -> list[int]:
        attacker, config = self.attacker, self.config
        if kind is Attack.pgd:
            left_B = attacker.pgd(self.right, ball, steps=config.pgd_steps, restarts=config.pgd_restarts)
        elif kind is Attack.transfer:
            left_B = attacker.transfer(self.right, ball, self.others[name.removeprefix(TRANSFER)])
        else:
            run = {Attack.apgd_ce: attacker.apgd_ce, Attack.apgd_t: attacker.apgd_t, Attack.square: attacker.square}
            left_B = run[kind](self.right, ball)
        return left_B.int().tolist()

    def _least_norms(self, norm: Norm) -> list[float]:
        return self.attacker.least_norms(self.right, norm).tolist()

    def _check_norm(self, norm: Norm) -> list[dict[str, Any]]:
        return [asdict(check) for check in checks_of_norm(self.attacker, self.checked, norm)]

    def _check_network(self) -> dict[str, Any]:
        return asdict(checks_of_network(self.classifier, self.attacker.subject, self.checked))

    # --- the report of them ---

    def _report(self) -> AttackReport:
        results, survivors = list[AttackResult](), dict[tuple[Norm, float, str], np.ndarray]()
        masks = {
            (norm, epsilon): {name: self._survivors(norm, epsilon, name, kind) for name, kind in self._attacks()}
            for norm in self.config.norms
            for epsilon in self.config.epsilons(norm)
        }
        for (norm, epsilon), of_attacks in masks.items():
            results += rows_of(norm, epsilon, of_attacks, self.clean_B)
            survivors.update({(norm, epsilon, name): mask_B for name, mask_B in of_attacks.items()})
        network = self.found["network-checks"]
        return AttackReport(
            results=tuple(results),
            checks=self._checks(list(masks.values())),
            flags=tuple(network["flags"]),
            clean_B=self.clean_B,
            survivors=survivors,
            minimal_norms={
                norm: self._spread(self.found[f"{norm.value}-{Attack.fab_t.value}"])
                for norm in self.config.norms
                if Attack.fab_t in self.config.attacks
            },
            gradient_errors=tuple(GradientError(**one) for one in network["gradient_errors"]),
            adaptive=is_adaptive(self.classifier),
        )

    def _checks(self, masks: list[dict[str, np.ndarray]]) -> tuple[Check, ...]:
        of_norms = [[Check(**one) for one in self.found[f"{norm.value}-checks"]] for norm in self.config.norms]
        of_rows = [self._weaker(masks, Attack.square), self._weaker(masks, Attack.transfer)]
        of_network = [Check(**one) for one in self.found["network-checks"]["checks"]]
        return (*map(worst, zip(*of_norms, strict=True)), *of_rows, *of_network)

    def _weaker(self, masks: list[dict[str, np.ndarray]], kind: Attack) -> Check:
        kinds, pairs = dict(self._attacks()), list[tuple[np.ndarray, np.ndarray]]()
        for of_attacks in masks:
            white, other = (
                [mask_B for name, mask_B in of_attacks.items() if kinds[name] in group]
                for group in (WHITE_BOX, (kind,))
            )
            if white and other:
                pairs.append((np.all(white, axis=0), np.all(other, axis=0)))
        return check_weaker(f"{kind.value}_weaker", pairs)

    def _survivors(self, norm: Norm, epsilon: float, name: str, kind: Attack) -> np.ndarray:
        if kind is Attack.fab_t:
            return self._spread(self.found[f"{norm.value}-{name}"]) > epsilon
        return self._spread(self.found[_place(norm, epsilon, name)]) > 0

    def _spread(self, values: list[float]) -> np.ndarray:
        """Return values of the images that were right as (B,), 0 for the others."""
        spread_B = np.zeros(len(self.clean_B))
        spread_B[self.clean_B] = values
        return spread_B


def _place(norm: Norm, epsilon: float, attack: str) -> str:
    return f"{norm.value}-{epsilon:.6g}-{attack}"
