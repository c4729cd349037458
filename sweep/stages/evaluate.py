"""`sweep evaluate NAME`: measure the final networks on test images -> rows.csv, predictions.npz, test_use.jsonl.

The only stage that measures on test images; `sweep export` runs a network on them without their labels. Each network
is measured once under each condition; what one session has measured the next one keeps, so that a stage that was cut
short goes on, and conditions can be added.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import ray

from odenet.data.config import Portion
from odenet.data.sets import duplicate_free, load_test
from odenet.data.subsets import balanced_test, load_data
from odenet.enums import Corruption
from odenet.inference.classifier import Classifier
from odenet.robustness.attackable import check_attack
from odenet.robustness.config import Attack
from odenet.robustness.corruptions import left_out as unsuitable
from odenet.robustness.weather import read_overlays
from odenet.training.checkpoint import load_checkpoint
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.config.schema import AppConfig
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.execution.interrupt import Interrupted
from sweep.execution.measurements import FinalNetwork, MeasuringTask, measure_all
from sweep.execution.mlflow_runs import SweepRun
from sweep.execution.session import Session
from sweep.records.evaluation import EvaluationFiles, TestUse, read_test_use, record_test_use
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, CORRUPTION, Phase, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.records.summary import SweepSummary, named
from sweep.records.tables import read_rows
from sweep.stages.model_card import model_card
from sweep.worker.measurement import Condition, Measurement, TestSet

LEARNED = {ConditionKind.manifestation_reestimated, ConditionKind.diagnostics}  # these need training images


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEvaluation:
    """The final networks, the test set, what is known already, and what is to be measured: of which network what.

    `left_out`: what was asked for and cannot be measured here, a sentence each.
    """

    networks: list[FinalNetwork]
    test: TestSet
    known: EvaluationFiles
    tasks: list[MeasuringTask]
    left_out: list[str]


def prepare_evaluate(config: AppConfig, name: str) -> PreparedEvaluation:
    """Read the final networks, each once, the data, and what is known already.

    Raises:
        InputError: there are no final networks, all was measured already, or a file is not there or damaged.
    """
    files, asked = SweepFiles(run_directory(config, name)), config.evaluate
    rows = final_networks(files)
    if not rows:
        raise InputError(f"{name} has no final network: run `sweep final {name}` first.")
    known = EvaluationFiles(files, rows)
    known.check_networks()
    try:
        wanted, left_out = conditions(config)
        missing = {row.number: _missing(known, row, wanted) for row in rows}
        if not any(missing.values()):
            raise InputError(_measured_already(name, files, asked, left_out))
        config.check_device()
        loaded = {row.number: _classifier(files, row, config) for row in rows}
        others = _others(config, name) if ConditionKind.attack in asked.conditions else {}
        test, siblings = _test_set(config), loaded if Attack.transfer in asked.attack.attacks else {}
        networks = [FinalNetwork(row, loaded[row.number], others | _sibling(row, siblings)) for row in rows]
        if test.attacked is not None:
            for one in networks:
                check_attack(one.network, test.attacked, asked.attack, one.others)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    tasks = [
        (one, replace(condition, severities=left))
        for condition in wanted
        for one in networks
        if (left := missing[one.row.number].get(condition))
    ]
    return PreparedEvaluation(networks, test, known, tasks, left_out)


def _measured_already(name: str, files: SweepFiles, asked: EvaluateConfig, left_out: list[str]) -> str:
    kinds = ", ".join(kind.value for kind in asked.conditions)
    possible = ", ".join(kind.value for kind in ConditionKind)
    return (
        f"{name} was evaluated already ({kinds}) and test data is used once; {files.rows} has the result. "
        f"{''.join(f'{one} ' for one in left_out)}Other conditions can be added by evaluate.conditions=[...] of "
        f"{possible}. To measure again remove that file, and say so where you report it."
    )


def final_networks(files: SweepFiles) -> list[TrialRow]:
    """Return the final trials that ended done, whose networks are there. InputError: damaged."""
    final = read_rows(files.final.trials, TrialRow) if files.final.trials.exists() else []
    return [row for row in final if row.phase is Phase.final and row.outcome is Outcome.done]


def is_measured(config: AppConfig, name: str) -> bool:
    """Tell whether nothing is left to be measured of the final networks, if there are any. InputError: damaged, or the
    test images are needed to tell, and not there."""
    files = SweepFiles(run_directory(config, name))
    try:
        wanted, _ = conditions(config)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    rows = final_networks(files)
    known = EvaluationFiles(files, rows) if rows else None
    return known is None or not any(_missing(known, row, wanted) for row in rows)


def conditions(config: AppConfig) -> tuple[list[Condition], list[str]]:
    """List what is to be measured of every network, and a sentence for each thing asked for that cannot be. ValueError:
    the test images are needed to tell, and not there."""
    found, left_out = list[Condition](), list[str]()
    for kind in ConditionKind:
        if kind not in config.evaluate.conditions:
            continue
        if kind is ConditionKind.corruption:
            corrupted, left_out = _corruptions(config)
            found += corrupted
        else:
            found.append(Condition(kind, kind.value))
    return found, left_out


def check_measurable(config: AppConfig) -> None:
    """Raise InputError where the test set has not the images that the conditions ask for."""
    try:
        conditions(config)
        if ConditionKind.attack in config.evaluate.conditions:
            balanced_test(config.data, config.runtime.data_dir, count=config.evaluate.attack.images)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def _corruptions(config: AppConfig) -> tuple[list[Condition], list[str]]:
    asked, frost = config.evaluate, Path(config.runtime.data_dir).expanduser() / "frost"
    images = load_test(config.data, config.runtime.data_dir)
    without = {one: reason for one, reason in unsuitable(images).items() if one in asked.corruptions}
    if Corruption.frost in asked.corruptions and Corruption.frost not in without:
        try:
            read_overlays(frost, images.pixels_BCHW.shape[1:])
        except ValueError as error:
            without[Corruption.frost] = str(error)
    severities = tuple(float(severity) for severity in sorted(asked.severities))
    found = [
        Condition(ConditionKind.corruption, f"{CORRUPTION}/{one.value}", severities)
        for one in asked.corruptions
        if one not in without
    ]
    if not found:
        raise ValueError(f"evaluate.corruptions: none can be measured. {' '.join(without.values())}")
    return found, [f"Left out: {reason}" for reason in without.values()]


def _missing(known: EvaluationFiles, row: TrialRow, wanted: Sequence[Condition]) -> dict[Condition, tuple[float, ...]]:
    """Return what of the wanted is not known of the network of this trial: of which condition which severities."""
    left = {
        one: tuple(severity for severity in one.severities if severity not in known.severities(row, one.name))
        for one in wanted
        if one.kind is ConditionKind.corruption or not known.severities(row, one.name)
    }
    return {one: severities for one, severities in left.items() if severities}


def _classifier(files: SweepFiles, row: TrialRow, config: AppConfig) -> Classifier:
    return load_checkpoint(files.checkpoint(row.number)).classifier(data_dir=config.runtime.data_dir)


def _others(config: AppConfig, name: str) -> dict[str, Classifier]:
    """Load the first final network of each sweep that attacks are taken over from."""
    found = {}
    for other in config.evaluate.transfer:
        files = SweepFiles(run_directory(config, other))
        rows = final_networks(files)
        if other == name or not rows:
            raise InputError(
                f"evaluate.transfer={other}: {'is this sweep' if other == name else 'it has no final network'}; "
                "possible are other sweeps that have, such as the baseline's of the same draw."
            )
        found[other.replace("/", ".")] = _classifier(files, min(rows, key=lambda row: row.number), config)
    return found


def _sibling(row: TrialRow, networks: dict[int, Classifier]) -> dict[str, Classifier]:
    """Return the first network that was trained from another seed, if there is one."""
    others = [network for number, network in networks.items() if number != row.number]
    return {"sibling": others[0]} if others else {}


def _test_set(config: AppConfig) -> TestSet:
    data_dir, asked = config.runtime.data_dir, config.evaluate
    learned = replace(config.data, portion=Portion.trainval)  # what final networks are trained on
    return TestSet(
        images=load_test(config.data, data_dir),
        duplicate_free_B=duplicate_free(config.data, data_dir),
        attacked=(
            balanced_test(config.data, data_dir, count=asked.attack.images)
            if ConditionKind.attack in asked.conditions
            else None
        ),
        training=load_data(learned, data_dir).train if LEARNED & set(asked.conditions) else None,
    )


def evaluate(session: Session, prepared: PreparedEvaluation) -> None:
    """Measure what is not known yet, and write it down condition by condition.

    Raises:
        WorkError, Interrupted: a worker failed, or the user stopped it. What was measured is kept for the next time.
    """
    for sentence in [*prepared.left_out, *_used_before(session, prepared)]:
        say(sentence, session.console)
    left = Counter(condition.name for _, condition in prepared.tasks)
    try:
        for task, found in measure_all(session, prepared.tasks, prepared.test):
            _write_down(session, prepared, task, found)
            name = task[1].name
            left[name] -= 1
            if not left[name]:
                say(f"{session.name}: {_measured(prepared, name)}", session.console)
    except (ray.exceptions.RayError, KeyboardInterrupt) as error:
        kept = prepared.known.goes_on(session.name, sum(left.values()))
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(kept) from error
        raise WorkError(f"The evaluation failed: {str(error).strip().splitlines()[-1]} {kept}") from error
    _tell_mlflow(session, prepared)


def _write_down(session: Session, prepared: PreparedEvaluation, task: MeasuringTask, found: Measurement) -> None:
    (network, _), images = task, prepared.test.images
    rows = list(network.rows(found))
    record_test_use(session.files.test_use, [_use(*task)])
    if found.classes_B is not None:
        prepared.known.predicts(network.row.seed, found.classes_B, images.labels_B, images.indices_B)
    prepared.known.add(rows, [one.row.seed for one in prepared.networks])


def _measured(prepared: PreparedEvaluation, condition: str) -> str:
    """Say what all networks of a sweep reach under a condition."""
    accuracies = [row.value for row in prepared.known.rows if (row.condition, row.metric) == (condition, "accuracy")]
    mean = f", mean accuracy {fmean(accuracies):.1%}" if accuracies else ""
    return f"{condition} measured of {len(prepared.networks)} final networks{mean}"


def _use(network: FinalNetwork, condition: Condition) -> TestUse:
    row, now = network.row, datetime.now(UTC).isoformat(timespec="seconds")
    return TestUse(config_hash=row.config_hash, draw=row.draw, seed=row.seed, condition=condition.name, when=now)


def _used_before(session: Session, prepared: PreparedEvaluation) -> Iterator[str]:
    """Say where the test set was used before for results that are not among the present ones."""
    files = session.files
    for former in files.former_finals:
        if former.rows.exists():
            yield (
                f"The test set was used before, for {former.directory.name}: {former.rows} has the result; say so "
                "where you report this one."
            )
    if prepared.known.partial:
        yield f"Counts as not measured, because a part is missing: {named(prepared.known.partial)}."
    used = {use.key: use.when for use in read_test_use(files.test_use)}
    gone = [task for task in prepared.tasks if not prepared.known.severities(task[0].row, task[1].name)]
    again = [used[key] for task in gone if (key := _use(*task).key) in used]
    if again:
        yield (
            f"{len(again)} of these measurements were made before, first at {min(again)}, and their result is not in "
            f"{files.rows} any more; {files.test_use.name} keeps that: say so where you report this one."
        )


def _tell_mlflow(session: Session, prepared: PreparedEvaluation) -> None:
    run, first = SweepRun(session), min((one.row for one in prepared.networks), key=lambda row: row.number)
    clean = {(row.seed, row.metric): row.value for row in prepared.known.rows if row.condition == CLEAN}
    tried = [one.row for one in prepared.networks if (one.row.seed, "accuracy") in clean]
    scores = [(row, {f"test/{metric}": clean[row.seed, metric] for metric in ("accuracy", "loss")}) for row in tried]
    run.evaluated(scores)
    run.describes(first, model_card(session, first, read_rows(session.files.final.trials, TrialRow)))
    if (tested := SweepSummary.read(session.files).tested) is not None:
        seeds, failed = (
            "one fresh seed" if tested.n == 1 else f"mean over {tested.n} fresh seeds",
            tested.n - len(scores),
        )
        lost = f", of which {failed} failed, counted as chance" if failed else ""
        say(f"{session.name}: test accuracy {tested}, {seeds}{lost}; {session.files.rows} has all", session.console)
