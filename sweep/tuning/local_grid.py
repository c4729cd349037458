"""The configurations around a selected one: its learning rate and weight decay, integrator steps and batch size times
given factors."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from odenet.training.config import ExperimentConfig, to_plain
from sweep.config.overrides import flat, override
from sweep.config.sensitivity_config import SensitivityConfig

LR, WEIGHT_DECAY, STEPS, BATCH = "optim.lr", "optim.weight_decay", "model.substeps", "optim.batch_size"
KEYS = (LR, WEIGHT_DECAY, STEPS, BATCH)


@dataclass(frozen=True, slots=True)
class LocalGrid:
    """The values of KEYS that are tried, those of the selected configuration first; and why some are not."""

    points: list[dict[str, Any]]
    left_out: list[str]


def local_grid(config: SensitivityConfig, experiment: ExperimentConfig) -> LocalGrid:
    """List the configurations around this experiment; everything else of it, its epochs too, stays."""
    plain = flat(to_plain(experiment))
    center = {key: plain[key] for key in KEYS}
    points, left_out = [center], list[str]()
    for factors in _factors(config):
        try:
            point = {key: _times(key, value, factors.get(key, 1.0)) for key, value in center.items()}
            override(experiment, point)
        except ValueError as error:
            left_out.append(f"{' and '.join(f'{key} x {factor:g}' for key, factor in factors.items())}: {error}")
            continue
        points += [] if point in points else [point]
    if center[WEIGHT_DECAY] == 0:
        left_out.append(f"{WEIGHT_DECAY}: it is 0, and so is every multiple of it.")
    return LocalGrid(points, left_out)


def most_trainings(config: SensitivityConfig) -> int:
    """Count the trainings, seeds included, where every neighbour is possible."""
    others = sum(any(factor != 1 for factor in factors.values()) for factors in _factors(config))
    return config.center_seeds + others * config.seeds


def _factors(config: SensitivityConfig) -> Iterator[dict[str, float]]:
    """Yield what is multiplied by what: on the grid two keys, else one."""
    lr, decay = (list(dict.fromkeys([*factors, 1.0])) for factors in (config.lr_factors, config.weight_decay_factors))
    if config.grid:
        yield from ({LR: one, WEIGHT_DECAY: other} for one, other in product(sorted(lr), sorted(decay)))
    else:
        yield from ({LR: one} for one in sorted(lr))
        yield from ({WEIGHT_DECAY: one} for one in sorted(decay))
    yield from ({STEPS: one} for one in sorted(config.step_factors))
    yield from ({BATCH: one} for one in sorted(config.batch_factors))


def _times(key: str, value: float, factor: float) -> float | int:
    """Multiply a value, and keep a whole number whole. ValueError: it would be none, or below 1."""
    found = value * factor
    if not isinstance(value, int):
        return found
    if found < 1 or found != int(found):
        raise ValueError(f"{key} would be {found:g}, and is a whole number from 1 on.")
    return int(found)
