"""`sweep evaluate NAME`: measure the final networks on test images -> rows.csv, predictions.npz, test_use.jsonl.

The only stage that reads test images. Each network is measured once under each condition; what one session has measured
the next one keeps, so that a stage that was cut short goes on, and conditions can be added.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import ray
import torch

from odenet.data.sets import duplicate_free, load_test
from odenet.inference.classifier import Classifier
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import RuntimeConfig
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.config.modules import import_kept
from sweep.config.schema import AppConfig
from sweep.errors import InputError, WorkError
from sweep.execution.mlflow_runs import SweepRun
from sweep.execution.session import Session
from sweep.records.outcome import Outcome
from sweep.records.predictions import Predictions, read_predictions, write_predictions
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles, kept_modules, run_directory
from sweep.records.tables import read_rows, write_rows
from sweep.records.test_use import TestUse, read_test_use, record_test_use
from sweep.stages.model_card import model_card
from sweep.worker.measurement import Bench, Measurement, Part, TestSet, measure


@dataclass(frozen=True, slots=True, eq=False)
class FinalNetwork:
    """A final trial that ended done, with its network as it is to be used."""

    row: TrialRow
    network: Classifier

    def rows(self, found: Measurement) -> Iterator[EvaluationRow]:
        """Yield the rows of what was measured of it."""
        trial, course = self.row, self.network.network.depths()[-1].course
        for one in found.values:
            yield EvaluationRow(
                family=trial.family,
                dataset=trial.dataset,
                per_class=trial.per_class,
                draw=trial.draw,
                seed=trial.seed,
                scheme=one.scheme.value,
                steps=one.steps,
                condition=one.condition,
                severity=one.severity,
                split="test",
                metric=one.metric,
                value=one.value,
                n=one.n,
                trained_scheme=course.scheme.value,
                trained_steps=course.steps,
                config_hash=trial.config_hash,
                data_hash=trial.data_hash,
            )


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEvaluation:
    """The final networks, the test set, what is known already, and what is to be measured: of which network what."""

    networks: list[FinalNetwork]
    test: TestSet
    known: "Results"
    tasks: list[tuple[FinalNetwork, Part]]


class Results:
    """What was measured so far: rows.csv and predictions.npz, each replaced as a whole whenever a part is measured."""

    def __init__(self, files: SweepFiles) -> None:
        self._files = files
        self.rows = read_rows(files.rows, EvaluationRow) if files.rows.exists() else []
        self._predictions = read_predictions(files.predictions) if files.predictions.exists() and self.rows else None

    def severities(self, row: TrialRow, part: Part) -> set[float]:
        """Return the severities of a condition that are known of a network."""
        mine = [one for one in self.rows if (one.seed, one.config_hash) == (row.seed, row.config_hash)]
        return {one.severity for one in mine if f"{one.condition}/".startswith(f"{part.condition}/")}

    def check_networks(self, name: str, networks: Sequence[FinalNetwork]) -> None:
        """Refuse rows of other networks than these: InputError."""
        mine = {(one.row.seed, one.row.config_hash) for one in networks}
        foreign = next((row for row in self.rows if (row.seed, row.config_hash) not in mine), None)
        if foreign is not None:
            raise InputError(
                f"{self._files.rows} has results of a network that is not in {self._files.final.trials}: seed "
                f"{foreign.seed}, config_hash {foreign.config_hash}. They are of another final training. Move the file "
                f"away to measure the networks of {name} again, and say so where you report it."
            )

    def add(self, network: FinalNetwork, found: Measurement, test: TestSet) -> list[EvaluationRow]:
        """Write down what was measured of a network. StorageError: it could not be."""
        if found.classes_B is not None:
            self._predictions = _with(self._predictions, network.row.seed, found.classes_B, test)
            write_predictions(self._files.predictions, self._predictions)
        rows = list(network.rows(found))
        self.rows = sorted([*self.rows, *rows], key=_place)
        write_rows(self._files.rows, EvaluationRow, self.rows)
        return rows


def _place(row: EvaluationRow) -> tuple[int, int, str]:
    """Order rows by network and condition, whichever was measured first."""
    kinds = [kind.value for kind in ConditionKind]
    return row.seed, kinds.index(row.condition.partition("/")[0]), row.condition


def _with(known: Predictions | None, seed: int, classes_B: np.ndarray, test: TestSet) -> Predictions:
    labels_B, indices_B, row_B = test.images.labels_B, test.images.indices_B, classes_B.astype(np.int16)
    if known is None:
        return Predictions(labels_B, indices_B, row_B[None], np.array([seed]))
    others = known.seeds_R != seed
    seeds_R = np.append(known.seeds_R[others], seed)
    return replace(known, classes_RN=np.vstack([known.classes_RN[others], row_B]), seeds_R=seeds_R)


def prepare_evaluate(config: AppConfig, name: str) -> PreparedEvaluation:
    """Read the final networks, each once, the data, and what is known already.

    Raises:
        InputError: there are no final networks, all was measured already, or a file is not there or damaged.
    """
    files = SweepFiles(run_directory(config, name))
    rows, known, data_dir = final_networks(files), Results(files), config.runtime.data_dir
    if not rows:
        raise InputError(f"{name} has no final network: run `sweep final {name}` first.")
    read_test_use(files.test_use)
    wanted = {row.number: _missing(known, row, config.evaluate) for row in rows}
    if not any(wanted.values()):
        asked = ", ".join(kind.value for kind in config.evaluate.conditions)
        raise InputError(
            f"{name} was evaluated already ({asked}) and test data is used once; {files.rows} has the result. Other "
            f"conditions can be added: evaluate.conditions=[...] of {', '.join(kind.value for kind in ConditionKind)}. "
            "To measure again remove that file, and say so where you report it."
        )
    try:
        config.check_device()
        test = TestSet(load_test(config.data, data_dir), duplicate_free(config.data, data_dir))
        networks = [FinalNetwork(row, _classifier(files, row, data_dir)) for row in rows]
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    known.check_networks(name, networks)
    tasks = [(one, part) for one in networks for part in wanted[one.row.number]]
    order = [kind for kind in ConditionKind if kind in config.evaluate.conditions]
    return PreparedEvaluation(networks, test, known, sorted(tasks, key=lambda task: order.index(task[1].kind)))


def final_networks(files: SweepFiles) -> list[TrialRow]:
    """Return the final trials that ended done, whose networks are there. InputError: damaged."""
    final = read_rows(files.final.trials, TrialRow) if files.final.trials.exists() else []
    return [row for row in final if row.phase is Phase.final and row.outcome is Outcome.done]


def is_measured(config: AppConfig, name: str) -> bool:
    """Tell whether nothing is left to be measured of the final networks, if there are any. InputError: damaged."""
    files = SweepFiles(run_directory(config, name))
    known = Results(files)
    return not any(_missing(known, row, config.evaluate) for row in final_networks(files))


def parts(config: EvaluateConfig) -> list[Part]:
    """List what is to be measured of every network."""
    return [Part(kind, kind.value) for kind in config.conditions]


def _missing(known: Results, row: TrialRow, config: EvaluateConfig) -> list[Part]:
    """Return what of the wanted is not known of the network of this trial."""
    left = [replace(part, severities=_left(part, known.severities(row, part))) for part in parts(config)]
    return [part for part in left if part.severities]


def _left(part: Part, known: set[float]) -> tuple[float, ...]:
    return tuple(severity for severity in part.severities if severity not in known)


def _classifier(files: SweepFiles, row: TrialRow, data_dir: str) -> Classifier:
    return load_checkpoint(files.checkpoint(row.number)).classifier(data_dir=data_dir)


def evaluate(session: Session, prepared: PreparedEvaluation) -> None:
    """Measure what is not known yet, and write it down part by part.

    Raises:
        WorkError: a worker failed; what was measured is kept, and the stage goes on with the rest when it is run again.
    """
    _say_used_before(session, prepared)
    try:
        for network, part, found in _measure_all(session, prepared):
            record_test_use(session.files.test_use, [_use(network, part)])
            rows = prepared.known.add(network, found, prepared.test)
            _say(session, network, part, rows)
    except ray.exceptions.RayError as error:
        raise WorkError(
            f"The evaluation of {session.name} failed: {str(error).strip().splitlines()[-1]} Its final networks are "
            f"kept in {session.files.final.directory}, what was measured in {session.files.rows}; go on with `sweep "
            f"evaluate {session.name}`."
        ) from error
    _tell_mlflow(session, prepared)


def _measure_all(session: Session, prepared: PreparedEvaluation) -> Iterator[tuple[FinalNetwork, Part, Measurement]]:
    """Measure on workers, and yield what is measured as soon as it is."""
    config, cpus = session.config, session.per_trial["CPU"]
    task = ray.remote(num_cpus=cpus, num_gpus=session.gpus_per_trial)(_measure_on)
    setup = WorkerSetup(
        threads=int(cpus),
        modules=tuple(config.modules),
        kept_modules=kept_modules(config, session.name),
        evaluate=config.evaluate,
        runtime=config.runtime.for_training(),
    )
    test = ray.put(prepared.test)
    pickled = {one.row.number: ray.put(pickle.dumps(one.network)) for one in prepared.networks}
    waiting = {
        task.remote(setup, part, pickled[network.row.number], test): (network, part) for network, part in prepared.tasks
    }
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        yield *waiting.pop(ready), ray.get(ready)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker needs besides a network: its threads, where it finds the user's own modules, what is asked."""

    threads: int
    modules: tuple[str, ...]
    kept_modules: Path
    evaluate: EvaluateConfig
    runtime: RuntimeConfig


def _measure_on(setup: WorkerSetup, part: Part, network: bytes, test: TestSet) -> Measurement:
    """Measure a network that is unpickled only when the modules are there that it may be of."""
    torch.set_num_threads(setup.threads)
    import_kept(setup.modules, setup.kept_modules)
    return measure(part, Bench(pickle.loads(network), test, setup.evaluate, setup.runtime))


def _use(network: FinalNetwork, part: Part) -> TestUse:
    row, now = network.row, datetime.now(UTC).isoformat(timespec="seconds")
    return TestUse(config_hash=row.config_hash, draw=row.draw, seed=row.seed, condition=part.condition, when=now)


def _say(session: Session, network: FinalNetwork, part: Part, rows: Sequence[EvaluationRow]) -> None:
    accuracies = [row.value for row in rows if row.metric == "accuracy"]
    mean = f", mean accuracy {fmean(accuracies):.1%}" if accuracies else ""
    session.console.print(
        f"{session.name}: {part.condition} of final trial {network.row.number}{mean}", highlight=False
    )


def _say_used_before(session: Session, prepared: PreparedEvaluation) -> None:
    files = session.files
    for former in files.former_finals:
        if former.rows.exists():
            session.console.print(
                f"The test set was used before, for {former.directory.name}: {former.rows} has the result; say so "
                "where you report this one.",
                highlight=False,
            )
    used = {use.key: use.when for use in read_test_use(files.test_use)}
    gone = [task for task in prepared.tasks if not prepared.known.severities(task[0].row, task[1])]
    again = [used[key] for network, part in gone if (key := _use(network, part).key) in used]
    if again:
        session.console.print(
            f"{len(again)} of these measurements were made before, first at {min(again)}, and their result is not in "
            f"{files.rows} any more; {files.test_use.name} keeps that: say so where you report this one.",
            highlight=False,
        )


def _tell_mlflow(session: Session, prepared: PreparedEvaluation) -> None:
    run, first = SweepRun(session), min((one.row for one in prepared.networks), key=lambda row: row.number)
    clean = {(row.seed, row.metric): row.value for row in prepared.known.rows if row.condition == CLEAN}
    scores = [
        (one.row, {f"test/{metric}": clean[one.row.seed, metric] for metric in ("accuracy", "loss")})
        for one in prepared.networks
        if (one.row.seed, "accuracy") in clean
    ]
    run.evaluated(scores)
    run.describes(first, model_card(session, first, read_rows(session.files.final.trials, TrialRow)))
