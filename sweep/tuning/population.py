"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): who copies whom, and what changes then.

Members meet after the same epochs, so that what happens depends on seed, generation and scores only, and not on who was
faster. Integrator, steps and nodes change in mid-training as well: weights that are functions of depth stay valid.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from odenet.depth.bases import BASES
from odenet.enums import Basis, Network
from odenet.networks.table import NETWORKS
from odenet.seeding import derive
from search_spaces import Choice, Float, Int, Parameter, Space
from sweep.config.search_config import SearchConfig

FACTORS = (0.8, 1.25)
RESAMPLED = 0.25  # probability of a fresh value instead of a changed one
REFINEMENTS = 2  # of the most initial nodes, as in the depth schedules of the search spaces

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """A member's next step: with whose weights it goes on (None: its own), and with which parameters, all of them."""

    number: int
    donor: int | None
    parameters: Parameters


def generations(config: SearchConfig, epochs: int) -> list[int]:
    """List the epochs after which members meet; after the last epoch they do not.

    Raises:
        ValueError: they would never meet.
    """
    interval = max(1, round(config.pbt.interval * epochs))
    if interval >= epochs:
        raise ValueError(
            f"search.scheduler=pbt with search.pbt.interval={config.pbt.interval} and training.epochs={epochs}: the "
            f"members first meet after epoch {interval}, which is their last; choose a smaller interval or more epochs."
        )
    return list(range(interval, epochs, interval))


def check_population(config: SearchConfig, space: Space) -> None:
    """Raise ValueError where population-based training of so many members could change nothing."""
    if config.trials < 2:
        raise ValueError(f"search.scheduler=pbt with search.trials={config.trials}: a population has at least 2.")
    if not mutable(space, config):
        possible = [key for key in MUTABLE if config.pbt.integrator or key not in INTEGRATOR]
        raise ValueError(
            f"search.scheduler=pbt with a space that searches {', '.join(space.parameters) or 'nothing'}: none of it "
            f"can change while a network is trained; {', '.join(possible)} can."
        )


def mutable(space: Space, config: SearchConfig) -> list[str]:
    """List the searched keys that may change in mid-training.

    A key on which others depend is not among them: another value could ask for keys that the member does not have.
    """
    parents = {condition.key for condition in space.conditions.values()}
    keys = [key for key in space.parameters if key in MUTABLE and key not in parents]
    return [key for key in keys if config.pbt.integrator or key not in INTEGRATOR]


def exchange(
    scores: Mapping[int, float],
    parameters: Mapping[int, Parameters],
    space: Space,
    config: SearchConfig,
    generation: int,
) -> dict[int, Move]:
    """Compare the members and decide each one's next step: truncation selection, then perturbation.

    Of the worst quantile (at least one member) each copies a random one of as many best members, and varies what it
    copied. Copies are made only of strictly better members: where all are equal there is nothing to learn.

    Args:
        scores: the objective of each member that still trains, maximized; one that is not finite is the worst.
        parameters: of each of these members, complete; also `model.basis` where it is not the network's own.
        generation: how often members have met before.
    """
    valid = {number: score if math.isfinite(score) else -math.inf for number, score in scores.items()}
    ranked = sorted(valid, key=lambda number: (valid[number], -number))  # of equals the later one is worse
    size = max(1, math.floor(config.pbt.quantile * len(ranked))) if len(ranked) > 1 else 0
    best = ranked[len(ranked) - size :]
    moves = {number: Move(number, None, dict(parameters[number])) for number in ranked}
    for number in ranked[:size]:
        donors = [donor for donor in best if valid[donor] > valid[number]]
        if donors:
            generator = Random(derive(config.seed, "pbt", generation, number))
            donor = generator.choice(donors)
            moves[number] = Move(number, donor, _explore(generator, parameters[donor], space, config))
    return moves


def _explore(generator: Random, parameters: Parameters, space: Space, config: SearchConfig) -> Parameters:
    keys = [key for key in mutable(space, config) if key in parameters]
    return parameters | {key: MUTABLE[key](generator, space, key, parameters) for key in keys}


def _varied(generator: Random, space: Space, key: str, parameters: Parameters) -> Any:
    """Multiply a number by 0.8 or 1.25 within its bounds, step to a neighbouring option, or draw a fresh value."""
    parameter, value = space.parameters[key], parameters[key]
    if generator.random() < RESAMPLED:
        return parameter.suggest(RandomTrial(generator), key)
    return _near(generator, parameter, value)


def _near(generator: Random, parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter, Float):
        return min(max(value * generator.choice(FACTORS), parameter.low), parameter.high)
    shift = generator.choice((-1, 1))
    if isinstance(parameter, Int):
        return min(max(value + shift * parameter.step, parameter.low), parameter.high)
    assert isinstance(parameter, Choice)
    index = parameter.options.index(value) + shift
    return parameter.options[min(max(index, 0), len(parameter.options) - 1)]


def _refined(generator: Random, space: Space, key: str, parameters: Parameters) -> int:
    """Keep the number of nodes, or refine them; this may give more than the space has, which lists initial nodes."""
    nodes: int = parameters[key]
    wiring = NETWORKS[Network(parameters["model.network"])]
    refined = BASES[Basis(parameters.get("model.basis") or wiring.basis)].refined
    most = max(option for option in space.parameters[key].extremes() if isinstance(option, int))
    for _ in range(REFINEMENTS):
        most = refined(most)
    possible = wiring.capability.refines and refined(nodes) <= most
    return refined(nodes) if possible and generator.random() < 0.5 else nodes


@dataclass(frozen=True, slots=True)
class RandomTrial:
    """A source of random values, with the methods that parameters ask: `search_spaces.parameters.Trial`."""

    generator: Random

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:  # noqa: ARG002
        if not log:
            return self.generator.uniform(low, high)
        value = math.exp(self.generator.uniform(math.log(low), math.log(high)))
        return min(max(value, low), high)  # the exponential rounds

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            return min(math.floor(self.suggest_float(name, low, high + 1, log=True)), high)
        return self.generator.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ARG002
        return self.generator.choice(choices)


Vary = Callable[[Random, Space, str, Parameters], Any]

# What may change in mid-training. All else is the network, the data, or the course of the whole training.
MUTABLE: dict[str, Vary] = {
    "optim.lr": _varied,
    "optim.weight_decay": _varied,
    "optim.batch_size": _varied,
    "data.augment": _varied,
    "regularization.smoothness": _varied,
    "regularization.stochastic_depth": _varied,
    "regularization.noise": _varied,
    "model.scheme": _varied,
    "model.substeps": _varied,
    "model.nodes": _refined,
}
INTEGRATOR = ("model.scheme", "model.substeps", "model.nodes")  # not with search.pbt.integrator=false
