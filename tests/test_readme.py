"""README.md and docs/mlflow.md say what the code does: the numbers of the main job, and the names that MLflow shows."""

import re
import shlex
from pathlib import Path

import pytest

from sweep.cli.parse import parse
from sweep.config.compose import load
from sweep.errors import InputError
from sweep.records.summary import SweepSummary
from sweep.tracking.description import searched_params
from tests.sweep.records.test_summary import FINAL, SEARCH, TEST

ROOT = Path(__file__).parents[1]
MADE_BY_THE_PAGE = ("data=mine", "space=mine", ".yaml", "modules=", "--config-dir", "model.initial=", "s3://BUCKET")
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


def read(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def test_the_readme_says_what_make_sweep_does() -> None:
    config, text = load(["study=quick"]), read("README.md")
    data, final, trials = config.data, config.final, config.search.trials
    assert data.per_class is not None
    validated = round(data.val_fraction * data.per_class)
    assert f"{NUMBERS[len(config.study.families)]} families" in text
    size = f"{data.per_class} images per class ({data.per_class - validated} train, {validated} val)"
    assert f"on {NUMBERS[len(config.study.draws)]} disjoint draws of {size}" in text
    confirmed = f"the best {NUMBERS[final.top]} retrained over {final.confirm_seeds} seeds to confirm them"
    assert f"{trials} random configurations each, {confirmed}" in text
    assert f"(the best mean) retrained on train+val over {final.seeds} fresh seeds" in text


def test_the_page_on_mlflow_names_every_figure_and_every_kind_of_parameter() -> None:
    text = read("docs/mlflow.md")
    for name in SweepSummary(SEARCH, FINAL, TEST).metrics():
        counted = name.startswith("trials/") and name != "trials/waiting"
        assert f"`{'trials/OUTCOME' if counted else name.replace('_sd', '_mean')}`" in text, name
    config = load([])
    kinds = {name.partition(".")[0] for name in searched_params(config, config.space.build())}
    assert kinds == {"searched", "fixed", "search"}
    assert all(f"`{shown}`" in text for shown in ("searched.KEY", "fixed.KEY", "search.*"))


COMMANDS = [
    (page.name, line)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.name != "log.md"
    for line in re.findall(r"^    (?:\$ )?sweep ([a-z]+.*)$", page.read_text().replace("\\\n", " "), re.MULTILINE)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page} {line[:40]}" for page, line in COMMANDS])
def test_every_command_of_a_page_can_be_typed(page: str, line: str) -> None:
    command = parse(shlex.split(line, comments=True))
    if "widht" in line:
        with pytest.raises(InputError, match=r"did you mean model\.width"):
            load(command.overrides)
    elif command.stage in ("plan", "search", "study") and not any(own in line for own in MADE_BY_THE_PAGE):
        load(command.overrides)
