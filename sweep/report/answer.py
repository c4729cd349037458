"""Answer first: the verdict on each family, or what a single sweep found, above everything else."""

from collections.abc import Sequence

from sweep.records.rows import ranked
from sweep.report import figures, sentences, statistics
from sweep.report.elements import (
    Answer,
    Block,
    Facts,
    count,
    percent,
    percent_interval,
    plural,
    points,
)
from sweep.report.results import Family, Study, TaskResults
from sweep.report.tables import CandidateRow, candidates, written

ACCURACY, ROBUSTNESS, COST = "Accuracy", "Robustness to manifestation", "Cost ratio"


def blocks(study: Study, results: TaskResults, name: str) -> list[Block]:
    if len(results.families) == 1:
        return _single(results.baseline, results)
    compared = {difference.family.name: difference for difference in results.differences}
    base = results.baseline
    made: list[Block] = []
    for family in results.families[1:]:
        rest = [(ROBUSTNESS, sentences.robustness(family, base)), (COST, sentences.cost_ratio(family, base))]
        difference = compared.get(family.name)
        if difference is None:
            made.append(Answer(sentences.uncompared(family, results), rest))
        else:
            lead, first = sentences.conclusion(difference, results), sentences.accuracy(difference, results)
            made.append(Answer(lead, [(ACCURACY, first), *rest]))
    if results.differences:
        made.insert(len(made) if len(made) > 1 else 1, figures.differences(study, results, name))
    return made


def _single(family: Family, results: TaskResults) -> list[Block]:
    told = [("How", _how(family)), ("Cost", sentences.final_cost(family))]
    if family.runs:
        told.insert(1, (ROBUSTNESS, sentences.robustness(family)))
    return [Answer(_result(family, results), told), *_configurations(family)]


def _result(family: Family, results: TaskResults) -> str:
    """Say the best that is known: on the test set, confirmed, or of the search; with its phase and seeds."""
    if family.runs:
        draws = f" of {plural(len(family.by_draw()), 'draw')}" if len(family.by_draw()) > 1 else ""
        spread = percent_interval(family.interval) if family.interval else ""
        interval = f"{statistics.INTERVAL} {spread}" if spread else sentences.SINGLE
        return (
            f"{family.name} reaches {percent(family.mean)} % test accuracy on {results.task}: mean over "
            f"{plural(len(family.runs), 'final seed')}{draws} ({interval})."
        )
    first = [own[0] for sweep in family.sweeps if (own := candidates(sweep))]
    if not first:
        return f"{family.name} on {results.task} has no result yet: no trial is done."
    if first[0].confirmed:
        return f"{family.name} on {results.task} is not tested yet; {_confirmed(first)}."
    return f"{family.name} on {results.task} is neither confirmed nor tested yet; {_searched(first)}."


def _confirmed(first: Sequence[CandidateRow]) -> str:
    one = first[0]
    of = f" in draw {one.sweep.draw}" if len(first) > 1 else ""
    sd = statistics.spread(one.confirmed)
    spread = "" if sd is None else f", sd {points(sd).lstrip('+')}"
    return (
        f"the crowned configuration has a validation accuracy of {percent(one.mean)} %{of}: mean over "
        f"{plural(len(one.confirmed), 'confirm seed')}{spread}"
    )


def _searched(first: Sequence[CandidateRow]) -> str:
    one = first[0]
    of = f" in draw {one.sweep.draw}" if len(first) > 1 else ""
    done = len(ranked(one.sweep.trials))
    return (
        f"the best search trial has a validation accuracy of {percent(one.searched)} %{of}: one seed, chosen as the "
        f"best of {plural(done, 'trial')}, so too high as an estimate"
    )


def _how(family: Family) -> str:
    """Say how the configuration came about, each value with its phase and seeds."""
    first = [own[0] for sweep in family.sweeps if (own := candidates(sweep))]
    if not first:
        return "No search trial is done."
    told = f"Search: {_searched(first)}."
    if not family.runs:  # that was the result
        told = f"Found as search trial {first[0].number}; `sweep final` confirms the best over seeds."
    if first[0].confirmed:
        told = f"Search trial {first[0].number} was crowned: {_confirmed(first)}. In the search it had " + (
            f"{percent(first[0].searched)} %, of one seed."
        )
    failed = sum(run.failed for run in family.runs)
    return f"{told} {plural(failed, 'failed final run')} counted as chance." if failed else told


def _configurations(family: Family) -> list[Block]:
    found = [own[0] for sweep in family.sweeps if (own := candidates(sweep))]
    made: list[Block] = []
    for one in found:
        what = "Crowned configuration" if one.crowned else "Configuration of the best search trial"
        where = f", draw {one.sweep.draw}" if len(found) > 1 else ""
        trial = next((row for row in one.sweep.trials if row.number == one.number), None)
        items = [(name, written(value)) for name, value in sorted(one.parameters.items())]
        items += (
            [("epochs", str(trial.epochs)), ("weights of the network", count(trial.model_parameters))] if trial else []
        )
        made.append(Facts(f"{what} (search trial {one.number}{where})", items))
    return made
