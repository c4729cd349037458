"""Optuna behind Ray Tune's Searcher. Ray's own OptunaSearch tells Optuna that stopped trials are complete, leaves NaN
trials running for ever and loses trials on restore; this one keeps the study as the truth.

Only the driver touches the study.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from odenet.config import ExperimentConfig, to_plain
from odenet.seeding import derive
from search_spaces import Space
from sweep.config import SamplerKind, SearchConfig, override
from sweep.outcome import STATES, Outcome

STUDY_FILE = "study.journal"


def open_study(directory: Path, name: str) -> optuna.Study:
    """The sweep's study, in a journal file in its run directory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(directory / STUDY_FILE)))
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


def sampler_for(config: SearchConfig, number: int) -> BaseSampler:
    """A sampler seeded by (sweep seed, trial number): random proposals depend on nothing else, TPE's on the history."""
    seed = derive(config.seed, "sampler", number) % 2**32
    if config.sampler is SamplerKind.random:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # group is marked experimental; it is what conditional spaces need
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def ending(result: dict[str, Any], failed: bool) -> tuple[Outcome, str]:
    """How a trial ended, from its last result and whether Ray calls it an error."""
    if "outcome" in result:
        return Outcome[result["outcome"]], result.get("reason", "")
    if failed:
        return Outcome.worker_lost, "its worker process ended, and the retries with it"
    return Outcome.pruned, f"stopped by the scheduler after epoch {result.get('epoch', 0)}"


class StatelessSearcher(Searcher):
    """A searcher of which Ray's snapshots keep nothing: what it knows is on disk already."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class OptunaSearcher(StatelessSearcher):
    """Asks for `config.trials` proposals, each a complete experiment, and tells Optuna how each ended."""

    def __init__(
        self, study: optuna.Study, space: Space, experiment: ExperimentConfig, config: SearchConfig, chance: float
    ) -> None:
        """`chance` is the accuracy of guessing: what Optuna learns of a trial that diverged."""
        super().__init__()
        self._study, self._space, self._experiment, self._config = study, space, experiment, config
        self._chance = chance
        self._asked = 0
        self.trials: dict[str, Trial] = {}  # by Ray's trial id
        self._last: dict[str, dict[str, Any]] = {}  # results: Ray hands none over with an error
        self._reported: dict[str, int] = {}  # epochs: those since the last checkpoint come again after a lost worker

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if self._asked >= self._config.trials:
            return Searcher.FINISHED
        self._asked += 1
        self._study.sampler = sampler_for(self._config, len(self._study.get_trials(deepcopy=False)))
        trial = self._study.ask()
        params = self._space.suggest(trial)
        trial.set_user_attr("trial_id", trial_id)
        self.trials[trial_id] = trial
        experiment = override(
            self._experiment, {**params, "training.seed": trial_seed(self._config.seed, trial.number)}
        )
        return {"number": trial.number, "parameters": params, "experiment": to_plain(experiment)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._last[trial_id] = result
        if "objective" in result and result["epoch"] > self._reported.get(trial_id, 0):
            self._reported[trial_id] = result["epoch"]
            self.trials[trial_id].report(result["objective"], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result:
            self.on_trial_result(trial_id, result)
        result = self._last.pop(trial_id, {})
        self.tell(trial_id, ending(result, error)[0], result.get("objective"))

    def tell(self, trial_id: str, outcome: Outcome, objective: float | None) -> None:
        """Ends a trial in the study, once: what is already told stays."""
        trial, states = self.trials[trial_id], STATES[outcome]
        if self._study.get_trials(deepcopy=False)[trial.number].state.is_finished():
            return
        trial.set_user_attr("outcome", outcome.value)
        state = TrialState[states.optuna]
        value = self._chance if states.at_chance else objective
        self._study.tell(trial, value if state is TrialState.COMPLETE else None, state)

    def end_running(self, outcome: Outcome) -> None:
        """Ends what still runs in the study."""
        for trial_id in self.trials:
            self.tell(trial_id, outcome, None)


def trial_seed(sweep_seed: int, number: int) -> int:
    """The training seed of a trial: each its own, so that no configuration is judged on a lucky one alone."""
    return derive(sweep_seed, "trial", number) % 2**31


Told = dict[int, tuple[Outcome, float | None]]  # job number -> how it ended, its objective


class ListSearcher(StatelessSearcher):
    """Runs given jobs: a first list, then those that `follow_up` makes of how the first ended."""

    def __init__(self, first: list[dict[str, Any]], follow_up: Callable[[Told], list[dict[str, Any]]]) -> None:
        super().__init__()
        self._waiting, self._follow_up = list(first), follow_up
        self._running: dict[str, int] = {}
        self._told: Told = {}
        self._followed = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if not self._waiting and not self._followed:
            if self._running:
                return None  # asked again later
            self._waiting, self._followed = self._follow_up(self._told), True
        if not self._waiting:
            return Searcher.FINISHED
        job = self._waiting.pop(0)
        self._running[trial_id] = job["number"]
        return job

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        outcome, _ = ending(result or {}, error)
        self._told[self._running.pop(trial_id)] = (outcome, (result or {}).get("objective"))


class ChainSearcher(StatelessSearcher):
    """Several searchers one after another; while one waits for results, the next is asked already. Each job says in
    `batch` whose it is."""

    def __init__(self, searchers: list[Searcher]) -> None:
        super().__init__()
        self._searchers = searchers
        self._finished: set[int] = set()
        self._batch: dict[str, int] = {}  # by Ray's trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        for index in [index for index in range(len(self._searchers)) if index not in self._finished]:
            job = self._searchers[index].suggest(trial_id)
            if isinstance(job, dict):
                self._batch[trial_id] = index
                return {**job, "batch": index}
            if job == Searcher.FINISHED:
                self._finished.add(index)
        return Searcher.FINISHED if len(self._finished) == len(self._searchers) else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searchers[self._batch[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._searchers[self._batch.pop(trial_id)].on_trial_complete(trial_id, result, error)
