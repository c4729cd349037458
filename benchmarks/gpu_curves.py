"""Part f of `gpu.py`: full learning curves of random configurations on few images, for the replay of schedulers.

Configurations of the space `continuous`, drawn independently and uniformly (logarithmically where the space says so);
the first 50 training images of each class of CIFAR-10, 30 to train on and 20 to validate, which is `data.order=file`
with draw 0; 60 epochs each, none stopped, in the arithmetic of a sweep. Eight processes share the card. A row is a
trial: its number, parameters and `curve`, whose entries have the columns of `curves.csv`; gpu_recording.py makes a run
directory of them. Trials in work when the time is out are lost.
"""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gpu_case import Case, Result, Size
from gpu_pack import missing, read
from gpu_workers import Failed, Workers

from odenet.data.sets import Images
from odenet.data.subsets import Splits
from odenet.enums import Device
from odenet.seeding import derive
from odenet.training.config import ExperimentConfig, RuntimeConfig, from_plain
from odenet.training.loop import Diverged, Training
from search_spaces import SPACES

SPACE, CLASSES = SPACES["continuous"], 10
VALIDATED = 0.4
LONGEST_TRIAL = 60  # seconds


def curves(size: Size) -> Iterator[Case]:
    absent = missing(size.pack, "train-1")
    if absent:
        yield Case({"what": "curve"}, lambda: {"lacks": f"{', '.join(absent)} in {size.pack}"})
        return
    with Workers(size.trials_at_once) as workers:
        crowd = Crowd(size, workers)
        for _ in range(size.trials):
            yield Case({"what": "curve"}, crowd.next_done)


class Crowd:
    """Trials in work, one in each process."""

    def __init__(self, size: Size, workers: Workers) -> None:
        self._size, self._workers = size, workers
        self._numbers = iter(range(size.trials))
        self._busy: list[int] = []
        self._splits: Splits | None = None

    def next_done(self) -> Result:
        """Keeps all processes busy, and waits for the next trial to end."""
        if self._splits is None:
            self._splits = low_data(read(self._size.pack, "train-1"), self._size.trial_per_class)
        for worker in range(self._size.trials_at_once):
            number = None if worker in self._busy else next(self._numbers, None)
            if number is not None:
                self._workers.call(worker, trained, self._size.device, number, self._size.trial_epochs, self._splits)
                self._busy.append(worker)
        try:
            worker, row = self._workers.answer(self._busy, LONGEST_TRIAL)
        except Failed as error:
            if error.index is not None:
                self._busy.remove(error.index)
            raise
        self._busy.remove(worker)
        return row


def low_data(pool: Images, per_class: int) -> Splits:
    """The first images of each class, the last of them to validate."""
    train = per_class - int(per_class * VALIDATED)
    members = [np.flatnonzero(pool.labels_B == label)[:per_class] for label in range(CLASSES)]
    parts = [np.sort(np.concatenate(part)) for part in ([m[:train] for m in members], [m[train:] for m in members])]
    return Splits(pool.take(parts[0]), pool.take(parts[1]), CLASSES, hash="packed")


def trained(device: str, number: int, epochs: int, data: Splits) -> Result:
    """A trial, from its parameters to its last epoch."""
    parameters = drawn(number)
    training, outcome = (
        Training(experiment(parameters, epochs), RuntimeConfig(device=Device[device]), data=data),
        "done",
    )
    try:
        for _ in training:
            pass
    except Diverged:
        outcome = "diverged"
    curve = [{"epoch": report.epoch, **_columns(report.metrics)} for report in training.reports]
    weights = training.model.parameter_count
    return {"number": number, "outcome": outcome, "parameters": parameters, "weights": weights, "curve": curve}


def drawn(number: int) -> dict[str, Any]:
    """The parameters of this trial, by their dotted names."""
    return SPACE.suggest(RandomTrial(random.Random(derive(0, "random configuration", number))))


def _columns(metrics: dict[str, float]) -> dict[str, float]:
    return {name.replace("/", "_"): value for name, value in metrics.items()}


def experiment(parameters: dict[str, Any], epochs: int) -> ExperimentConfig:
    """The configuration that these dotted names stand for."""
    plain: dict[str, dict[str, Any]] = {"data": {"dataset": "cifar10"}, "training": {"epochs": epochs}}
    for name, value in parameters.items():
        section, key = name.split(".")
        plain.setdefault(section, {})[key] = value
    return from_plain(ExperimentConfig, plain)


class RandomTrial:
    """Answers a space as Optuna's random sampler would."""

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return min(high, max(low, math.exp(self._draws.uniform(math.log(low), math.log(high)))))
        return self._draws.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        assert not log, "the space has no logarithmic integers"
        return self._draws.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._draws.choice(choices)
