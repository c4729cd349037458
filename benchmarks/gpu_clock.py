"""Part d of `gpu.py`: how long does it take until a network is as good on CIFAR-10 as published?

ContinuousNet 2-2-2 with Euler and ResNet-20 at their papers' settings (batch 128, SGD, crops and mirror images), but in
bf16 and with a rate that falls as a cosine over as many epochs as fit into the time that a network has: two epochs of a
network that is thrown away say how long one takes. After each epoch all test images are tested; `seconds` is the clock
since the network was built, tests included. `seconds_to_91` is the end of the first epoch that reached 91 %: a moment
of a schedule that went on, seen on the test set, of one seed. It says how long the way takes, not how good a network
is on average.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from accuracy import PRESETS
from gpu_case import Case, Result, Size
from gpu_pack import missing, read

from odenet.arithmetic import autocast
from odenet.data.batches import Batches, Statistics
from odenet.data.config import Augment, DataSet, Portion
from odenet.data.sets import Images
from odenet.data.subsets import Splits
from odenet.enums import Device, Precision
from odenet.training.config import ExperimentConfig, RuntimeConfig, from_plain
from odenet.training.evaluation import evaluate
from odenet.training.loop import Training

NETWORKS = {"continuous 2-2-2 euler": "continuous_2_euler", "resnet-20": "resnet20"}
GOAL = 0.91
SEED = 0
CLASSES = 10


def clock(size: Size) -> Iterator[Case]:
    """The data, then each network to its end."""
    halves = [name for name in ("train-1", "train-2") if not missing(size.pack, name)]
    absent = missing(size.pack, "test", *([] if halves else ["train-1", "train-2"]))
    if absent:
        yield Case({"what": "clock"}, lambda: {"lacks": f"{', '.join(absent)} in {size.pack}"})
        return
    yield Case({"what": "data"}, partial(_read, size.pack, tuple(halves)))
    for name in NETWORKS:
        run = Run(name, size, tuple(halves))
        yield Case({"what": "pilot", "network": name}, run.pilot)
        for epoch in range(1, run.epochs + 1):
            if run.failed:
                break
            yield Case({"what": "epoch", "network": name, "epoch": epoch}, run.advance)
        if run.epochs:
            yield Case({"what": "clock", "network": name}, run.conclude)


def _read(folder: Path, halves: tuple[str, ...]) -> Result:
    started = time.perf_counter()
    train, test = cifar10(folder, halves)
    return {"images": len(train), "test_images": len(test), "unpacking_seconds": time.perf_counter() - started}


@lru_cache(maxsize=1)
def cifar10(folder: Path, halves: tuple[str, ...]) -> tuple[Images, Images]:
    """The training images of these parts, and the test images."""
    with ThreadPoolExecutor() as threads:
        *train, test = threads.map(partial(read, folder), (*halves, "test"))
    pixels_BCHW = np.concatenate([part.pixels_BCHW for part in train])
    labels_B = np.concatenate([part.labels_B for part in train])
    return Images(pixels_BCHW, labels_B, np.arange(len(labels_B))), test


@dataclass(slots=True)
class Run:
    """A network on its way."""

    name: str
    size: Size
    halves: tuple[str, ...]
    epochs: int = 0  # of the schedule; the pilot says how many
    failed: bool = False
    seconds: float = 0.0
    accuracies: list[float] = field(default_factory=list)
    seconds_to_goal: float | None = None
    training: Training | None = None
    test: Batches | None = None

    def pilot(self) -> Result:
        """What an epoch takes once everything is warm, and so how many there can be."""
        self._build(epochs=2)
        self._epoch()
        before = self.seconds
        self._epoch()
        took = self.seconds - before
        self.epochs = max(1, min(self.size.most_epochs, int(self.size.clock_seconds / took)))
        self.training, self.test, self.seconds = None, None, 0.0
        self.accuracies.clear()
        return {"seconds_per_epoch": took, "epochs": self.epochs}

    def advance(self) -> Result:
        try:
            if self.training is None:
                self._build(self.epochs)
            loss = self._epoch()
        except Exception:
            self.failed = True
            raise
        if self.seconds_to_goal is None and self.accuracies[-1] >= GOAL:
            self.seconds_to_goal = self.seconds
        return {"test_accuracy": self.accuracies[-1], "train_loss": loss, "seconds": self.seconds}

    def conclude(self) -> Result:
        assert self.training is not None
        return {
            "epochs": len(self.accuracies),
            "scheduled": self.epochs,
            "images": len(self.training.train_batches),
            "test_accuracy": self.accuracies[-1],
            "seconds": self.seconds,
            "seconds_to_91": self.seconds_to_goal,
            "published_percent": PRESETS[NETWORKS[self.name]].published,
            "seeds": 1,
            "no_graph_because": self.training.graph_obstacle,
        }

    def _build(self, epochs: int) -> None:
        train, test = cifar10(self.size.pack, self.halves)
        started = time.perf_counter()
        self.training = Training(
            _experiment(self.name, epochs),
            RuntimeConfig(device=Device[self.size.device]),
            data=Splits(train, None, CLASSES, hash="packed"),
        )
        self.test = Batches(test, statistics=Statistics.of(train), device=self.size.device)
        self.seconds = time.perf_counter() - started

    def _epoch(self) -> float:
        """Trains and tests; the training loss. Both ask the device for numbers, so the clock waits for it."""
        assert self.training is not None and self.test is not None
        started = time.perf_counter()
        loss = next(self.training).metrics["train/loss"]
        with autocast(torch.device(self.size.device), Precision.bf16):
            self.accuracies.append(evaluate(self.training.model, self.test).accuracy)
        self.seconds += time.perf_counter() - started
        return loss


def _experiment(name: str, epochs: int) -> ExperimentConfig:
    preset = PRESETS[NETWORKS[name]]
    return from_plain(
        ExperimentConfig,
        {
            "model": dict(preset.model),
            "data": {
                "dataset": DataSet.cifar10.value,
                "per_class": None,
                "portion": Portion.trainval.value,
                "augment": Augment.standard.value,
            },
            "optim": {"lr": 0.1, "schedule": "cosine", "batch_size": 128, "weight_decay": preset.weight_decay},
            "training": {"epochs": epochs, "seed": SEED, "precision": "bf16"},
        },
    )
