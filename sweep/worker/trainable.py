"""The Ray Tune Trainable of a segment. The driver, which only names it to Ray, loads neither torch nor networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from odenet.training.config import RuntimeConfig
from sweep.worker.segment import Orders, Segment

if TYPE_CHECKING:
    from sweep.worker.segment_training import SegmentTraining


class SegmentTrainable(tune.Trainable):
    """Train a segment: `config` holds the segment, and in `batch` the index of the orders that it is under.

    Processes are reused, so nothing is kept between segments. A step's result is a `WorkerResult`.
    """

    def setup(  # type: ignore[override]  # Tune binds the further arguments
        self, config: dict[str, Any], runtime: RuntimeConfig, orders: list[Orders], stop: Path
    ) -> None:
        import torch

        assert self.trial_resources is not None, "the runner asks for resources"
        resources = self.trial_resources.required_resources
        torch.set_num_threads(int(resources["CPU"]))
        self._share = resources.get("GPU", 0.0)
        self._runtime, self._orders, self._stop = runtime, orders, stop
        self._training: SegmentTraining | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another segment in this process; called by Tune, and first by `setup`."""
        from sweep.config.modules import import_kept
        from sweep.worker.cuda import limit_memory
        from sweep.worker.segment_training import SegmentTraining

        self._training = None  # with the network before: its memory is given back now
        limit_memory(self._share)
        orders = self._orders[new_config["batch"]]
        import_kept(orders.modules, orders.kept_modules)  # before a segment can name their networks
        segment = Segment.from_dict(new_config["segment"])
        self._training = SegmentTraining(segment, self._runtime, orders, self._stop)
        return True

    def step(self) -> dict[str, Any]:
        assert self._training is not None, "a segment has begun"
        return self._training.step().to_dict()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: Ray keeps no checkpoints."""
