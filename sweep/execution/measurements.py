"""Measure final networks on Ray's workers, each under each condition."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from odenet.inference.classifier import Classifier
from odenet.training.config import RuntimeConfig
from sweep.config.evaluate_config import EvaluateConfig
from sweep.config.modules import import_kept
from sweep.execution.session import Session
from sweep.records.run_directory import kept_modules
from sweep.worker.measurement import Bench, Condition, Measurement, TestSet, measure


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network to be measured, by its seed, and name to a network whose attacks are tried on it."""

    seed: int
    network: Classifier
    others: Mapping[str, Classifier]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker needs besides a network: its threads, where it finds the user's own modules, what is asked."""

    threads: int
    modules: tuple[str, ...]
    kept_modules: Path
    evaluate: EvaluateConfig
    runtime: RuntimeConfig
    attacked: Path


def measure_all(
    session: Session, subjects: Sequence[Subject], wanted: Sequence[tuple[int, Condition]], test: TestSet
) -> Iterator[tuple[int, Condition, Measurement]]:
    """Measure on workers, and yield what is measured, by the seed of its network, as soon as it is.

    Raises:
        ray.exceptions.RayError: a worker failed.
    """
    config, cpus = session.config, session.per_trial["CPU"]
    task = ray.remote(num_cpus=cpus, num_gpus=session.gpus_per_trial)(_measure_on)
    setup = WorkerSetup(
        threads=int(cpus),
        modules=tuple(config.modules),
        kept_modules=kept_modules(config, session.name),
        evaluate=config.evaluate,
        runtime=config.runtime.for_training(),
        attacked=session.files.attacked,
    )
    shared = ray.put((setup, test))
    pickled = {one.seed: ray.put(pickle.dumps(one)) for one in subjects}
    waiting = {task.remote(shared, condition, pickled[seed]): (seed, condition) for seed, condition in wanted}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        yield *waiting.pop(ready), ray.get(ready)


def _measure_on(shared: tuple[WorkerSetup, TestSet], condition: Condition, pickled: bytes) -> Measurement:
    """Measure a network that is unpickled only when the modules are there that it may be of."""
    setup, test = shared
    torch.set_num_threads(setup.threads)
    import_kept(setup.modules, setup.kept_modules)
    subject: Subject = pickle.loads(pickled)
    bench = Bench(
        model=subject.network, test=test, config=setup.evaluate, runtime=setup.runtime, others=subject.others,
        attacked=setup.attacked / str(subject.seed),
    )  # fmt: skip
    return measure(condition, bench)
