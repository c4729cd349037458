"""The live display as it stands on the screen of a terminal: of a new search, one resumed, and one extended."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.terminal import Terminal, python

SIZES = {"80x24": (80, 24), "200x50": (200, 50)}
PARTS, MOMENTS = ("new", "resumed", "extended"), ("start", "middle", "end")
Screens = dict[tuple[str, str, str], list[str]]  # by size, part and moment


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> Screens:
    return dict(played(tmp_path_factory.mktemp("display")))


def played(directory: Path) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    """What each screen shows since the command before has ended."""
    command = python("-m", "tests.sweep.execution.played_display", *(str(directory / size) for size in SIZES))
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
    with Terminal(command, 80, 24, {**environment, "PYTHONPATH": path, "LC_ALL": "C.UTF-8"}) as terminal:
        for size, (columns, lines) in SIZES.items():
            terminal.resize(columns, lines)
            before = 0
            for part in PARTS:
                for moment in MOMENTS:
                    terminal.until_title(f"{part} {moment}")
                    yield (size, part, moment), terminal.lines()[before:]
                    terminal.type(" ")
                before = len(terminal.lines())


def numbers(line: str) -> str:
    return re.sub(r"\d:\d\d:\d\d", "TIME", line)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("part", "head"),
    [
        ("new", "0 of 4 trials"),
        ("resumed", "0 of 2 trials after 2 before"),
        ("extended", "0 of 2 trials after 4 before"),
    ],
)
def test_at_the_start_it_says_that_workers_load(screens, size, part, head):
    first, bar, *counts = screens[size, part, "start"]
    assert numbers(first) == f"sweep: {head}; TIME, workers load PyTorch"
    assert bar == 60 * "─" + " 0 %"
    assert [line.split(";")[0] for line in counts] == {
        "new": [], "resumed": ["2 done, 2 interrupted"], "extended": ["4 done"],
    }[part]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("part", "head", "part_done"),
    [
        ("new", "2 of 4 trials", 56),
        ("resumed", "0 of 2 trials after 2 before", 14),  # an epoch of seven
        ("extended", "0 of 2 trials after 4 before", 25),
    ],
)
def test_in_the_middle_the_bar_has_a_line_of_its_own_and_so_has_each_running_trial(
    screens, size, part, head, part_done
):
    first, bar, counts, *running = screens[size, part, "middle"]
    assert numbers(first) == f"sweep: {head}; TIME, about TIME left"
    assert re.fullmatch(r"━+─+ (\d+) %", bar) and bar.endswith(f" {part_done} %")
    assert re.fullmatch(r"2 running, \d done; best x search trial \d at [\d.]+%, one seed; \d+ GFLOP", counts)
    assert [line.split()[:2] for line in running] == [["trial", n] for n in ("45" if part == "extended" else "23")]


@pytest.mark.parametrize("part", PARTS)
def test_no_value_is_cut(screens, part):
    """A parameter that stands on the narrow screen stands on the wide one with the same value, and more stand there."""
    for narrow, wide in zip(screens["80x24", part, "middle"][3:], screens["200x50", part, "middle"][3:], strict=True):
        *shown, last = narrow.split()
        assert last == "…" and len(narrow) <= 80
        assert set(shown) < set(wide.split())
        assert len(set(wide.split()) - set(shown)) > 3


@pytest.mark.parametrize("size", SIZES)
def test_at_the_end_only_the_summary_is_left_and_what_follows_begins_on_a_line_of_its_own(screens, size):
    for part, outcomes in (("new", "2 running, 2 done of 4"), ("resumed", "4 done of 4"), ("extended", "6 done of 6")):
        *summary, prompt = screens[size, part, "end"]
        text = " ".join(line.strip() for line in summary)
        assert re.fullmatch(rf"sweep: {outcomes}; best .+; \d+ s, \d+ GFLOP( in this session)?", text)
        assert text.endswith("session") is (part != "new")
        assert prompt == "$ next"
