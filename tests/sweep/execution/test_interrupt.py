"""Stopping a sweep: once it ends after the present epochs, twice at once."""

import os
import signal
from pathlib import Path

import pytest

from sweep.errors import StorageError
from sweep.execution.interrupt import Interrupt


def interrupt(directory: Path, said: list[str] | None = None) -> Interrupt:
    return Interrupt(directory / "stop", (said if said is not None else []).append)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_after_the_present_epochs_and_the_second_at_once(tmp_path, number):
    said: list[str] = []
    with interrupt(tmp_path, said) as one:
        os.kill(os.getpid(), number)
        assert (one.stopping, one.reason, one.file.exists()) == (True, "the sweep was stopped", True)
        assert said == ["Stopping: running trials finish their epoch and are kept. Once more to stop at once."]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_outside_the_block_signals_are_as_before_and_workers_are_told_nothing(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    one = interrupt(tmp_path)
    one.file.write_text("of a session that was killed")
    with one:
        assert not one.file.exists()
        one.stop("enough")
        assert one.file.read_text() == "enough"
    assert not one.file.exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_first_reason_and_the_first_failure_count(tmp_path):
    one = interrupt(tmp_path)
    one.stop("first")
    one.stop("second")
    assert one.reason == "first"
    failure = StorageError("full")
    one.fail(failure)
    one.fail(ValueError("later"))
    assert (one.failure, one.reason) == (failure, "first")


def test_a_failure_stops_without_writing_anything(tmp_path):
    """It may be that nothing can be written."""
    one = interrupt(tmp_path)
    one.fail(StorageError("full"))
    assert (one.stopping, one.reason, one.file.exists()) == (True, "full", False)
