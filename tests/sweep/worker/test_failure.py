"""What is kept of a failure: bounded, and without what nobody else is to read."""

import os
from pathlib import Path

from sweep.worker.failure import MOST, OUTPUT_BYTES, Printed, failure_text, presentable


def test_a_traceback_has_the_last_lines_that_were_printed_since_the_trial_began(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            os.write(2, b"of the trial before\n")
            printed = Printed()
            os.write(2, b"x" * OUTPUT_BYTES + b"\nlast words\n")
            text = failure_text(KeyError("width"), printed)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert text.startswith("KeyError: 'width'\n")
    assert "Last on standard error:\nxxx" in text and text.endswith("xxx\nlast words\n")
    assert "of the trial before" not in text and len(text) < 2 * OUTPUT_BYTES


def test_secrets_and_control_characters_are_taken_out_and_the_middle_of_what_is_long(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    found = presentable("hunter22 0123456789abcdef http://me:p@ss@host/?token=t1 \x1b[2J\nnext")
    assert found == "... ... http://...@host/?token=... \\x1b[2J\nnext"
    long = presentable("a" * MOST + "b" * MOST)
    assert len(long) < MOST + 100 and f"... {MOST} characters are left out ..." in long
