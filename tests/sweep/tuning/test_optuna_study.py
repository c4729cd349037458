"""The file of a study: whole wherever a kill or a full disk cut it, refused where it is damaged."""

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search_spaces import Choice, Float, Space, fixed
from sweep.config.search_config import Objective, SamplerKind, SearchConfig
from sweep.errors import InputError, StorageError
from sweep.records.outcome import Outcome
from sweep.records.run_directory import JOURNAL
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from tests.sweep.tuning.studies import CHANCE, NUMBERS, accuracy, go_on, proposals, recorded, what


def a_sweep(directory: Path) -> Proposals:
    """Two trials: one waited, went on and is done; the other is stopped early."""
    one = proposals(directory, NUMBERS, sampler=SamplerKind.tpe)
    one.ask()
    one.report(0, 1, 0.3)
    one.tell(0, Outcome.paused)
    one.ask()
    one.tell(0, Outcome.running)
    one.report(1, 1, 0.2)
    one.tell(1, Outcome.pruned)
    one.tell(0, Outcome.done, accuracy(0.4), {"parameters": -1.0})
    return one


def test_wherever_a_kill_cuts_the_file_each_trial_is_whole_or_absent_and_the_sweep_goes_on(tmp_path):
    """Every byte that a kill can leave as the last one: nothing is lost but the line that was being written."""
    asked = [what(proposal) for proposal in a_sweep(tmp_path / "whole").asked]
    content = (tmp_path / "whole" / JOURNAL).read_bytes()
    first_line = content.index(b"\n") + 1
    seen = []
    for length in [*range(first_line, len(content), 5), len(content)]:
        directory = tmp_path / str(length)
        directory.mkdir()
        (directory / JOURNAL).write_bytes(content[:length])
        one = proposals(directory, NUMBERS, sampler=SamplerKind.tpe)
        assert [what(proposal) for proposal in one.asked] == asked[: len(one)]
        seen.append((len(one), *(one.outcome(number) for number in range(len(one)))))
        whole = content[:length].rfind(b"\n") + 1
        assert (directory / JOURNAL).read_bytes() == content[:whole]
    stages = list(dict.fromkeys(seen))
    running, paused, done, pruned = Outcome.running, Outcome.paused, Outcome.done, Outcome.pruned
    assert stages == [
        (0,), (1, running), (1, paused), (2, paused, running), (2, running, running), (2, running, pruned),
        (2, done, pruned),
    ]  # fmt: skip


def test_a_trial_whose_ending_was_cut_off_is_told_again(tmp_path):
    a_sweep(tmp_path)
    path = tmp_path / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    one = proposals(tmp_path, NUMBERS, sampler=SamplerKind.tpe)
    assert one.outcome(0) is Outcome.running
    one.tell(0, Outcome.done, accuracy(0.4), {"parameters": -1.0})
    trial = recorded(tmp_path)[0]
    assert (trial.state, trial.value, trial.constraints) == (TrialState.COMPLETE, 0.4, {"parameters": -1.0})
    one.ask()
    assert len(recorded(tmp_path)) == 3


def test_zeros_that_a_loss_of_power_left_are_cut_off_and_said(tmp_path):
    asked = [what(proposal) for proposal in a_sweep(tmp_path).asked]
    path = tmp_path / JOURNAL
    content = path.read_bytes()
    path.write_bytes(content + bytes(4096))
    study = open_study(path, "x", [Objective.accuracy])
    assert study.notices == [
        "study.journal ended in 4,096 bytes that a kill or a loss of power had left unfinished; they were cut off."
    ]
    assert path.read_bytes() == content
    assert [what(proposal) for proposal in proposals(tmp_path, NUMBERS).asked] == asked


def test_a_lock_that_a_killed_process_left_does_not_hold_up_the_sweep(tmp_path):
    a_sweep(tmp_path)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    proposals(tmp_path, NUMBERS).ask()
    assert len(recorded(tmp_path)) == 3


def test_going_on_writes_nothing_by_itself(tmp_path):
    a_sweep(tmp_path)
    before = (tmp_path / JOURNAL).read_bytes()
    proposals(tmp_path, NUMBERS)
    assert (tmp_path / JOURNAL).read_bytes() == before


@contextmanager
def room_for(path: Path, more: int) -> Iterator[None]:
    """Files of this process cannot grow above the length of this one and so many bytes: a disk that becomes full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


ACTS: dict[str, Callable[[Proposals], Any]] = {
    "asked": lambda one: one.ask(),
    "reported": lambda one: one.report(2, 1, 0.5),
    "told": lambda one: one.tell(2, Outcome.done, accuracy(0.5)),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("kind", [SamplerKind.random, SamplerKind.tpe], ids=lambda kind: kind.name)
def test_what_does_not_fit_on_the_disk_is_said_and_done_when_there_is_room(tmp_path, act, kind):
    a_sweep(tmp_path)
    path = tmp_path / JOURNAL
    one = proposals(tmp_path, NUMBERS, sampler=kind)
    one.ask()
    before, asked = path.read_bytes(), list(one.asked)
    with (
        room_for(path, 30),
        pytest.raises(StorageError, match=f"{re.escape(str(path))} could not be written, .* wanted"),
    ):
        act(one)
    assert (path.read_bytes(), list(one.asked)) == (before, asked)
    act(one)
    one.ask()
    again = proposals(tmp_path, NUMBERS, sampler=kind)
    assert (list(again.asked), again.outcome(2)) == (list(one.asked), one.outcome(2))


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new)


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a line that is none": (lambda content: b"what?\n" + content, "is damaged (JSONDecodeError("),
    "a last line that is none": (lambda content: content + b"what?\n", "is damaged (JSONDecodeError("),
    "not text": (lambda content: content + b"\xe4\xfc\n", "is damaged (UnicodeDecodeError("),
    "a pickle": (lambda content: b"\x80\x04K\x01.\n" + content, "is damaged (UnicodeDecodeError("),
    "other JSON": (lambda content: content + b"[1]\n", "is damaged (TypeError("),
    "an unknown operation": (lambda content: content + b'{"op_code": 99}\n', "is damaged (AssertionError("),
    "a line without fields": (lambda content: content + b'{"op_code": 4}\n', "is damaged (KeyError("),
    "a trial of another program": (
        replaced(b'"trial_id":"', b'"another":"'),
        "is damaged (KeyError('trial_id')): bring",
    ),
    "another sweep's": (
        replaced(b'"study_name":"x"', b'"study_name":"y"'),
        "holds the study of y, not of x: choose an",
    ),
    "other objectives": (
        replaced(b'"directions":[2]', b'"directions":[1,2]'),
        "holds a study to minimize, maximize, which is not search.objectives=['accuracy']: give the sweep another name",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_with_its_path_and_left_as_it_is(tmp_path, damage, message):
    a_sweep(tmp_path)
    path = tmp_path / JOURNAL
    content = damage(path.read_bytes())
    assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path} {message}')}"):
        proposals(tmp_path, NUMBERS)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_made_is_said(tmp_path):
    path = tmp_path / "no such directory" / JOURNAL
    with pytest.raises(StorageError, match=re.escape(f"{path} could not be written")):
        Proposals(NUMBERS, SearchConfig(), open_study(path, "x", [Objective.accuracy]), CHANCE)


@pytest.mark.parametrize(
    "changed",
    [
        NUMBERS.narrow({"x": [0.4, 0.6]}),
        NUMBERS.fix({"n": 3}),
        Space({**NUMBERS.entries, "new": Choice((1, 2))}),
        Space({"net": fixed("n"), "x": Choice((0.1, 0.2)), "n": Float(0, 1)}),
    ],
    ids=["narrowed", "fixed", "another key", "other kinds"],
)
def test_with_a_changed_space_the_sweep_goes_on_in_the_new_one(tmp_path, changed):
    one = proposals(tmp_path, NUMBERS, sampler=SamplerKind.tpe)
    go_on(one, 20)
    one = proposals(tmp_path, changed, sampler=SamplerKind.tpe)
    go_on(one, 35)
    for proposal in one.asked[20:]:
        changed.validate(proposal.parameters)
    for proposal in one.asked[:20]:
        NUMBERS.validate(proposal.parameters)
