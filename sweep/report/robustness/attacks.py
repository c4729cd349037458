"""Compare networks under attack: robust accuracy against epsilon, and whether it can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.records.rows import ATTACK, EvaluationRow
from sweep.report.elements import NONE, Block, Figure, Panel, Table, label, listing, panel, percent
from sweep.report.figures import colour, family_keys
from sweep.report.load import Sweep
from sweep.report.results import Family, Study, TaskResults

UNION, CHECK = "union", f"{ATTACK}/check/"
BOUND = "masked: upper bound only"
NORMS = {"linf": "l∞, epsilon in 255ths", "l2": "l2, epsilon"}


@dataclass(frozen=True, slots=True)
class AttackedNetwork:
    """One final network under attack."""

    draw: int
    seed: int
    rows: Sequence[EvaluationRow]

    def accuracies(self, norm: str, attack: str = UNION) -> dict[float, float]:
        """Return the accuracy at each epsilon."""
        mine = [row for row in self.rows if row.condition == f"{ATTACK}/{norm}/{attack}" and row.metric == "accuracy"]
        return {row.severity: row.value for row in mine}

    def decisive(self, norm: str, epsilon: float) -> dict[str, float]:
        """Return by attack the share of images that it broke and none before it did."""
        mine = [row for row in self.rows if row.metric == "first_broken" and row.severity == epsilon]
        return {row.condition.rpartition("/")[2]: row.value for row in mine if f"/{norm}/" in row.condition}

    @property
    def failed_checks(self) -> list[str]:
        return [
            row.condition.removeprefix(CHECK)
            for row in self.rows
            if row.condition.startswith(CHECK) and row.metric == "passed" and not row.value
        ]


def networks(family: Family) -> list[AttackedNetwork]:
    return [network for sweep in family.sweeps for network in _networks(sweep)]


def _networks(sweep: Sweep) -> list[AttackedNetwork]:
    rows = [row for row in sweep.evaluations if row.condition.startswith(f"{ATTACK}/")]
    return [
        AttackedNetwork(sweep.draw, seed, [row for row in rows if row.seed == seed])
        for seed in dict.fromkeys(row.seed for row in rows)
    ]


def summary(results: TaskResults) -> Table | None:
    """Tabulate robust accuracy by family, norm and epsilon, with what was decisive; None where nothing was attacked."""
    rows = [row for family in results.families for row in _summary(family)]
    if not rows:
        return None
    caption = (
        "Final networks under attack: accuracy in % on images for which no attack of the set succeeds, mean and least "
        "to greatest over networks. Decisive: the attack that broke most images which none before it did; where that "
        "is transfer or Square, which need no gradient of the network, its gradients may be masked."
    )
    columns = ["family", "norm", "epsilon", "robust accuracy", "range", "decisive", "networks", "images", "believable"]
    return Table(caption, columns, rows, words=["family", "norm", "decisive", "believable"])


def _summary(family: Family) -> list[list[str]]:
    measured, rows = networks(family), list[list[str]]()
    for norm in NORMS:
        for epsilon in sorted({epsilon for one in measured for epsilon in one.accuracies(norm)}):
            with_it = [one for one in measured if epsilon in one.accuracies(norm)]
            values = [one.accuracies(norm)[epsilon] for one in with_it]
            images = min(row.n for one in with_it for row in one.rows if row.condition == f"{ATTACK}/{norm}/{UNION}")
            rows.append([
                family.name,
                "l∞" if norm == "linf" else norm,
                f"{epsilon:g}/255" if norm == "linf" else f"{epsilon:g}",
                percent(float(np.mean(values))),
                f"{percent(min(values))} to {percent(max(values))}",
                _decisive(with_it, norm, epsilon),
                str(len(values)),
                str(images),
                _believable(with_it),
            ])  # fmt: skip
    return rows


def _decisive(measured: Sequence[AttackedNetwork], norm: str, epsilon: float) -> str:
    shares: dict[str, list[float]] = {}
    for one in measured:
        for attack, share in one.decisive(norm, epsilon).items():
            shares.setdefault(attack, []).append(share)
    most = max(shares, key=lambda attack: float(np.mean(shares[attack])), default=None)
    return NONE if most is None else f"{most.replace('_', '-')} ({percent(float(np.mean(shares[most])))} %)"


def _believable(measured: Sequence[AttackedNetwork]) -> str:
    failed = sum(bool(one.failed_checks) for one in measured)
    return "yes" if not failed else f"{BOUND} ({failed} of {len(measured)} networks)"


def checks(results: TaskResults) -> Table | None:
    """Tabulate the sanity checks: in how many networks each passed."""
    found = {family.name: networks(family) for family in results.families}
    names = dict.fromkeys(
        row.condition.removeprefix(CHECK)
        for measured in found.values()
        for one in measured
        for row in one.rows
        if row.condition.startswith(CHECK)
    )
    if not names:
        return None
    rows = [[name.replace("_", " "), *(_passed(measured, name) for measured in found.values())] for name in names]
    caption = f"Sanity checks that passed, of the networks that were attacked. One that fails makes a result {BOUND}."
    return Table(caption, ["check", *found], rows, words=["check"])


def _passed(measured: Sequence[AttackedNetwork], name: str) -> str:
    values = [
        row.value for one in measured for row in one.rows if row.condition == CHECK + name and row.metric == "passed"
    ]
    return f"{sum(map(int, values))} of {len(values)}" if values else NONE


def curves(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw robust accuracy against epsilon, a line per network, a panel per norm."""
    found = [(family, measured) for family in results.families if (measured := networks(family))]
    panels = [_curves(study, found, norm) for norm in NORMS if any(o.accuracies(norm) for _, m in found for o in m)]
    if not panels:
        return None
    caption = "Accuracy on images for which no attack of the set succeeds; a line per final network."
    return Figure(name, caption, panels, family_keys(study, [family for family, _ in found]))


def _curves(study: Study, found: Sequence[tuple[Family, Sequence[AttackedNetwork]]], norm: str) -> Panel:
    chart, told = go.Figure(), []
    for family, measured in found:
        for one in measured:
            points = sorted(one.accuracies(norm).items())
            chart.add_scatter(
                x=[epsilon for epsilon, _ in points], y=[100 * value for _, value in points], mode="lines+markers",
                name=label(family.name), line={"color": colour(study, family.name), "width": 1.5}, opacity=0.7,
                hovertemplate=f"{label(family.name)}, draw {one.draw}, seed {one.seed}: %{{y:.1f}} % at %{{x:g}}"
                "<extra></extra>",
            )  # fmt: skip
        told.append(f"{family.name}, {len(measured)}")
    chart.update_xaxes(title=NORMS[norm], type="log")
    chart.update_yaxes(title="robust accuracy, %", rangemode="tozero")
    return panel(chart, f"Robust accuracy against epsilon; networks: {listing(told)}.", NORMS[norm].partition(",")[0])


def blocks(study: Study, results: TaskResults, index: int) -> list[Block]:
    """Return all there is of one task; nothing where no network was attacked."""
    made = [curves(study, results, f"attacks-{index}"), summary(results), checks(results)]
    return [block for block in made if block is not None]
