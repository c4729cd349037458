"""docs/search.md says what the code does: its tables name every sampler, scheduler and outcome."""

import re
from pathlib import Path

import pytest

from sweep.cli.commands import STAGES
from sweep.config.compose import known_keys
from sweep.config.search_config import SamplerKind, SchedulerKind
from sweep.records.outcome import STATES, Outcome

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/search.md").read_text()


def table(first: str) -> list[list[str]]:
    """The cells of each row of the table whose first column has this head."""
    block = TEXT.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


@pytest.mark.parametrize(("first", "kind"), [("`search.sampler`", SamplerKind), ("`search.scheduler`", SchedulerKind)])
def test_every_sampler_and_scheduler_has_exactly_one_row(first: str, kind: type) -> None:
    assert sorted(row[0] for row in table(first)) == sorted(member.value for member in kind)


def test_the_table_of_outcomes_is_that_of_the_code() -> None:
    written = {row[0]: tuple(row[1:4]) for row in table("outcome")}
    assert written == {one.value: (STATES[one].ray, STATES[one].optuna, STATES[one].mlflow) for one in Outcome}


def test_every_key_and_stage_that_the_pages_name_exists() -> None:
    for text in (TEXT, (ROOT / "README.md").read_text()):
        keys = set(re.findall(r"\b((?:search|final|evaluate|replay)\.[a-z_.]+[a-z_])=", text))
        assert keys - set(known_keys()) == set()
        assert set(re.findall(r"`sweep ([a-z]+)", text)) <= {*STAGES, "help"}
