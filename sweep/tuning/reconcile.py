"""Make a sweep's Optuna study agree with its ledger, which is believed before it: a loss of power, or a copy that was
brought back, may have left the study behind or ahead."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import Space
from sweep.errors import InputError
from sweep.records.rows import CurveRow, TrialRow
from sweep.tuning.ask_and_tell import Proposal, recorded, written_out
from sweep.tuning.optuna_study import OptunaStudy, rewritten


def reconciled(study: OptunaStudy, rows: Sequence[TrialRow], space: Space) -> OptunaStudy:
    """Add to a study in a file the trials of the ledger that it lacks, and open again what it calls ended and the
    ledger does not. How each stands, it is told when the sweep goes on.

    Raises:
        InputError: study and ledger know different trials by one number, or both lack one.
        StorageError: the study cannot be written.
    """
    trials, ledger = study.trials(), {row.number: row for row in rows}
    for trial in trials:
        _check_same(study, trial, ledger.get(trial.number))
    ahead = [trial for trial in trials if trial.state.is_finished() and not _has_ended(ledger.get(trial.number))]
    if ahead:
        opened = {trial.number: _opened_again(trial) for trial in ahead}
        study = rewritten(study, [opened.get(trial.number, trial) for trial in trials])
        study.notices.append(f"{_listed(opened)} had ended in {study.file}, not in the ledger: they go on.")
    missing = sorted(number for number in ledger if number >= len(trials))
    for place, number in enumerate(missing, start=len(trials)):
        if place != number:
            raise InputError(
                f"{study.path} is damaged: it lacks trial {place}, and so does the ledger, which has trial {number}. "
                "Bring back a copy, or give the sweep another name."
            )
        study.add(_from_ledger(ledger[number], space))
    if missing:
        study.notices.append(f"{study.file} lacked {_listed(missing)} of the ledger: added again.")
    return study


def check_known(study: OptunaStudy, curves: Sequence[CurveRow]) -> None:
    """Raise InputError where the curves have epochs of a trial that the reconciled study, and so the ledger, lacks:
    nothing says what it trained."""
    known = len(study.trials())
    unknown = sorted({curve.number for curve in curves if curve.number >= known})
    if unknown:
        raise InputError(
            f"curves.csv has epochs of {_listed(unknown)}, which neither ledger.csv nor {study.file} knows. Bring back "
            "a copy of one of them; or begin a new sweep, which can try the same configurations first by "
            "search.enqueue=[trials.csv] with the path of this one's."
        )


def _check_same(study: OptunaStudy, trial: FrozenTrial, row: TrialRow | None) -> None:
    if row is not None and trial.user_attrs.get("trial_id") != row.trial_id:
        raise InputError(
            f"{study.path} is damaged: its trial {row.number} is not {row.trial_id}, that of the ledger. Bring back a "
            "copy; or move it away, and `sweep resume` writes it anew from the ledger."
        )


def _has_ended(row: TrialRow | None) -> bool:
    return row is not None and row.outcome.ended


def _opened_again(trial: FrozenTrial) -> FrozenTrial:
    attributes = {name: value for name, value in trial.user_attrs.items() if name != "outcome"}
    return create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )


def _from_ledger(row: TrialRow, space: Space) -> FrozenTrial:
    """Build the record of a trial that was asked. One that is not in the space, which may have changed, has no
    parameters of its own for Optuna."""
    proposal = Proposal(row.number, row.trial_id, row.parameters, row.proposed_by)
    inside = space.contains(row.parameters)
    return recorded(proposal, written_out(space, row.parameters) if inside else create_trial(state=TrialState.RUNNING))


def _listed(numbers: Sequence[int] | dict[int, FrozenTrial]) -> str:
    return f"trial {', '.join(map(str, numbers))}" if len(numbers) <= 5 else f"{len(numbers)} trials"
