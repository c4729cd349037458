"""Keep an Optuna study by trial numbers, in memory or in a file that a kill, a full disk or a loss of power leaves
readable."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.config.search_config import Objective
from sweep.errors import InputError
from sweep.records.files import append_line, copy_file, cut_half_line, cut_sentence, storing, sync, whole_lines
from sweep.records.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a trial as Optuna is told it. `constraints` are measured values minus limits."""

    outcome: Outcome
    state: TrialState
    values: Sequence[float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, float]:
        """The constraints as Optuna keeps them among a trial's system attributes."""
        return {f"constraints:{name}": excess for name, excess in self.constraints.items()}


class OptunaStudy:
    """A study of these objectives, begun or gone on with. It works on its storage, because to make an Optuna Trial is
    to sample."""

    def __init__(
        self, storage: BaseStorage, name: str, objectives: Sequence[Objective], path: Path | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if name in _names(storage):  # Optuna's load_if_exists adds a line each time
            self.optuna = optuna.load_study(storage=storage, study_name=name)
        else:
            directions = [_direction(objective) for objective in objectives]
            self.optuna = optuna.create_study(storage=storage, study_name=name, directions=directions)
        self._storage, self._id, self.path = storage, storage.get_study_id_from_name(name), path
        self.objectives = objectives
        self.notices: list[str] = []  # what was cut off or written again, to be said

    @classmethod
    def in_memory(cls, objectives: Sequence[Objective]) -> "OptunaStudy":
        return cls(InMemoryStorage(), "memory", objectives)

    @property
    def file(self) -> str:
        """The name of its file."""
        return "" if self.path is None else self.path.name

    def trial(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._key(number))

    def trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial) -> None:
        """Add a whole trial at once: in a file it is one line, which is on the disk when this returns.

        A number given away twice, after a power failure, would find the other trial's checkpoints. What is lost of
        reports and endings is told again.
        """
        self.optuna.add_trial(trial)
        if self.path is not None:
            sync(self.path)

    def report(self, number: int, step: int, value: float) -> None:
        self._storage.set_trial_intermediate_value(self._key(number), step, value)

    def tell(self, number: int, told: Standing) -> None:
        """Write how a trial stands, the state last: a trial whose ending a kill cut off still runs, and is told
        again."""
        key = self._key(number)
        if told.state is not TrialState.RUNNING:
            self._storage.set_trial_user_attr(key, "outcome", told.outcome.value)
        for name, excess in told.attributes.items():
            self._storage.set_trial_system_attr(key, name, excess)
        if told.state is not self.trial(number).state:
            self._storage.set_trial_state_values(key, told.state, told.values)

    def _key(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def open_study(path: Path, name: str, objectives: Sequence[Objective]) -> OptunaStudy:
    """Open the study of this name in its file, and cut off what a kill or a loss of power left unfinished.

    Raises:
        InputError: the file is damaged, or holds another study.
        StorageError: it cannot be written.
    """
    with storing(path, 0):
        _check_end(path)
        removed = cut_half_line(path, whole_lines)
        backend = _Backend(path)
    try:
        _check_last_line(path)
        storage = JournalStorage(backend)
        names = _names(storage)
        if names not in ([], [name]):
            raise InputError(f"{path} holds the study of {', '.join(names)}, not of {name}: choose another directory.")
        study = OptunaStudy(storage, name, objectives, path)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    directions = study.optuna.directions
    if directions != [_direction(objective) for objective in objectives]:
        raise InputError(
            f"{path} holds a study to {', '.join(direction.name.lower() for direction in directions)}, which is not "
            f"search.objectives={[objective.value for objective in objectives]}: give the sweep another name."
        )
    if removed:
        study.notices.append(cut_sentence(path, removed))
    return study


def rewritten(study: OptunaStudy, trials: Sequence[FrozenTrial]) -> OptunaStudy:
    """Write the file of a study anew with these trials, keep a copy of what it was, and open it. StorageError: it
    cannot be written."""
    assert study.path is not None
    path, name = study.path, study.optuna.study_name
    fresh = path.with_name(f".{path.name}.anew")
    fresh.unlink(missing_ok=True)
    begun = OptunaStudy(JournalStorage(_Backend(fresh)), name, study.objectives, fresh)
    for trial in trials:
        begun.optuna.add_trial(trial)
    copy_file(path, path.with_name(f"{path.name}.older"))
    copy_file(fresh, path)
    fresh.unlink()
    opened = open_study(path, name, study.objectives)
    opened.notices = study.notices
    return opened


# What Optuna raises, and what `OptunaStudy` does, where a journal says what no sweep wrote.
UNREADABLE = (
    *(AssertionError, AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError),
    optuna.exceptions.OptunaError,
)


def damaged(path: Path, error: Exception) -> InputError:
    """Build the error for a journal that says what no sweep wrote."""
    return InputError(
        f"{path} is damaged ({error!r}){_first_damage(path)}: bring back a copy; or move it away, and `sweep resume` "
        "writes the study anew from the ledger."
    )


def _first_damage(path: Path) -> str:
    """Name the first line that holds no JSON, where there is one."""
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return f" in line {number}"
    return ""


def _names(storage: BaseStorage) -> list[str]:
    return [study.study_name for study in storage.get_all_studies()]


def _direction(objective: Objective) -> StudyDirection:
    return StudyDirection.MINIMIZE if objective.minimized else StudyDirection.MAXIMIZE


class _Backend(JournalFileBackend):
    """Optuna's journal without its lock file, which a killed driver leaves behind: one driver writes, under the sweep's
    own lock. A line is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        append_line(self.path, "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs))


def _check_end(path: Path) -> None:
    """Raise InputError where what would be cut off is no beginning of a line: the file is not ours."""
    content = path.read_bytes() if path.is_file() else b""
    rest = content[whole_lines(content) :].strip(b"\0")
    if rest[:1] not in (b"", b"{"):
        raise damaged(path, ValueError(f"{rest[:20]!r} begins no line"))


def _check_last_line(path: Path) -> None:
    """Parse the last line, because Optuna overlooks one that is none of its own."""
    lines = path.read_bytes().splitlines()
    if lines:
        json.loads(lines[-1])
