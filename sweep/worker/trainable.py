"""The Ray Tune Trainable of a segment. The driver, which only names it to Ray, loads neither torch nor networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import tune

from odenet.training.config import RuntimeConfig
from sweep.storage.stop import StopSign
from sweep.worker.segment import Orders, Segment, WorkerResult

if TYPE_CHECKING:
    from sweep.worker.segment_training import SegmentTraining


class SegmentTrainable(tune.Trainable):
    """Train a segment: `config` holds the segment, and in `batch` the index of the orders that it is under.

    Processes are reused, so nothing is kept between segments. A step's result is a `WorkerResult`; the first says where
    the worker is, and that it goes no further where it does not see the run directory.
    """

    def setup(  # type: ignore[override]  # Tune binds the further arguments
        self, config: dict[str, Any], runtime: RuntimeConfig, orders: list[Orders], stop: StopSign
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
        from sweep.worker.place import here
        from sweep.worker.segment_training import SegmentTraining, unseen

        self._training = None  # with the network before: its memory is given back now
        limit_memory(self._share)
        orders = self._orders[new_config["batch"]]
        unfit = unseen(orders.marker)
        self._first: WorkerResult | None = WorkerResult(place=here(), ended=unfit, done=unfit is not None)
        if unfit is None:
            # Before a segment can name their networks.
            import_kept(orders.modules, orders.kept_modules, orders.module_texts)
            segment = Segment.from_dict(new_config["segment"])
            self._training = SegmentTraining(segment, self._runtime, orders, self._stop)
        return True

    def step(self) -> dict[str, Any]:
        if self._first is not None:
            result, self._first = self._first, None
            return result.to_dict()
        assert self._training is not None, "a segment has begun"
        return self._training.step().to_dict()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: Ray keeps no checkpoints."""
