"""Say of each final network whether it is an ODE, by the rule of `odenet.diagnostics.validity`, and of the control."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from odenet.diagnostics.validity import MOST_DROP, MOST_ERRORS, AccuracyChange, Validity, judge, paired_error
from odenet.enums import Scheme
from sweep.records.rows import MANIFESTATION, REESTIMATED, EvaluationRow
from sweep.report.elements import NONE, Block, Notice, Table, Text, listing, plural, points
from sweep.report.load import Sweep
from sweep.report.results import BASELINE, TaskResults, is_trained
from sweep.report.statistics import spread

WORDS = {True: "yes", False: "no", None: "not applicable"}
RULE = (
    "A network is called an ODE if its largest drop of test accuracy among {2, 4 times the steps of its own scheme; "
    f"RK4 at as many steps and twice}} is at most {points(MOST_DROP).lstrip('+')} points and at most "
    f"{MOST_ERRORS:g} of its standard errors, paired by image. h* "
    "is the longest step of its own scheme, relative to the trained one, that passes as all shorter ones do."
)


@dataclass(frozen=True, slots=True)
class ValidityRow:
    """The verdicts on one final network. `reestimated`: with batch norms estimated anew; None: not measured."""

    family: str
    draw: int
    seed: int
    trained: str
    n: int
    stored: Validity
    reestimated: Validity | None


def validity_rows(results: TaskResults) -> list[ValidityRow]:
    """List the networks that were measured under other manifestations, in the order of families, draws and seeds."""
    found = []
    for family in results.families:
        for sweep in family.sweeps:
            stored, again = _by_seed(sweep, MANIFESTATION), _by_seed(sweep, REESTIMATED)
            for seed, rows in sorted(stored.items()):
                own = next((row for row in rows if row.metric == "accuracy" and is_trained(row)), None)
                if own is None or own.scheme not in Scheme.__members__:
                    continue
                trained = f"{own.trained_scheme}, {plural(own.trained_steps, 'step')}"
                other = _verdict(again[seed]) if seed in again else None
                verdict = _verdict(rows)
                assert verdict is not None
                found.append(ValidityRow(family.name, sweep.draw, seed, trained, own.n, verdict, other))
    return found


def blocks(results: TaskResults) -> list[Block]:
    """Return the verdicts by family, those of every network folded away, and what the control did."""
    rows = validity_rows(results)
    if not rows:
        return []
    return [summary(results, rows), each(rows), *control(rows)]


def summary(results: TaskResults, rows: Sequence[ValidityRow]) -> Table:
    again = any(row.reestimated for row in rows)
    columns = ["family", "networks", "ODE", "mean drop ± SE", "largest drop"]
    columns += ["ODE, batch norm anew", "mean drop ± SE, anew", "largest drop, anew"] if again else []
    body = []
    for family in results.families:
        own = [row for row in rows if row.family == family.name]
        if own:
            anew = [row.reestimated for row in own if row.reestimated]
            body.append([family.name, str(len(own)), *_counted([row.stored for row in own])])
            body[-1] += _counted(anew) if again else []
    caption = f"{RULE} Drops in points, SE over networks; batch norm as stored" + (
        ", and estimated anew on training images under each manifestation." if again else "."
    )
    return Table(caption, columns, body, ("family",))


def each(rows: Sequence[ValidityRow]) -> Table:
    """Give a row to every network."""
    again = any(row.reestimated for row in rows)
    titles = ["drop ± SE", "under", "h*", "ODE"]
    columns = ["family", "draw", "seed", "trained", "images", *titles]
    columns += [f"{title}, anew" for title in titles] if again else []
    body = []
    for row in rows:
        cells = [row.family, str(row.draw), str(row.seed), row.trained, f"{row.n:,}", *_told(row.stored)]
        body.append([*cells, *(_told(row.reestimated) if again else [])])
    caption = "The largest drop of each network in points, with its standard error, and the manifestation it is of."
    words = ("family", "trained", "under", "under, anew")
    return Table(caption, columns, body, words, folded=f"The verdict on each of {plural(len(rows), 'network')}")


def control(rows: Sequence[ValidityRow]) -> list[Block]:
    """Say whether the ResNet failed, which is no ODE by construction."""
    own = [row for row in rows if row.family == BASELINE]
    if not own:
        return [Notice(f"The test has no control here: no network of {BASELINE} was measured under other integrators.")]
    told: list[Block] = [_controlled([row.stored for row in own], "as stored")]
    again = [row.reestimated for row in own if row.reestimated]
    return [*told, _controlled(again, "estimated anew")] if again else told


def _controlled(verdicts: Sequence[Validity], how: str) -> Block:
    judged = [one for one in verdicts if one.valid is not None]
    passed = sum(one.valid is True for one in judged)
    told = f"The control ({BASELINE}, batch norm {how})"
    if not judged:
        return Notice(f"{told} was not measured under a manifestation that the test asks for.")
    if not passed:
        return Text(f"{told} failed in {len(judged)} of {plural(len(judged), 'network')}, as it should.")
    return Notice(
        f"{told} did not fail in {passed} of {plural(len(judged), 'network')}: on these images the test does not tell "
        "an ODE from a ResNet there."
    )


def _by_seed(sweep: Sweep, condition: str) -> dict[int, list[EvaluationRow]]:
    found: dict[int, list[EvaluationRow]] = {}
    for row in sweep.evaluations:
        if row.condition == condition and row.split == "test":
            found.setdefault(row.seed, []).append(row)
    return found


def _verdict(rows: Sequence[EvaluationRow]) -> Validity | None:
    """Judge a network by its rows; None where it was not measured as it was trained."""
    values = {(row.scheme, row.steps, row.metric): row for row in rows if row.scheme in Scheme.__members__}
    own = next((row for row in values.values() if row.metric == "accuracy" and is_trained(row)), None)
    if own is None:
        return None
    changes = []
    for (scheme, steps, metric), row in values.items():
        if metric == "accuracy" and not is_trained(row):
            drop, lost = own.value - row.value, values.get((scheme, steps, "lost"))
            error = None if lost is None or row.n < 2 else paired_error(lost.value, lost.value - drop, row.n)
            changes.append(AccuracyChange(Scheme[scheme], steps / max(1, row.trained_steps), drop, error))
    return judge(Scheme[own.scheme], changes)


def _counted(verdicts: Sequence[Validity]) -> list[str]:
    judged = [one for one in verdicts if one.valid is not None]
    drops = [one.drop for one in judged if one.drop is not None]
    if not drops:
        return [_why(verdicts), NONE, NONE]
    valid = sum(one.valid is True for one in judged)
    sd = spread(drops)
    error = NONE if sd is None else f"{100 * sd / len(drops) ** 0.5:.1f}"
    return [f"{valid} of {len(judged)}", f"{_points(float(np.mean(drops)))} ± {error}", _points(max(drops))]


def _why(verdicts: Sequence[Validity]) -> str:
    reasons = dict.fromkeys(one.reason for one in verdicts)
    return f"{WORDS[None]}: {listing(list(reasons))}" if reasons else NONE


def _told(found: Validity | None) -> list[str]:
    """Write drop and error, the worst manifestation, h* and the verdict."""
    if found is None:
        return [NONE] * 4
    if found.worst is None:
        return [NONE, NONE, NONE, f"{WORDS[found.valid]}: {found.reason}"]
    error = NONE if found.error is None else f"{100 * found.error:.1f}"
    longest = "none" if found.critical_step is None else f"{found.critical_step:.2g}×"
    under = f"{found.worst.scheme.value}, {found.worst.steps:.2g}×"
    return [f"{_points(found.worst.drop)} ± {error}", under, longest, WORDS[found.valid]]


def _points(drop: float) -> str:
    return f"{100 * drop:.1f}".replace("-", "−")
