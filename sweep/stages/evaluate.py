"""`sweep evaluate NAME`: test the final networks as trained and under other schemes and steps -> rows.csv.

The only stage that reads test images, and it does so once.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from odenet.data.batches import Batches, Statistics
from odenet.data.sets import Images, load_test
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import RuntimeConfig
from odenet.training.evaluation import Score, manifestations
from odenet.training.evaluation import evaluate as score
from sweep.config.modules import import_kept
from sweep.config.schema import AppConfig, EvaluateConfig
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.execution.mlflow_runs import SweepRun
from sweep.execution.session import Session
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, MANIFESTATION, EvaluationRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles, kept_modules, run_directory
from sweep.records.summary import SweepSummary
from sweep.records.tables import read_rows, write_rows
from sweep.stages.model_card import model_card


@dataclass(frozen=True, slots=True)
class Measured:
    """A network's score under one manifestation."""

    condition: str
    scheme: Scheme
    steps: int
    score: Score


@dataclass(frozen=True, slots=True)
class PreparedEvaluation:
    """The final networks that ended done, as they are to be used, and their trials; the test set."""

    rows: list[TrialRow]
    networks: list[Classifier]
    test: Images


def prepare_evaluate(config: AppConfig, name: str) -> PreparedEvaluation:
    """Read the final networks, each once, and the data.

    Raises:
        InputError: there are no final networks, the test set was used already, or its files are not there.
    """
    files = SweepFiles(run_directory(config, name))
    final = read_rows(files.final.trials, TrialRow) if files.final.trials.exists() else []
    rows = [row for row in final if row.phase is Phase.final and row.outcome is Outcome.done]
    if not rows:
        raise InputError(f"{name} has no final network: run `sweep final {name}` first.")
    if files.rows.exists():
        raise InputError(
            f"{name} was evaluated already and test data is used once; {files.rows} has the result. "
            "To measure again remove that file, and say so where you report it."
        )
    try:
        config.check_device()
        test = load_test(config.data, config.runtime.data_dir)
        checkpoints = [load_checkpoint(files.checkpoint(row.number)) for row in rows]
        networks = [one.classifier(data_dir=config.runtime.data_dir) for one in checkpoints]
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    return PreparedEvaluation(rows, networks, test)


def evaluate(session: Session, prepared: PreparedEvaluation) -> None:
    """Measure every final network and write rows.csv.

    Raises:
        WorkError: a worker failed; nothing is written, so the stage can be run again.
    """
    try:
        measured = _measure_all(session, prepared)
    except ray.exceptions.RayError as error:
        raise WorkError(
            f"The evaluation of {session.name} failed: {str(error).strip().splitlines()[-1]} Its final networks are "
            f"kept in {session.files.final.directory}; go on with `sweep evaluate {session.name}`."
        ) from error
    results = list(zip(prepared.rows, measured, strict=True))
    write_rows(session.files.rows, EvaluationRow, [row for trial, found in results for row in _rows(trial, found)])
    clean = [(trial, found[0].score) for trial, found in results]
    scores = [(trial, {"test/accuracy": one.accuracy, "test/loss": one.loss}) for trial, one in clean]
    run, first = SweepRun(session), min(prepared.rows, key=lambda row: row.number)
    run.evaluated(scores)
    run.describes(first, model_card(session, first, read_rows(session.files.final.trials, TrialRow)))
    if (tested := SweepSummary.read(session.files).tested) is not None:
        seeds = "one fresh seed" if tested.n == 1 else f"mean over {tested.n} fresh seeds"
        failed = tested.n - len(prepared.rows)
        lost = f", of which {failed} failed, counted as chance" if failed else ""
        say(f"{session.name}: test accuracy {tested}, {seeds}{lost}; {session.files.rows} has all", session.console)
    for former in session.files.former_finals:
        if former.rows.exists():
            say(
                f"The test set was used before, for {former.directory.name}: {former.rows} has the result; say so "
                "where you report this one.",
                session.console,
            )


def _measure_all(session: Session, prepared: PreparedEvaluation) -> list[list[Measured]]:
    config, per_trial = session.config, session.per_trial
    task = ray.remote(num_cpus=per_trial["CPU"], num_gpus=session.gpus_per_trial)(_measure_on)
    parts = (prepared.test, config.evaluate, config.runtime.for_training())
    shared = [ray.put(part) for part in parts]
    place = Place(int(per_trial["CPU"]), tuple(config.modules), kept_modules(config, session.name))
    return ray.get([task.remote(place, pickle.dumps(network), *shared) for network in prepared.networks])


@dataclass(frozen=True, slots=True)
class Place:
    """The threads of a worker, and where it finds the user's own modules."""

    threads: int
    modules: tuple[str, ...]
    kept_modules: Path


def _measure_on(place: Place, network: bytes, *arguments: Any) -> list[Measured]:
    """Measure a network that is unpickled only when the modules are there that it may be of."""
    torch.set_num_threads(place.threads)
    import_kept(place.modules, place.kept_modules)
    return measure(pickle.loads(network), *arguments)


def measure(network: Classifier, test: Images, config: EvaluateConfig, runtime: RuntimeConfig) -> list[Measured]:
    """Measure a network on the whole test set, and on a part of it under every manifestation that makes sense of its
    rate.

    Runs on a worker.
    """
    device = runtime.torch_device()
    model, statistics = network.to(device), Statistics.identity(network.images.channels)
    course = model.network.depths()[-1].course
    whole = Batches(test, statistics=statistics, device=device)
    part = Batches(class_balanced(test, config.manifestation_images), statistics=statistics, device=device)
    clean = Measured(CLEAN, course.scheme, course.steps, score(model, whole, batch_size=config.batch_size))
    others = manifestations(model, part, config.schemes, config.step_factors, config.batch_size)
    return [clean, *(Measured(MANIFESTATION, one.scheme, one.steps, one.score) for one in others)]


def class_balanced(images: Images, count: int | None) -> Images:
    """Take the first images of every class in file order, `count` in all (None: all); the same for every network."""
    if count is None or count >= len(images):
        return images
    labels = images.labels_B
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    chosen = np.sort(np.lexsort((labels, rank))[:count])
    return Images(images.pixels_BCHW[chosen], labels[chosen], images.indices_B[chosen])


def _rows(trial: TrialRow, results: list[Measured]) -> list[EvaluationRow]:
    trained = results[0]
    return [
        EvaluationRow(
            family=trial.family,
            dataset=trial.dataset,
            per_class=trial.per_class,
            draw=trial.draw,
            seed=trial.seed,
            scheme=result.scheme.value,
            steps=result.steps,
            condition=result.condition,
            severity=0.0,
            split="test",
            metric=metric,
            value=value,
            n=result.score.n,
            trained_scheme=trained.scheme.value,
            trained_steps=trained.steps,
            config_hash=trial.config_hash,
            data_hash=trial.data_hash,
        )
        for result in results
        for metric, value in (("accuracy", result.score.accuracy), ("loss", result.score.loss))
    ]
