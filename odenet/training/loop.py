"""Training as an iterator that its caller pulls: one report per epoch, no hooks, no loggers, no platform."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from odenet.arithmetic import autocast, recorded
from odenet.data.batches import Batches, Statistics
from odenet.data.subsets import Splits, load_data
from odenet.integrators.gradients import Drift
from odenet.networks.model import DepthNet, build_model
from odenet.networks.refinement import coarsen, refine
from odenet.pretrained.initial import begin_with
from odenet.seeding import derive
from odenet.training.checkpoint import Checkpoint, present_versions, save_checkpoint
from odenet.training.config import OBJECTIVE_EPOCHS, ExperimentConfig, RuntimeConfig
from odenet.training.cost import train_gflops
from odenet.training.evaluation import evaluate
from odenet.training.optim import build_optimizer, freeze, learning_rate, plain_state
from odenet.training.step import GraphStep, TrainStep, graph_obstacle


class Diverged(FloatingPointError):
    """The loss is not finite, or an adaptive scheme found none; nothing of that epoch is reported."""


@dataclass(frozen=True, slots=True)
class Report:
    """One epoch. Metric names carry the split; `val/...` and `objective` are absent where there is no val set."""

    epoch: int  # epochs completed, from 1
    metrics: dict[str, float]


@dataclass(slots=True)
class Progress:
    """The state that training carries from epoch to epoch besides weights and optimizer."""

    gflops: float = 0.0
    seconds: float = 0.0
    rate_evaluations: int = 0
    recent: tuple[float, ...] = ()  # val/accuracy of the last `OBJECTIVE_EPOCHS` epochs
    last: Report | None = None
    earlier: tuple[Report, ...] = ()  # all reports before that: whoever keeps them may have lost some

    @classmethod
    def restored(cls, plain: dict[str, Any]) -> "Progress":
        """Restore the progress from a checkpoint's values; those of older versions have no `last`, or no `earlier`."""
        last = plain.get("last")
        lists = {"recent": tuple(plain["recent"]), "earlier": tuple(Report(**one) for one in plain.get("earlier", ()))}
        return cls(**{**plain, **lists, "last": None if last is None else Report(**last)})

    def add(self, report: Report) -> None:
        self.earlier, self.last = self.reports, report

    @property
    def reports(self) -> tuple[Report, ...]:
        return self.earlier if self.last is None else (*self.earlier, self.last)


class Training:
    """`for report in Training(config): ...` trains to the end; it can be saved after any report and resumed.

    Every draw comes from (seed, purpose, epoch, iteration), so resumed equals uninterrupted, bit for bit, on the same
    device and thread count (on a GPU with runtime.deterministic).

    >>> from odenet import TrainingConfig
    >>> training = Training(ExperimentConfig(training=TrainingConfig(epochs=2)))
    >>> [report.epoch for report in training]
    [1, 2]
    >>> sorted(training.last.metrics)[-3:]
    ['train/loss', 'val/accuracy', 'val/loss']
    """

    def __init__(
        self,
        config: ExperimentConfig,
        runtime: RuntimeConfig | None = None,
        *,
        data: Splits | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Build network, optimizer and batches, or take them from a checkpoint.

        Args:
            data: what `load_data(config.data, runtime.data_dir)` gives, where the caller has it already.
            checkpoint: goes on from there.

        Raises:
            ValueError: the checkpoint is of another experiment; or as `load_data` and `RuntimeConfig.torch_device`.
        """
        runtime = runtime or RuntimeConfig()
        if checkpoint is not None and checkpoint.experiment != config:
            raise ValueError("The checkpoint is of another experiment: its config differs from the one to resume.")
        runtime.check(config.model)
        self.config, self._runtime, self._device = config, runtime, runtime.torch_device()
        # Asked first: the call loads the compiler.
        if torch.are_deterministic_algorithms_enabled() != runtime.deterministic:
            torch.use_deterministic_algorithms(runtime.deterministic)
        data = load_data(config.data, runtime.data_dir) if data is None else data
        self._load_batches(data)
        self._due = config.refinement.due(config.training.epochs)
        self._coarsens = config.refinement.coarsens(config.training.epochs)
        self.epoch, self._drift = 0, Drift()
        self._progress = Progress()
        self._start(data.classes, checkpoint)

    def _load_batches(self, data: Splits) -> None:
        statistics, device = Statistics.of(data.train), self._device
        self.train_batches = Batches(
            data.train,
            statistics=statistics,
            dataset=self.config.data.dataset,
            augment=self.config.data.augment,
            device=device,
        )
        labels = data.labels or [str(number) for number in range(data.classes)]
        self._images = statistics.image_format(self.config.data, labels, self.train_batches.shape)
        self.val_batches = None
        if data.val is not None:
            self.val_batches = Batches(data.val, statistics=statistics, device=device)

    def _start(self, classes: int, checkpoint: Checkpoint | None) -> None:
        config, (channels, *_) = self.config, self.train_batches.shape
        self._classes = classes
        if checkpoint is None:
            model = build_model(config.model, channels=channels, classes=classes, seed=config.training.seed)
            if config.model.initial is not None:
                begin_with(model, config.model.initial, sha256=config.model.initial_sha256)
        else:
            model = checkpoint.build()
        self.model = model.to(self._device)
        freeze(self.model, config.optim.frozen)
        self.optimizer = build_optimizer(self.model, config.optim)
        if checkpoint is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.epoch = checkpoint.epoch
            self._progress = Progress.restored(checkpoint.progress)
        self._prepare()

    def _prepare(self) -> None:
        """Set up what depends on the present depth."""
        if self._runtime.check_drift:
            for stage in self.model.depth_stages():
                stage.drift = self._drift
        self._gflops_per_image = train_gflops(self.model, self.train_batches.shape)
        forward: Callable[..., Tensor] = torch.compile(self.model) if self._runtime.compile else self.model
        self.graph_obstacle = graph_obstacle(self.config, self._runtime, self.model)
        kind = TrainStep if self.graph_obstacle else GraphStep
        self._step = kind(self.model, self.optimizer, self.config, forward)

    def __iter__(self) -> "Training":
        return self

    def __next__(self) -> Report:
        """Train one epoch and measure it.

        Raises:
            Diverged: the loss is not finite.
        """
        if self.epoch >= self.config.training.epochs:
            raise StopIteration
        started = time.perf_counter()
        if self.epoch in self._due:
            self.change_depth(refine)
        if self.epoch == self._coarsens:
            self.change_depth(coarsen)
        try:
            metrics = {"train/loss": self._train_epoch()}
        except Diverged:
            raise
        except FloatingPointError as error:
            raise Diverged(f"{error} in epoch {self.epoch + 1}") from error
        if self.val_batches is not None:
            metrics |= self._validate()
        self.epoch += 1
        self._progress.seconds += time.perf_counter() - started
        report = Report(self.epoch, metrics | self._costs())
        self._progress.add(report)
        return report

    def change_depth(self, change: Callable[[DepthNet, Optimizer], list[str]]) -> None:
        """Refine or coarsen the network now, between two epochs; configured changes come by themselves."""
        reset = change(self.model, self.optimizer)
        assert not reset, f"{reset}: the optimizers of build_optimizer keep all that they know"
        self._prepare()

    @property
    def last(self) -> Report | None:
        """Return the report of the last epoch, also of one before the checkpoint: a caller may not know who got it."""
        return self._progress.last

    @property
    def reports(self) -> tuple[Report, ...]:
        """Return the reports of all epochs, as far as the checkpoint that this goes on from has them."""
        return self._progress.reports

    def _train_mode(self) -> None:
        self.model.train()
        freeze(self.model, self.config.optim.frozen)

    def iterations(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return `count` batches of this epoch and as many further ones as it takes: for a dry run with `update`."""
        self._train_mode()
        epochs = (
            self.train_batches.epoch(self.config.training.seed, e, self.config.optim.batch_size)
            for e in itertools.count(self.epoch)
        )
        return itertools.islice(itertools.chain.from_iterable(epochs), count)

    def _train_epoch(self) -> float:
        self._train_mode()
        batch_size, total, seen = self.config.optim.batch_size, torch.zeros((), device=self._device), 0
        batches = self.train_batches.epoch(self.config.training.seed, self.epoch, batch_size)
        for iteration, (x_BCHW, labels_B) in enumerate(batches):
            total += self.update(x_BCHW, labels_B, iteration) * len(labels_B)
            seen += len(labels_B)
            self._progress.rate_evaluations += self.model.rate_evaluations
        self._progress.gflops += self._gflops_per_image * seen
        loss = float(total) / seen
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {self.epoch + 1}")
        return loss

    def update(self, x_BCHW: Tensor, labels_B: Tensor, iteration: int) -> Tensor:
        """Do one iteration of the present epoch, counted from 0.

        Returns:
            the mean cross-entropy of the batch, detached, without the regularization; valid until the next iteration.
        """
        config = self.config
        iterations = math.ceil(len(self.train_batches) / config.optim.batch_size)
        progress = (self.epoch + iteration / iterations) / config.training.epochs
        seed = derive(config.training.seed, "perturb", self.epoch, iteration)
        return self._step(x_BCHW, labels_B, learning_rate(config.optim, progress), seed)

    def _validate(self) -> dict[str, float]:
        assert self.val_batches is not None
        with autocast(self._device, self.config.training.precision):
            score = evaluate(self.model, self.val_batches)
        if not math.isfinite(score.loss):
            raise Diverged(f"the validation loss is {score.loss} in epoch {self.epoch + 1}")
        recent = (*self._progress.recent, score.accuracy)[-OBJECTIVE_EPOCHS:]
        self._progress.recent = recent
        return {"val/loss": score.loss, "val/accuracy": score.accuracy, "objective": sum(recent) / len(recent)}

    def _costs(self) -> dict[str, float]:
        depth, drift = self.model.depths()[-1], self._drift.take()
        return {
            "cost/train_gflops": self._progress.gflops,
            "cost/seconds": self._progress.seconds,
            "cost/rate_evaluations": self._progress.rate_evaluations,
            "depth/steps": depth.course.steps,
            "depth/nodes": depth.nodes,
            **({} if drift is None else {"gradient/drift": drift}),
        }

    def checkpoint(self) -> Checkpoint:
        """Return the present state; its tensors are the live ones, so save it before the next epoch."""
        return Checkpoint(
            experiment=self.config,
            depths=self.model.depths(),
            channels=self.train_batches.shape[0],
            classes=self._classes,
            epoch=self.epoch,
            weights=self.model.state_dict(),
            optimizer=plain_state(self.optimizer),
            progress=asdict(self._progress),
            images=self._images,
            versions=present_versions() | recorded(self._device, self.config.training.precision, self.graph_obstacle),
        )

    def save(self, path: Path | str) -> None:
        """Write `checkpoint()` to a file."""
        save_checkpoint(path, self.checkpoint())
