"""What is printed does not steer the terminal, whoever wrote it."""

import io
import re

import pytest
from rich.table import Table

from sweep.__main__ import run
from sweep.cli.commands import STAGES
from sweep.cli.parse import help_text
from sweep.console import PlainConsole, printable, say
from sweep.execution.display import ProgressDisplay
from sweep.records.outcome import Outcome
from sweep.stages.status import status
from tests.sweep.sweep_files import trial, write_sweep

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\r\b\u202e"


def test_control_characters_are_spelled_out():
    assert printable(f"a{STEERING}\nb [red]é") == ("a\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\r\\x08\\u202e\nb [red]é")


def test_a_window_without_columns_hides_no_message(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    assert run(["search"]) == 2
    assert "`sweep search` needs a name" in capsys.readouterr().err


def test_a_refusal_is_broken_between_words_in_a_window_and_whole_in_a_pipe(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "runs", [trial(0)], "a-name-with-hyphens-in-it")
    words = ["search", "a-name-with-hyphens-in-it"]
    assert run(words) == 2
    (whole,) = capsys.readouterr().err.splitlines()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal
    monkeypatch.setenv("TERM", "xterm")
    assert run(words) == 2
    shown = re.sub("\x1b.*?m", "", capsys.readouterr().err).splitlines()
    assert len(shown) > 1 and max(map(len, shown)) <= 120
    assert " ".join(map(str.strip, shown)) == whole


@pytest.mark.parametrize("terminal", [False, True])
def test_whatever_is_printed_is_plain(terminal):
    console = PlainConsole(file=(file := io.StringIO()), force_terminal=terminal, color_system=None, width=300)
    table = Table(title=f"title {STEERING}")
    table.add_column(f"column {STEERING}")
    table.add_row(f"cell {STEERING}")
    for thing in (f"line {STEERING}", table):
        console.print(thing, highlight=False)
    written = file.getvalue()
    assert not [char for char in written if not char.isprintable() and char != "\n"]
    assert written.count("\\x1b[2J") == 4


@pytest.mark.parametrize("terminal", [False, True])
def test_a_reason_reaches_neither_the_display_nor_the_table_of_trials_as_it_is(tmp_path, terminal):
    """Live, the terminal is steered by the display alone: it moves the cursor up and clears lines."""
    console = PlainConsole(file=(file := io.StringIO()), force_terminal=terminal, color_system=None, width=300)
    row = trial(0, outcome=Outcome.code, reason="KeyError: \x1b[2J\x07")
    with ProgressDisplay(console, "search x", 1) as display:
        display.update(row, epochs=2)
        display.say(f"trial 0: {STEERING}")
    write_sweep(tmp_path / "runs", [row])
    status(tmp_path / "runs", "x", console)
    written = file.getvalue()
    assert "\x1b[2J" not in written
    assert "\x07" not in written
    assert written.count("\\x1b[2J") >= 2


def test_a_refusal_is_plain(capsys):
    assert run(["search", STEERING]) == 2
    assert "\x1b" not in capsys.readouterr().err


def on_screen(text: str, width: int) -> list[str]:
    console = PlainConsole(file=(file := io.StringIO()), force_terminal=True, color_system=None, width=width)
    for line in text.splitlines():
        say(line, console)
    return file.getvalue().splitlines()


def test_a_sentence_is_broken_between_words_and_stands_below_the_column_it_began_in():
    text = "status x: a sentence of words\n\n  replay    a finished search\n  two words  and more of them"
    assert on_screen(text, 28) == [
        "status x: a sentence of",
        "words",
        "",
        "  replay    a finished",
        "            search",
        "  two words  and more of",
        "             them",
    ]
    plain = PlainConsole(file=(file := io.StringIO()), width=28)
    say(text.splitlines()[0], plain)
    assert file.getvalue() == "status x: a sentence of words\n"


def test_every_help_text_fits_80_columns():
    for stage in ("", *STAGES):
        lines = on_screen(help_text(stage), 80)
        assert max(map(len, lines)) <= 80
        assert "".join(lines).replace(" ", "") == help_text(stage).replace("\n", "").replace(" ", "")
