"""The same configurations elsewhere: on other draws of the data, and next to the best one."""

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from sweep.records.rows import TrialRow, ranked
from sweep.report.elements import NONE, Block, Notice, Table, listing, parameter_value, percent, points
from sweep.report.load import Sweep
from sweep.report.results import Family, TaskResults, configuration_value
from sweep.report.statistics import kendall_tau

FEWEST = 3  # configurations that draws have in common: of two a rank correlation says next to nothing


def blocks(results: TaskResults) -> list[Block]:
    """Build the tables of transfer and of sensitivity, each with what is said where there is nothing to show."""
    return [*_transfer(results), *_sensitivity(results)]


def shared_configurations(family: Family) -> dict[int, list[float]]:
    """Return, by draw, the objectives of the configurations that all draws tried, in one order."""
    by_draw = {sweep.draw: _objectives(sweep.trials) for sweep in family.sweeps}
    common = set.intersection(*(set(found) for found in by_draw.values())) if by_draw else set()
    return {draw: [found[key] for key in sorted(common)] for draw, found in by_draw.items()}


def _objectives(rows: Sequence[TrialRow]) -> dict[str, float]:
    values = {json.dumps(row.parameters, sort_keys=True): configuration_value(row) for row in rows}
    return {key: value for key, value in values.items() if value is not None}


def _transfer(results: TaskResults) -> list[Block]:
    rows, lacking = [], []
    for family in (family for family in results.families if len(family.sweeps) > 1):
        shared = shared_configurations(family)
        number = len(next(iter(shared.values())))
        if number < FEWEST:
            lacking.append(family.name)
            continue
        pairs = [(np.array(shared[a]), np.array(shared[b])) for a, b in permutations(shared, 2)]
        taus = [kendall_tau(a, b) for a, b in pairs]
        regrets = [float(b.max() - b[a.argmax()]) for a, b in pairs]
        rows.append([
            family.name, str(len(shared)), str(number), f"{np.mean(taus):.2f}", f"{min(taus):.2f}",
            percent(float(np.mean(regrets))), percent(max(regrets)),
        ])  # fmt: skip
    made: list[Block] = []
    if rows:
        columns = ["family", "draws", "configurations", "τ", "lowest τ", "regret", "largest regret"]
        caption = (
            "Configurations that every draw tried, failures at chance: Kendall's τ of their objectives between two "
            "draws, and the regret, in points, of taking on one draw the best configuration of another; means over "
            "ordered pairs of draws, one seed a trial."
        )
        made.append(Table(caption, columns, rows, ("family",)))
    if lacking:
        made.append(
            Notice(
                f"Whether configurations transfer between draws is not known of {listing(lacking)}: fewer than "
                f"{FEWEST} were tried on all of them (search.enqueue=[PATH/trials.csv] tries those of another draw)."
            )
        )
    return made


def _sensitivity(results: TaskResults) -> list[Block]:
    rows = [line for family in results.families for sweep in family.sweeps for line in neighbours(family.name, sweep)]
    if not rows:
        return []
    columns = ["family", "draw", "trial", "parameter", "from", "to", "ratio", "change"]
    caption = (
        "Trials that differ from the best of their draw in one parameter: the change of the objective in points, one "
        "seed each. The best was chosen by its objective, so that changes are too low by what it had of luck."
    )
    folded = f"What a change of one parameter of the best configuration does ({len(rows)} trials)"
    return [Table(caption, columns, rows, ("family", "parameter"), folded=folded)]


def neighbours(family: str, sweep: Sweep) -> list[list[str]]:
    """List the trials that differ from the best one in a single parameter."""
    best = next(iter(ranked(sweep.trials)), None)
    if best is None or best.objective is None:
        return []
    found = []
    for row in sweep.trials:
        changed, value = _changed(best.parameters, row.parameters), configuration_value(row)
        if value is None or len(changed) != 1:
            continue
        name = changed[0]
        old, new = best.parameters.get(name), row.parameters.get(name)
        found.append([
            family, str(sweep.draw), str(row.number), name, _written(old), _written(new), _ratio(old, new),
            points(value - best.objective),
        ])  # fmt: skip
    return sorted(found, key=lambda line: (line[3], line[5]))


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def _written(value: Any) -> str:
    return NONE if value is None else parameter_value(value)


def _ratio(old: Any, new: Any) -> str:
    numbers = [value for value in (old, new) if type(value) in (int, float) and value > 0]
    return f"{numbers[1] / numbers[0]:.3g}" if len(numbers) == 2 else NONE
