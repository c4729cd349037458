"""Optuna's samplers, as this search uses them: each seeded anew for every trial, and refused where it cannot work."""

import warnings
from collections.abc import Mapping
from itertools import islice
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)

from odenet.seeding import derive
from search_spaces import Space
from sweep.config.search_config import SamplerKind, SchedulerKind, SearchConfig

LARGEST_GRID = 10_000  # all of it is kept in memory

LEARNING = (SamplerKind.tpe, SamplerKind.gp, SamplerKind.cmaes, SamplerKind.nsga2)  # from what trials were told

# They learn from complete trials only, not from those that were stopped early.
_COMPLETE_ONLY = (SamplerKind.gp, SamplerKind.cmaes, SamplerKind.nsga2)


def sampler_for(config: SearchConfig, number: int, kind: SamplerKind | None = None) -> BaseSampler:
    """Build a sampler seeded by (sweep seed, trial number): random proposals depend on nothing else, others on the
    history.

    `kind` is the sweep's own where it is None. There is none for a grid, which is listed and not sampled.
    """
    seed = derive(config.seed, "sampler", number) % 2**32
    match kind or config.sampler:
        case SamplerKind.random:
            return RandomSampler(seed=seed)
        case SamplerKind.tpe:
            with warnings.catch_warnings():  # group is marked experimental; it is what conditional spaces need
                warnings.simplefilter("ignore", ExperimentalWarning)
                return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        case SamplerKind.gp:
            return GPSampler(seed=seed)
        case SamplerKind.cmaes:
            return CmaEsSampler(seed=seed)
        case SamplerKind.nsga2:
            return NSGAIISampler(seed=seed, population_size=population_size(config.trials))
        case SamplerKind.grid:
            raise AssertionError("A grid is listed, not sampled.")


def given(parameters: Mapping[str, Any], sampler: BaseSampler) -> BaseSampler:
    """Build a sampler that proposes these parameters and learns from them as if `sampler` had chosen them.

    CMA-ES does not: it updates its distribution by its own samples only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PartialFixedSampler(dict(parameters), sampler)


def population_size(trials: int) -> int:
    """Choose NSGA-II's population for at least five generations; Optuna's 50 would leave a small sweep at random."""
    return min(50, max(4, trials // 5))


def check_sampler(config: SearchConfig, space: Space) -> None:
    """Raise ValueError where the sweep's sampler cannot search this space, stop its trials or keep its limits."""
    reason = _refusal(config, space)
    if reason is not None:
        raise ValueError(f"search.sampler={config.sampler.value}: {reason}")


def _refusal(config: SearchConfig, space: Space) -> str | None:
    if config.scheduler is SchedulerKind.depth_asha and config.sampler in _COMPLETE_ONLY:
        return (
            "it learns from trials that reach the last epoch, and with search.scheduler=depth_asha few do; "
            "use random, tpe or grid."
        )
    match config.sampler:
        case SamplerKind.gp:
            return _refuse_gp(space)
        case SamplerKind.cmaes:
            return _refuse_cmaes(space, list(config.constraints.limits()))
        case SamplerKind.grid:
            return _refuse_grid(space)
    return None


def _refuse_gp(space: Space) -> str | None:
    if not space.conditional:
        return None
    return (
        f"{', '.join(space.conditional)} would be proposed at random, because the Gaussian process knows no "
        f"parameters that are used only under a condition; fix {', '.join(space.decisive)}, or use random, tpe or "
        "nsga2."
    )


def _refuse_cmaes(space: Space, limits: list[str]) -> str | None:
    if limits:
        named = ", ".join(f"search.constraints.{name}" for name in limits)
        return f"CMA-ES does not learn from limits ({named}); remove them, or use random, tpe, gp or nsga2."
    refused = list(dict.fromkeys([*space.categorical, *space.conditional]))
    if not refused:
        return None
    return (
        f"{', '.join(refused)} would be proposed at random, because CMA-ES knows only numbers that every trial uses; "
        "fix them, or use random, tpe or nsga2."
    )


def _refuse_grid(space: Space) -> str | None:
    try:
        size = sum(1 for _ in islice(space.grid(), LARGEST_GRID + 1))
    except ValueError as error:
        return f"{error} Or use random or tpe."
    if size <= LARGEST_GRID:
        return None
    return (
        f"the grid of {', '.join(space.parameters)} has more than {LARGEST_GRID:,} points; fix or narrow some of "
        "them, or use random or tpe."
    )
