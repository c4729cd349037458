"""The problem that a sweep solves: space, experiment, and configurations to try first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.table import NETWORKS
from odenet.training.config import ExperimentConfig, depths_after, to_plain
from search_spaces import Space
from sweep.config.overrides import flat, override
from sweep.config.schema import AppConfig
from sweep.config.search_config import Objective, SchedulerKind
from sweep.errors import InputError
from sweep.records.best import Best, changed, provenance, read_best
from sweep.records.rows import TrialRow, ranked
from sweep.records.tables import read_rows
from sweep.tuning.arms import EqualTerms, check_arm
from sweep.tuning.population import check_population, generations
from sweep.tuning.samplers import check_sampler
from sweep.tuning.schedulers import build_scheduler, refinement_epochs

TIMING = ("refinement.count", "refinement.first", "refinement.interval")


# Keys of an experiment that a search sets itself, for each trial or all of them.
DECIDED = {
    "data.portion": "a search trains on train and is judged on val; `sweep final` retrains on train and val together",
    "search.more": "`sweep extend NAME` adds trials to a finished search; search.trials is how many a new one has",
    "training.seed": "each trial has a seed of its own, derived from search.seed",
}
# And those that a study does.
OF_A_STUDY = {
    "data.draw": "a study has the draws study.draws=[0,1,2]",
    "space.name": "a study has the spaces study.families=[resnet,continuous]",
    "space.shared": "a study has study.spaces=[full,shared]",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A space to search, and the experiment around which it is searched; `modules` are the user's own. `terms`: what a
    study's arm makes of each configuration."""

    space: Space
    experiment: ExperimentConfig
    modules: tuple[str, ...] = ()
    terms: EqualTerms | None = None

    def corners(self) -> list[ExperimentConfig]:
        """List the extreme experiments of the space. ValueError: one of them is not possible."""
        return [override(self.experiment, corner) for corner in self.space.corners()]

    def experiment_of(self, parameters: dict[str, Any]) -> ExperimentConfig:
        """Return the experiment of a configuration, on the terms of the study's arm."""
        experiment = override(self.experiment, parameters)
        return experiment if self.terms is None else self.terms.apply(experiment)

    def best(self, row: TrialRow) -> Best:
        """Turn a trial into a complete experiment with its provenance."""
        schedule = changed(row)
        parameters = schedule[0]["parameters"] if schedule else row.parameters
        experiment = self.experiment_of({**parameters, "training.seed": row.seed})
        return Best(experiment, provenance(row, self.space, self.modules), schedule)


def build_problem(config: AppConfig) -> Problem:
    """Parse what a configuration asks for. Schedulers that refine take the timing of refinements over.

    Raises:
        ValueError: the user asks for a timing, too, or the scheduler or the sampler does not go with the space.
    """
    space, experiment, search = config.space.build(), config.experiment, config.search
    if search.scheduler in (SchedulerKind.depth_asha, SchedulerKind.pbt):
        given = [key for key in {**flat(config.space.fix), **flat(config.space.range)} if key in TIMING]
        given += [f"refinement.{key}" for key in ("at", "count") if getattr(experiment.refinement, key)]
        if given:
            raise ValueError(
                f"{given[0]} is set, but search.scheduler={search.scheduler.value} decides when networks are refined; "
                "leave it out."
            )
        space = space.without([key for key in TIMING if key in space.entries])
    if search.scheduler is SchedulerKind.depth_asha:
        experiment = override(experiment, {"refinement.at": refinement_epochs(search, config.training.epochs)})
    if search.scheduler is SchedulerKind.pbt:
        check_population(search, space)
        generations(search, config.training.epochs)
    else:
        build_scheduler(search, config.training.epochs)
    check_sampler(search, space)
    check_arm(config.study.arm, search, experiment, list(space.entries))
    return Problem(space, experiment, tuple(config.modules))


def check_decided(config: AppConfig, decided: dict[str, str]) -> None:
    """Raise InputError where a key is set that would have no effect, because what runs decides it."""
    given, default = (flat(to_plain(one)) for one in (config, AppConfig()))
    for key, why in decided.items():
        if given[key] != default[key]:
            raise InputError(f"{key}={given[key]} would have no effect: {why}. Leave it out.")


def check_objectives(config: AppConfig, experiment: ExperimentConfig) -> None:
    """Raise ValueError where robustness is asked for and such an experiment has nothing to be robust against."""
    if Objective.robustness in config.search.objectives and not _has_others(config, experiment):
        network, scheme = experiment.model.network, depths_after(experiment)[-1].course.scheme
        raise ValueError(
            f"search.objectives has robustness, but model.network={network.value} with model.scheme={scheme.value} has "
            "no other manifestation than the trained one; leave it out, or add to evaluate.schemes or "
            "evaluate.step_factors."
        )


def _has_others(config: AppConfig, experiment: ExperimentConfig) -> bool:
    """Tell whether the free manifestations would have a scheme or number of steps that was not trained."""
    trained = depths_after(experiment)[-1].course
    possible = NETWORKS[experiment.model.network].capability.manifestations
    schemes = set(config.evaluate.schemes) & set(possible) - {trained.scheme}
    steps = {max(1, round(factor * trained.steps)) for factor in config.evaluate.step_factors} - {trained.steps}
    return bool(schemes) or (bool(steps) and trained.scheme not in ADAPTIVE)


def copies_of_enqueued(config: AppConfig) -> dict[str, str]:
    """Return the content of the files to enqueue by the names of their copies in the run directory. InputError: one
    cannot be read."""
    try:
        named = enumerate(config.search.enqueue)
        return {_copy(index, name): Path(name).read_text(encoding="utf-8") for index, name in named}
    except (OSError, ValueError) as error:
        raise InputError(f"search.enqueue={config.search.enqueue}: {error}") from error


def _copy(index: int, name: str) -> str:
    return f"enqueued-{index}{Path(name).suffix}"


def enqueued(config: AppConfig, space: Space, store: Path | None = None) -> list[dict[str, Any]]:
    """Read the configurations to try first from best.yaml and trials.csv files, and check each against the space.

    `store`: the directory with the copies that the sweep, or its study, began with; those of before have none.

    Raises:
        InputError: a file cannot be read or has none, or a configuration is not in the space.
    """
    found = []
    for index, name in enumerate(config.search.enqueue):
        copy = None if store is None else store / _copy(index, name)
        try:
            for parameters in _configurations(copy if copy and copy.exists() else Path(name)):
                mine = {key: value for key, value in parameters.items() if key in space.entries}
                space.validate(mine)
                found.append(mine)
        except (InputError, ValueError) as error:
            raise InputError(f"search.enqueue={name}: {error}") from error
    return found


def _configurations(file: Path) -> list[dict[str, Any]]:
    """Read the varied parameters of a best.yaml, or of the done trials of a trials.csv, the best first."""
    if file.suffix in (".yaml", ".yml"):
        return [read_best(file).provenance.get("parameters", {})]
    rows = ranked(read_rows(file, TrialRow))
    if not rows:
        raise InputError(f"{file} has no trial that ended done.")
    return [row.parameters for row in rows]
