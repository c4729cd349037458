"""A trial as Ray Tune sees it: a Trainable that pulls one report of `Training` per step. It knows nothing of MLflow."""

from pathlib import Path
from typing import Any

import torch
from ray import tune

from odenet.checkpoint import Checkpoint, load_checkpoint
from odenet.config import ExperimentConfig, RuntimeConfig, from_plain
from odenet.data import Portion, Splits
from odenet.training import Diverged, Training
from sweep.outcome import Outcome

CHECKPOINT = "training.ckpt"


class TrialFailed(RuntimeError):
    """Ends a trial in Ray's eyes as an error; the outcome was reported in the result before."""


class Trial(tune.Trainable):
    """`config` holds one complete experiment in plain form, and in `batch` whose data it is trained on.

    Processes are reused, so nothing is kept between trials. A result carries the metrics of one epoch, or `outcome` and
    `reason` where training ended otherwise.
    """

    def setup(  # type: ignore[override]  # Tune binds the two further arguments
        self, config: dict[str, Any], runtime: RuntimeConfig, splits: list[dict[Portion, Splits]]
    ) -> None:
        self._runtime, self._splits = runtime, splits
        self.reset_config(config)
        assert self.trial_resources is not None, "the runner asks for resources"
        torch.set_num_threads(int(self.trial_resources.required_resources["CPU"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in this process; called by Tune, and first by setup."""
        self._experiment = from_plain(ExperimentConfig, new_config["experiment"])
        self._data = self._splits[new_config["batch"]][self._experiment.data.portion]
        self._training: Training | None = None
        self._failed = ""
        return True

    def step(self) -> dict[str, Any]:
        if self._failed:
            raise TrialFailed(self._failed)
        try:
            if self._training is None:
                self._training = self._begin(None)
            report = next(self._training)
        except Diverged as error:
            return _ended(Outcome.diverged, str(error))
        except torch.OutOfMemoryError as error:
            return _ended(Outcome.cuda_oom, str(error).splitlines()[0])
        except Exception as error:  # noqa: BLE001 - a defect is reported with its reason, then raised at the next step
            self._failed = f"{type(error).__name__}: {error}"
            return {"outcome": Outcome.code.value, "reason": self._failed, "done": False}
        done = report.epoch == self._experiment.training.epochs
        ended = {"outcome": Outcome.done.value} if done else {}
        return {
            **report.metrics,
            "epoch": report.epoch,
            "parameters": self._training.model.parameter_count,
            **ended,
            "done": done,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self._training is not None:
            self._training.save(Path(checkpoint_dir) / CHECKPOINT)

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        file = Path(checkpoint_dir) / CHECKPOINT
        self._training = self._begin(load_checkpoint(file)) if file.exists() else None

    def _begin(self, checkpoint: Checkpoint | None) -> Training:
        return Training(self._experiment, self._runtime, data=self._data, checkpoint=checkpoint)


def _ended(outcome: Outcome, reason: str) -> dict[str, Any]:
    return {"outcome": outcome.value, "reason": reason, "done": True}
