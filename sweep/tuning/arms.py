"""What the arm of a study makes of a sampled configuration: its epochs, or its widths.

Torch is loaded only where an arm asks for it, because it is a network's own operations and weights that are counted.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from odenet.data.subsets import Splits
from odenet.networks.model_config import ModelConfig, stage_depths
from odenet.training.config import ExperimentConfig, from_plain, to_plain
from sweep.config.overrides import override
from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.config.study_config import Arm, StudyConfig

WITHIN = 0.05  # how far parameters may be from those asked for
DECIDED_BY_ARM = {
    Arm.equal_compute: ("training.epochs", "refinement.at"),
    Arm.equal_parameters: ("model.width", "model.final_width"),
}
MOST_EPOCHS = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of the data that decides the cost of a training: images in an epoch, classes, (C, H, W) of an image."""

    images: int
    classes: int
    of_image: tuple[int, int, int]

    @classmethod
    def of(cls, splits: Splits) -> "Shape":
        _, channels, height, width = splits.train.pixels_BCHW.shape
        return cls(len(splits.train), splits.classes, (channels, height, width))


@dataclass(frozen=True, slots=True)
class EqualTerms:
    """The terms on which every configuration is trained; `amount` is the GFLOP of a training, or parameters."""

    arm: Arm
    amount: float
    shape: Shape

    def apply(self, experiment: ExperimentConfig) -> ExperimentConfig:
        """Return the experiment with the epochs that the compute pays for, or the widths that give the parameters."""
        if self.arm is Arm.equal_compute:
            return with_compute(experiment, self.amount, self.shape)
        return with_parameters(experiment, round(self.amount), self.shape)


def equal_terms(study: StudyConfig, splits: Splits) -> EqualTerms | None:
    """Return the terms of a member of a study, whose amount is known; None for equal epochs."""
    amount = {Arm.equal_compute: study.gflops, Arm.equal_parameters: study.parameters}.get(study.arm)
    return None if amount is None else EqualTerms(study.arm, float(amount), Shape.of(splits))


def check_arm(arm: Arm, search: SearchConfig, experiment: ExperimentConfig, searched: list[str]) -> None:
    """Raise ValueError where a search cannot be held to the arm."""
    if arm is Arm.equal_epochs:
        return
    if search.scheduler is not SchedulerKind.none:
        raise ValueError(
            f"study.arm={arm.value} with search.scheduler={search.scheduler.value}: trials are compared at epochs, "
            "which would be other computation for each; use search.scheduler=none."
        )
    taken = [key for key in DECIDED_BY_ARM[arm] if key in searched]
    if arm is Arm.equal_compute and experiment.refinement.at is not None:
        taken.append("refinement.at")
    if taken:
        raise ValueError(f"study.arm={arm.value} decides what {taken[0]} says; leave it out.")


# --- computation ------------------------------------------------------------------------------------------------------


def depth_gflops(experiment: ExperimentConfig, shape: Shape) -> list[float]:
    """Count the GFLOP of a training step for one image before any refinement, after each, and after the coarsening."""
    refinement = experiment.refinement
    return list(_counted(_written(experiment.model), refinement.times, refinement.coarsen is not None, shape))


def epoch_gflops(experiment: ExperimentConfig, shape: Shape) -> list[float]:
    """Return the GFLOP of each epoch, with every refinement and the coarsening on its epoch."""
    epochs, costs = experiment.training.epochs, iter(depth_gflops(experiment, shape))
    changes = {*experiment.refinement.due(epochs), experiment.refinement.coarsens(epochs)}
    found, per_image = [], next(costs)
    for epoch in range(epochs):
        if epoch in changes:
            per_image = next(costs)
        found.append(per_image * shape.images)
    return found


def _written(model: ModelConfig) -> str:
    return json.dumps(to_plain(model), sort_keys=True)


@lru_cache(maxsize=4096)
def _counted(model: str, refinements: int, coarsens: bool, shape: Shape) -> tuple[float, ...]:
    from odenet.networks.model import build_model
    from odenet.networks.refinement import coarsen, refine
    from odenet.training.cost import train_gflops

    network = build_model(_read(model), channels=shape.of_image[0], classes=shape.classes)
    costs = [train_gflops(network, shape.of_image)]
    for change in [refine] * refinements + [coarsen] * coarsens:
        change(network)
        costs.append(train_gflops(network, shape.of_image))
    return tuple(costs)


def _read(model: str) -> ModelConfig:
    return from_plain(ModelConfig, json.loads(model))


def with_compute(experiment: ExperimentConfig, gflops: float, shape: Shape) -> ExperimentConfig:
    """Return the experiment with the most epochs that `gflops` pay for, refinements at the same fractions of them; at
    least one, or the fewest in which all refinements find room."""
    affordable = int(gflops / (min(depth_gflops(experiment, shape)) * shape.images))
    for epochs in range(min(affordable, MOST_EPOCHS), 0, -1):
        made = _lasting(experiment, epochs)
        if made is not None and sum(epoch_gflops(made, shape)) <= gflops:
            return made
    return next(made for epochs in range(1, MOST_EPOCHS) if (made := _lasting(experiment, epochs)) is not None)


def _lasting(experiment: ExperimentConfig, epochs: int) -> ExperimentConfig | None:
    """Return the experiment with so many epochs; None where its refinements do not fit into them."""
    try:
        return replace(experiment, training=replace(experiment.training, epochs=epochs))
    except ValueError:
        return None


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters_of(experiment: ExperimentConfig, shape: Shape) -> int:
    """Count the weights of the network as it ends, after its last refinement."""
    return _weights(_written(experiment.model), experiment.refinement.times, shape)


@lru_cache(maxsize=4096)
def _weights(model: str, refinements: int, shape: Shape) -> int:
    from odenet.networks.model import build_model

    config, depths = _read(model), stage_depths(_read(model))
    for _ in range(refinements):
        depths = [depth.refined() for depth in depths]
    return build_model(config, channels=shape.of_image[0], classes=shape.classes, depths=depths).parameter_count


def with_parameters(experiment: ExperimentConfig, parameters: int, shape: Shape) -> ExperimentConfig:
    """Return the experiment with widths that bring its network next to `parameters`.

    Widths that double from stage to stage are kept where they come within `WITHIN`; else the last stage has a width of
    its own. The nearest is returned where none comes so near.
    """
    guess = experiment.model.width
    for _ in range(2):  # weights grow about by the square of the width
        found = next((one for width in _around(guess) if (one := _wide(experiment, width))), experiment)
        guess = max(1, round(found.model.width * (parameters / parameters_of(found, shape)) ** 0.5))
    widths = list(_around(guess))

    def off(one: ExperimentConfig) -> float:
        return abs(parameters_of(one, shape) / parameters - 1)

    doubled = [one for width in widths if (one := _wide(experiment, width)) is not None]
    best = min(doubled, key=off, default=experiment)
    if off(best) <= WITHIN:
        return best
    mixed = [one for width in widths for one in _last_stages(experiment, width, parameters, shape)]
    return min([best, *mixed], key=off)


def _around(width: int) -> Iterator[int]:
    """Yield widths, the nearest first; networks that are halved or grouped cannot have every one."""
    yield from (width + step for step in (0, -1, 1, -2, 2) if width + step >= 1)


def _wide(experiment: ExperimentConfig, width: int, final_width: int | None = None) -> ExperimentConfig | None:
    """Return the experiment with these widths; None where its network cannot have them."""
    try:
        return override(experiment, {"model.width": width, "model.final_width": final_width})
    except ValueError:
        return None


def _last_stages(experiment: ExperimentConfig, width: int, parameters: int, shape: Shape) -> Iterator[ExperimentConfig]:
    """Yield the two experiments of this width whose last stage brings them next below and above `parameters`."""
    common = 4 * width * experiment.model.widen
    possible = [one for final in range(common // 2, 2 * common) if (one := _wide(experiment, width, final))]
    place = bisect_left(possible, parameters, key=lambda one: parameters_of(one, shape))
    yield from possible[max(0, place - 1) : place + 1]
