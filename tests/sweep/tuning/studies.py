"""The studies that tests of proposals and of their file ask and tell."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search_spaces import SPACES, Float, Int, Space, fixed
from sweep.config.search_config import Objective, SamplerKind, SearchConfig
from sweep.records.outcome import Outcome
from sweep.records.run_directory import JOURNAL
from sweep.tuning.ask_and_tell import Proposal, Proposals
from sweep.tuning.optuna_study import open_study

CHANCE = 0.1
SPACE = SPACES["continuous"]
NUMBERS = Space({"net": fixed("n"), "x": Float(0, 1), "n": Int(1, 9)})


def proposals(directory: Path, space: Space = SPACE, enqueued: Any = (), **config: Any) -> Proposals:
    directory.mkdir(exist_ok=True)
    config = {"sampler": SamplerKind.random, **config}
    search = SearchConfig(**config)
    study = open_study(directory / JOURNAL, "x", search.objectives)
    return Proposals(space, search, study, CHANCE, enqueued)


def recorded(directory: Path) -> list[FrozenTrial]:
    """The study as another process reads it from the file, by Optuna alone."""
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    return optuna.load_study(study_name="x", storage=storage).trials


def accuracy(value: float) -> dict[Objective, float]:
    return {Objective.accuracy: value}


def what(proposal: Proposal) -> tuple:
    """All of a proposal but its id, which is drawn anew."""
    return (proposal.number, list(proposal.parameters.items()), proposal.proposed_by)


def go_on(one: Proposals, upto: int) -> None:
    """Trials one after another; each third waits and goes on later, some diverge, some are stopped early."""
    while len(one) < upto:
        number = one.ask().number
        one.report(number, 1, 0.1 + 0.02 * number)
        if number % 3 == 0:
            one.tell(number, Outcome.paused)
        if number % 4 == 3:
            one.tell(number - 3, Outcome.running)
        outcome = [Outcome.done, Outcome.diverged, Outcome.pruned, Outcome.done, Outcome.done][number % 5]
        if number % 3:
            one.tell(number, outcome, accuracy(0.1 + 0.02 * number), {"parameters": number - 9.0})
