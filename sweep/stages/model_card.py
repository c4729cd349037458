"""The description of a registered network: its data, how it was chosen, what it reaches with intervals, its limits.

It is written when the network is registered, and again once it was tested.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from odenet.training.config import OBJECTIVE_EPOCHS
from sweep.config.schema import AppConfig
from sweep.execution.mlflow_runs import model_name
from sweep.execution.session import Session
from sweep.records.best import Best, read_best
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow
from sweep.records.summary import sift
from sweep.records.tables import read_rows
from sweep.tracking.outbox import Described

CARD = """# {name}

{summary}

## Use
- Input: float32 images (batch, channels, height, width) in [0, 1]; normalisation is inside. Output: logits.
- `mlflow.pytorch.load_model("models:/{model}@champion")` gives an `odenet.Classifier`: `predict` takes raw images
  (uint8, the data set's own range, or floats in [0, 1]) and refuses what it cannot know. `mlflow.pyfunc.load_model`
  takes the input above.
- The code of odenet is part of the model and need not be installed. `sweep export {sweep}` writes safetensors, ONNX or
  torch.export files.

## Data
{data}

## How it was chosen
{choice}

## Results
| value | of | result | n | {interval} |
|---|---|---|---|---|
{results}

## Limits
{limits}

## Configuration
Varied in the search: {parameters}. The whole experiment has the hash {config_hash}.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """A value with what it is of, the number that it is over, and its interval where it has a spread."""

    name: str  # of the tag
    what: str
    of: str
    value: float
    n: int
    unit: str  # that is counted, in the singular
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> str:
        return "none, one value" if self.low is None or self.high is None else f"{self.low:.1%} to {self.high:.1%}"

    @property
    def count(self) -> str:
        return f"{self.n} {self.unit}{'s' * (self.n != 1)}"

    def row(self) -> str:
        return f"| {self.what} | {self.of} | {self.value:.1%} | {self.count} | {self.interval} |"

    def __str__(self) -> str:
        from sweep.report.statistics import INTERVAL

        spread = "" if self.low is None else f", {INTERVAL} {self.interval}"
        return f"{self.what} {self.value:.1%} ({self.count}{spread})"

    def tags(self) -> dict[str, str]:
        return {self.name: f"{self.value:.4f}", f"{self.name}.n": self.count} | (
            {} if self.low is None else {f"{self.name}.interval": self.interval}
        )


def model_card(session: Session, first: TrialRow, rows: Sequence[TrialRow]) -> Described:
    """Write the card of the network of the trial `first`, and return it with the tags of its model.

    Args:
        rows: of the phases confirm and final.

    Raises:
        InputError: a file that it is written from is damaged.
    """
    from sweep.report.statistics import INTERVAL

    files = session.files
    crowned = read_best(files.crowned if files.crowned.exists() else files.best)
    final = [row for row in rows if row.phase is Phase.final]
    tested = sift(read_rows(files.rows, EvaluationRow), final).whole if files.rows.exists() else []
    results = [*_confirmed(crowned), *_tested(first, tested)]
    summary = _summary(session, first, results)
    text = CARD.format(
        name=session.name,
        sweep=session.name,
        model=model_name(session.name),
        summary=summary,
        data=_data(first, tested),
        choice=_choice(session.config, crowned, final),
        interval=INTERVAL,
        results="\n".join(result.row() for result in results),
        limits=_limits(first, bool(tested)),
        parameters=", ".join(f"{key}={value}" for key, value in first.parameters.items()) or "nothing",
        config_hash=first.config_hash,
    )
    write_text(files.model_card, text)
    return Described(files.model_card, summary, _tags(first, results))


def _summary(session: Session, first: TrialRow, results: Iterable[Result]) -> str:
    said = "; ".join(map(str, results))
    return (
        f"A {first.family} network for {first.dataset} from the sweep {session.name}: the first of its final seeds, "
        f"fixed beforehand. {said[:1].upper() + said[1:] or 'It was neither confirmed nor tested'}."
    )


def _tags(first: TrialRow, results: Iterable[Result]) -> dict[str, str]:
    names = ("sweep", "family", "dataset", "draw", "seed", "trial_id", "data_hash", "config_hash")
    tags = {name: str(getattr(first, name)) for name in names} | {"phase": first.phase.value}
    for result in results:
        tags |= result.tags()
    return tags


def _confirmed(crowned: Best) -> list[Result]:
    """Return the objective that the configuration was crowned by; none in a file of before, which has the search's."""
    origin = crowned.provenance
    objective, n, sd = origin.get("objective"), origin.get("seeds"), origin.get("sd")
    if objective is None or n is None:
        return []
    if origin.get("phase") != Phase.confirm.value:
        of = "validation images, the search trial that was best by it"
        return [Result("search/objective", "search objective", of, objective, n, "seed")]
    of = "validation images, the configuration retrained on train"
    spread = _over_seeds(objective, sd, n)
    return [Result("confirm/objective", "confirmed objective", of, objective, n, "seed", *spread)]


def _tested(first: TrialRow, tested: Iterable[EvaluationRow]) -> list[Result]:
    from sweep.report.statistics import wilson

    clean = {row.seed: row for row in tested if (row.condition, row.metric) == (CLEAN, "accuracy")}
    if first.seed not in clean:
        return []
    own, values = clean[first.seed], [row.value for row in clean.values()]
    bounds = wilson(own.value, own.n)
    of_own, of_all = "all test images, this network", "all test images, each final network that ended done"
    sd = stdev(values) if len(values) > 1 else None
    return [
        Result("test/accuracy", "test accuracy", of_own, own.value, own.n, "image", bounds.low, bounds.high),
        Result(
            "test/accuracy_mean", "mean test accuracy", of_all, fmean(values), len(values), "seed",
            *_over_seeds(fmean(values), sd, len(values)),
        ),
    ]  # fmt: skip


def _over_seeds(mean: float, sd: float | None, n: int) -> tuple[float, float] | tuple[None, None]:
    """Compute Student's t interval, cut to what an accuracy can be."""
    from sweep.report.statistics import student

    if sd is None or n < 2:
        return None, None
    found = student(mean, sd, n)
    return max(0.0, found.low), min(1.0, found.high)


def _data(first: TrialRow, tested: Sequence[EvaluationRow]) -> str:
    size = "all images" if first.per_class is None else f"{first.per_class} images of each class"
    counted = {row.n for row in tested if row.condition == CLEAN}
    test = (
        f"tested once on {counted.pop()} test images" if counted else "not tested yet: `sweep evaluate` does it, once"
    )
    learned = f"learned from {size} (train and val together), hash {first.data_hash}"
    return f"{first.dataset}, draw {first.draw}: {learned}; {test}."


def _choice(config: AppConfig, crowned: Best, final: Sequence[TrialRow]) -> str:
    origin, asked = crowned.provenance, config.search
    search, trial = origin.get("search") or {}, origin.get("trial")
    lines = [
        f"- Search: {asked.trials} trials of {config.study.lasting(config.training.epochs)}, sampler "
        f"{asked.sampler.value}, scheduler {asked.scheduler.value}. Objective: mean validation accuracy of the last "
        f"{OBJECTIVE_EPOCHS} epochs.",
    ]
    if search.get("objective") is not None:
        lines.append(
            f"- Confirmation: the best {config.final.top} retrained over {origin['seeds']} seeds; trial {trial} has "
            f"the best mean. Its {search['objective']:.1%} in the search is of one seed, and biased: chosen by that."
        )
    elif origin.get("phase") != Phase.confirm.value:
        lines.append(f"- Trial {trial} was the only candidate, so that nothing was confirmed.")
    failed = sum(row.outcome is not Outcome.done for row in final)
    lost = f", of which {failed} failed" if failed else ""
    lines.append(
        f"- Final: retrained on train and val over {len(final)} fresh seed{'s' * (len(final) != 1)}{lost}. This "
        "network is the first of them that is done, not the best: nothing was chosen by the test set."
    )
    return "\n".join(lines)


def _limits(first: TrialRow, tested: bool) -> str:
    lines = [
        "Intervals over seeds say nothing about other draws of the data, that over images nothing about other seeds.",
        "Those over seeds are Student's t, which with few seeds is wider than the bootstrap of the report.",
        f"It knows the classes of {first.dataset} only, gives every image one of them, and is not calibrated.",
        "Images of another size, or from another source than the data set, were not tried.",
        "Corrupted and attacked images were not tried.",
    ]
    if not tested:
        lines.insert(0, "It was not tested: validation objectives are no test accuracy.")
    return "\n".join(f"- {line}" for line in lines)
