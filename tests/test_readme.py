"""README.md and docs/mlflow.md say what the code does: the numbers of the main job, and the names that MLflow shows."""

from pathlib import Path

from sweep.config.compose import load
from sweep.records.summary import SweepSummary
from sweep.tracking.description import searched_params
from tests.sweep.records.test_summary import FINAL, SEARCH, TEST

ROOT = Path(__file__).parents[1]
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


def read(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def test_the_readme_says_what_make_sweep_does() -> None:
    config, text = load([]), read("README.md")
    data, final, trials = config.data, config.final, config.search.trials
    assert data.per_class is not None
    validated = round(data.val_fraction * data.per_class)
    assert f"{NUMBERS[len(config.study.families)]} families" in text
    size = f"{data.per_class} images per class ({data.per_class - validated} train, {validated} val)"
    assert f"on {NUMBERS[len(config.study.draws)]} draws of {size}" in text
    confirmed = f"the best {NUMBERS[final.top]} retrained over {final.confirm_seeds} seeds to confirm them"
    assert f"{trials} trials each, {confirmed}" in text
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
