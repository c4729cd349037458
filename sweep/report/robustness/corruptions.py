"""Compare networks on corrupted test images: errors as they are, and relative to the baseline of the same draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.records.rows import CORRUPTION
from sweep.report.elements import NONE, Block, Figure, Table, label, listing, padded, panel, percent, plural
from sweep.report.figures import colour, family_keys
from sweep.report.load import Sweep
from sweep.report.results import BASELINE, Family, Study, TaskResults
from sweep.report.statistics import spread

CorruptionCell = tuple[str, float]  # a corruption, its severity
Errors = Mapping[CorruptionCell, float]


@dataclass(frozen=True, slots=True)
class CorruptedNetwork:
    """The errors of one final network, on clean images and under each corruption and severity."""

    draw: int
    seed: int
    clean: float
    errors: Errors
    images: int

    @property
    def error(self) -> float:
        """Return the mean over corruptions and severities: no corruption counts for more because it is hard."""
        return float(np.mean(list(self.errors.values())))


def networks(family: Family) -> list[CorruptedNetwork]:
    """List the networks of a family that were measured on corrupted images and, as trained, on clean ones."""
    return [network for sweep in family.sweeps for network in _networks(sweep)]


def _networks(sweep: Sweep) -> list[CorruptedNetwork]:
    accuracies = [row for row in sweep.evaluations if row.metric == "accuracy"]
    found = []
    for seed in dict.fromkeys(row.seed for row in accuracies):
        own = [row for row in accuracies if row.seed == seed]
        clean = next((1 - row.value for row in own if row.condition == "clean"), None)
        cells = {
            (name, row.severity): 1 - row.value
            for row in own
            if (name := row.condition.removeprefix(f"{CORRUPTION}/")) != row.condition
        }
        if cells and clean is not None:
            images = min(row.n for row in own if row.condition.startswith(f"{CORRUPTION}/"))
            found.append(CorruptedNetwork(sweep.draw, seed, clean, cells, images))
    return found


def relative_error(network: CorruptedNetwork, baseline: Sequence[CorruptedNetwork], above_clean: bool) -> float | None:
    """Return the mean over corruptions of the ratio of summed errors to those of the baseline's networks of the same
    draw; None where these were not measured so.

    `above_clean`: of what each loses against clean images. Source: the mean corruption error of Hendrycks and
    Dietterich 2019 (arXiv 1903.12261), with this baseline in AlexNet's place.
    """
    partners = [one for one in baseline if one.draw == network.draw and one.errors.keys() >= network.errors.keys()]
    if not partners:
        return None
    ratios = []
    for name in dict.fromkeys(name for name, _ in network.errors):
        cells = [cell for cell in network.errors if cell[0] == name]
        own, others = (
            sum(float(np.mean([one.errors[cell] - above_clean * one.clean for one in group])) for cell in cells)
            for group in ([network], partners)
        )
        if others <= 0:
            return None  # nothing was lost that could be divided by
        ratios.append(own / others)
    return float(np.mean(ratios))


def summary(results: TaskResults) -> Table | None:
    """Tabulate the errors of all families; None where no network was measured on corrupted images."""
    found = {family.name: networks(family) for family in results.families}
    if not any(found.values()):
        return None
    baseline = found.get(BASELINE, [])
    rows = []
    for name, measured in found.items():
        if not measured:
            rows.append([name, *[NONE] * 6])
            continue
        relative = [
            [value for one in measured if (value := relative_error(one, baseline, above)) is not None]
            for above in (False, True)
        ]
        rows.append([
            name,
            _mean_and_sd([one.clean for one in measured]),
            _mean_and_sd([one.error for one in measured]),
            *(_ratio_and_sd(values) for values in relative),
            str(len(measured)),
            str(min(one.images for one in measured)),
        ])  # fmt: skip
    columns = [
        "family",
        "clean error ± sd",
        "corrupted error ± sd",
        "mCE ± sd",
        "relative mCE ± sd",
        "networks",
        "images",
    ]
    full = {
        "mCE ± sd": f"errors relative to {BASELINE} of the same draw, mean over corruptions",
        "relative mCE ± sd": f"what is lost against clean images, relative to {BASELINE}",
    }
    return Table(f"{_what(found)} Errors in %; sd over networks.", columns, rows, words=["family"], full=full)


def _what(found: Mapping[str, Sequence[CorruptedNetwork]]) -> str:
    every = [one for measured in found.values() for one in measured]
    names = sorted({name for one in every for name, _ in one.errors})
    severities = sorted({severity for one in every for _, severity in one.errors})
    told = ", ".join(f"{severity:g}" for severity in severities)
    return (
        f"Final networks on corrupted test images: {plural(len(names), 'corruption')} at severities {told}, each "
        "counting the same."
    )


def by_corruption(results: TaskResults) -> Table | None:
    """Tabulate the accuracy of each family under each corruption: over severities, then mean and sd over networks."""
    found = {family.name: networks(family) for family in results.families}
    names = sorted({name for measured in found.values() for one in measured for name, _ in one.errors})
    if not names:
        return None
    rows = [[name.replace("_", " "), *(_accuracy(measured, name) for measured in found.values())] for name in names]
    title = "Mean accuracy in % over severities, mean ± sd over n networks, for every corruption"
    columns = ["corruption", *(f"{family} (n = {len(measured)})" for family, measured in found.items())]
    return Table(title, columns, rows, words=["corruption"], folded=title)


def _accuracy(measured: Sequence[CorruptedNetwork], name: str) -> str:
    errors = [[error for (other, _), error in one.errors.items() if other == name] for one in measured]
    return _mean_and_sd([1 - float(np.mean(own)) for own in errors if own])


def _mean_and_sd(shares: Sequence[float]) -> str:
    return f"{percent(float(np.mean(shares)))} ± {percent(spread(shares))}" if shares else NONE


def _ratio_and_sd(values: Sequence[float]) -> str:
    if not values:
        return NONE
    sd = spread(values)
    return f"{float(np.mean(values)):.3f} ± {NONE if sd is None else f'{sd:.3f}'}"


def against_clean(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw every network's error on corrupted images against that on clean ones: a network that is better on both by
    the same ratio is not more robust."""
    found = [(family, measured) for family in results.families if (measured := networks(family))]
    if not found:
        return None
    chart = go.Figure()
    for family, measured in found:
        chart.add_scatter(
            x=[100 * one.clean for one in measured], y=[100 * one.error for one in measured], mode="markers",
            name=label(family.name), marker={"color": colour(study, family.name), "size": 8},
            text=[f"{label(family.name)}, draw {one.draw}, seed {one.seed}" for one in measured],
            hovertemplate="%{text}: clean %{x:.1f} %, corrupted %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    every = [one for _, measured in found for one in measured]
    chart.update_xaxes(title="error on clean images, %", range=padded(100 * one.clean for one in every))
    chart.update_yaxes(title="mean error on corrupted images, %", range=padded(100 * one.error for one in every))
    caption = (
        "Every final network once. Below the line that its neighbours make, a network is more robust than its accuracy "
        "explains; along it, it is only more accurate."
    )
    told = listing([
        f"{family.name} {percent(float(np.mean([one.clean for one in measured])))} and "
        f"{percent(float(np.mean([one.error for one in measured])))} %"
        for family, measured in found
    ])  # fmt: skip
    return Figure(
        name, caption, [panel(chart, f"Mean error on clean and corrupted images: {told}.")],
        family_keys(study, [family for family, _ in found]),
    )  # fmt: skip


def blocks(study: Study, results: TaskResults, index: int) -> list[Block]:
    """Return all there is of one task; nothing where no network was measured on corrupted images."""
    made = [against_clean(study, results, f"corruptions-{index}"), summary(results), by_corruption(results)]
    return [block for block in made if block is not None]
