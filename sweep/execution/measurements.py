"""Measure final networks on Ray's workers, each under each condition."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from odenet.inference.classifier import Classifier
from odenet.training.config import RuntimeConfig
from sweep.cluster.watch import ended
from sweep.config.evaluate_config import EvaluateConfig
from sweep.config.modules import import_kept
from sweep.console import say
from sweep.errors import WorkError
from sweep.execution.session import Session, shipped_texts
from sweep.records.rows import EvaluationRow, TrialRow
from sweep.records.run_directory import kept_modules
from sweep.worker.measurement import Bench, Condition, Measurement, TestSet, measure
from sweep.worker.place import here
from sweep.worker.segment_training import unseen


@dataclass(frozen=True, slots=True, eq=False)
class FinalNetwork:
    """A final trial that ended done, with its network as it is to be used, and by their names other networks whose
    attacks are tried on it."""

    row: TrialRow
    network: Classifier
    others: Mapping[str, Classifier]

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
                source=one.source,
            )


MeasuringTask = tuple[FinalNetwork, Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """The needs of a worker besides a network: its threads, where it finds the user's own modules, what is asked."""

    threads: int
    modules: tuple[str, ...]
    kept_modules: Path
    module_texts: Mapping[str, str]
    evaluate: EvaluateConfig
    runtime: RuntimeConfig
    attacked: Path
    marker: Path | None = None  # of the session's run directory


@dataclass(frozen=True, slots=True)
class UnfitNode:
    """A node, by Ray's id, on which nothing can be measured."""

    node: str
    reason: str


def measure_all(
    session: Session, tasks: Sequence[MeasuringTask], test: TestSet
) -> Iterator[tuple[MeasuringTask, Measurement]]:
    """Measure on workers, and yield what is measured as soon as it is. Workers end with the generator.

    Raises:
        ray.exceptions.RayError: a worker failed. WorkError: no node is left that can measure.
    """
    config, cpus, placement = session.config, session.per_trial["CPU"], session.placement
    remote = ray.remote(num_cpus=cpus, num_gpus=session.gpus_per_trial)(_measure_on)
    setup = WorkerSetup(
        threads=int(cpus),
        modules=tuple(config.modules),
        kept_modules=kept_modules(config, session.name),
        module_texts=shipped_texts(config),
        evaluate=config.evaluate,
        runtime=config.runtime.for_training(),
        attacked=session.files.attacked,
        marker=placement.marker,
    )
    shared = ray.put((setup, test))
    networks = {one.row.number: one for one, _ in tasks}
    pickled = {number: ray.put(pickle.dumps(one)) for number, one in networks.items()}

    def sent(task: MeasuringTask) -> Any:
        there = remote.options(label_selector=placement.left_out.selector())
        return there.remote(shared, task[1], pickled[task[0].row.number])

    waiting = {sent(task): task for task in tasks}
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            task, found = waiting.pop(ready), ray.get(ready)
            if isinstance(found, Measurement):
                yield task, found
            else:
                _leave_out(session, found)
                waiting[sent(task)] = task
    finally:
        for reference in () if ended() else waiting:
            ray.cancel(reference, force=True)  # else Ray is shut down under them, and its C++ code says so


def _leave_out(session: Session, unfit: UnfitNode) -> None:
    """Send nothing more to a node, and say so once. WorkError: no node is left."""
    placement = session.placement
    if unfit.node not in placement.left_out.reasons:
        say(f"{session.name}: {unfit.reason}; it is measured elsewhere", session.console)
    placement.left_out.add(unfit.node, unfit.reason)
    if obstacle := placement.obstacle():
        raise WorkError(f"The evaluation of {session.name} stopped: {obstacle}. What was measured is kept.")


def _measure_on(shared: tuple[WorkerSetup, TestSet], condition: Condition, pickled: bytes) -> Measurement | UnfitNode:
    """Measure a network that is unpickled only when the modules are there that it may be of."""
    setup, test = shared
    if (unfit := unseen(setup.marker)) is not None:
        return UnfitNode(here().node, unfit.reason)
    torch.set_num_threads(setup.threads)
    import_kept(setup.modules, setup.kept_modules, setup.module_texts)
    one: FinalNetwork = pickle.loads(pickled)
    bench = Bench(
        model=one.network, test=test, config=setup.evaluate, runtime=setup.runtime, others=one.others,
        attacked=setup.attacked / str(one.row.seed),
    )  # fmt: skip
    return measure(condition, bench)
