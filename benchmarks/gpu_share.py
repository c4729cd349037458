"""Part c of `gpu.py`: how many trials does a card train in an hour, and how are they best put side by side?

* `streams`: networks in one process, each on a stream of its own with a CUDA graph in a memory pool of its own, and
  repeated by a thread of its own;
* `processes under MPS`: each process repeats its network's graph, and MPS lets their kernels run at the same time; its
  daemon is the benchmark's own and is ended by it;
* `processes`, and `eager processes` without graphs: they take turns.

`steps_per_second` is the sum over all, each counted over its own time, after all are ready. A trial is ContinuousNet
2-2-2 (Euler, bf16) trained for `trial_iterations`: at batch 128 those of 120 epochs of 50,000 images, at batch 32 (the
low-data case) those of 60 epochs of 300 images, validation not counted. `card_gib` is what the whole card holds then,
contexts included; `each_mib` the most that torch has reserved in one process, for all networks of it.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from gpu_case import Case, Load, Result, Size
from gpu_workers import MPS_CONTROL, Failed, Mps, Workers, mps_control

from odenet.enums import Precision, Scheme
from odenet.networks.model import build_model
from odenet.networks.model_config import ModelConfig
from odenet.training.config import ExperimentConfig, TrainingConfig
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig
from odenet.training.step import WARM_UP, GraphStep, StaticStep, TrainStep

CLASSES, RATE = 10, 1e-3
AT_ONCE = 8  # iterations that are given to the device before it is waited for
READY_SECONDS = 60  # until a process has its network and graph
EAGER = (1, 8)  # how many processes without graphs are timed
Iteration = Callable[[], object]
Counted = tuple[int, float]  # iterations, seconds


def share(size: Size) -> Iterator[Case]:
    """What was measured least so far comes first."""
    yield from _streams(size)
    yield from _under_mps(size)
    with Workers(max(size.side_by_side)) as workers:
        yield from _processes(size, workers, "processes", graph=True)
        yield from _processes(size, workers, "eager processes", graph=False)


def _labels(kind: str, load: Load, count: int) -> dict[str, object]:
    return {"what": "share", "kind": kind, "batch_size": load.batch_size, "side_by_side": count}


def _figures(counted: list[Counted], load: Load, each_mib: float | None, device: str) -> Result:
    rate = sum(iterations / seconds for iterations, seconds in counted)
    free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
    return {
        "steps_per_second": rate,
        "trials_per_hour": 3600 * rate / load.trial_iterations,
        "trial_iterations": load.trial_iterations,
        "each_mib": each_mib,
        "card_gib": (total - free) / 2**30 if total else None,
    }


def _forget_peak(device: str) -> None:
    """Gives back what torch keeps of networks that are gone, once the device has done with them, and counts anew."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _reserved_mib(device: str) -> float | None:
    return torch.cuda.max_memory_reserved() / 2**20 if device == "cuda" else None


# --- one network -----------------------------------------------------------------------------------------------------


def iteration(device: str, side: int, batch_size: int, graph: bool) -> Iteration:
    """An iteration that has been done before, and captured if it is one graph."""
    draws = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(batch_size, 3, side, side, generator=draws).to(device, memory_format=torch.channels_last)
    labels_B = torch.randint(CLASSES, (batch_size,), generator=draws).to(device)
    config = ExperimentConfig(
        model=ModelConfig(scheme=Scheme.euler),
        optim=OptimConfig(batch_size=batch_size),
        training=TrainingConfig(precision=Precision.bf16),
    )
    model = build_model(config.model, channels=3, classes=CLASSES).to(device)
    kind: type[TrainStep] = TrainStep
    if graph:
        kind = GraphStep if device == "cuda" else StaticStep
    step = kind(model, build_optimizer(model, config.optim), config, model)
    for seed in range(WARM_UP + 1):
        step(x_BCHW, labels_B, RATE, seed)
    return partial(step, x_BCHW, labels_B, RATE, 0)


def repeated(done: Iteration, wait: Callable[[], object], begin: float, seconds: float) -> Counted:
    """Iterates from this moment of the monotonic clock, which all processes share, for so long."""
    time.sleep(max(0.0, begin - time.monotonic()))
    count, started, took = 0, time.monotonic(), 0.0
    while took < seconds:
        for _ in range(AT_ONCE):
            done()
        wait()
        count, took = count + AT_ONCE, time.monotonic() - started
    return count, took


def _all_done(device: str) -> Callable[[], object]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


# --- streams ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lane:
    """A network with its graph, and the stream that it has to itself; on a CPU there is none."""

    stream: torch.cuda.Stream | None
    done: Iteration

    @classmethod
    def of(cls, size: Size, load: Load) -> "Lane":
        """Captures one after another: only one thread may capture."""
        stream = torch.cuda.Stream() if size.device == "cuda" else None
        with cls._on(stream):
            return cls(stream, iteration(size.device, size.timed_side, load.batch_size, graph=True))

    @staticmethod
    def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)

    def repeat(self, begin: float, seconds: float) -> Counted:
        with self._on(self.stream):
            return repeated(
                self.done, (lambda: None) if self.stream is None else self.stream.synchronize, begin, seconds
            )


def _streams(size: Size) -> Iterator[Case]:
    for load in size.loads:
        lanes: list[Lane] = []  # they stay until all rows are done: a graph must not outlive its network
        for count in size.side_by_side:
            yield Case(_labels("streams", load, count), partial(_on_streams, size, load, lanes, count))
        _all_done(size.device)()
        lanes.clear()


def _on_streams(size: Size, load: Load, lanes: list[Lane], count: int) -> Result:
    if not lanes:
        _forget_peak(size.device)
    lanes.extend(Lane.of(size, load) for _ in range(count - len(lanes)))
    _all_done(size.device)()  # what was made on one stream is used on others from here
    begin = time.monotonic() + 0.05
    with ThreadPoolExecutor(count) as threads:
        counted = list(threads.map(lambda lane: lane.repeat(begin, size.share_seconds), lanes[:count]))
    _all_done(size.device)()
    return _figures(counted, load, _reserved_mib(size.device), size.device)


# --- processes -------------------------------------------------------------------------------------------------------

_held: dict[str, Iteration] = {}  # of a process


def _prepare(device: str, side: int, batch_size: int, graph: bool) -> None:
    _all_done(device)()  # a graph must not outlive its network
    _held.clear()
    _forget_peak(device)
    _held["done"] = iteration(device, side, batch_size, graph)
    _all_done(device)()


def _repeat(device: str, begin: float, seconds: float) -> tuple[Counted, float | None]:
    return repeated(_held["done"], _all_done(device), begin, seconds), _reserved_mib(device)


def _processes(size: Size, workers: Workers, kind: str, graph: bool) -> Iterator[Case]:
    for load in size.loads:
        crowd = Crowd(size, load, workers, graph)
        for count in size.side_by_side:
            if graph or count in EAGER:
                yield Case(_labels(kind, load, count), partial(crowd.measure, count))


class Crowd:
    """Processes with the same network; the first ones of them work, and the others wait."""

    def __init__(self, size: Size, load: Load, workers: Workers, graph: bool) -> None:
        self._size, self._load, self._workers, self._graph = size, load, workers, graph
        self._ready = 0

    def measure(self, count: int) -> Result:
        size, fresh = self._size, range(self._ready, count)
        for index in fresh:
            self._workers.call(index, _prepare, size.device, size.timed_side, self._load.batch_size, self._graph)
        self._workers.answers(fresh, READY_SECONDS)
        self._ready = count
        begin = time.monotonic() + 0.2
        for index in range(count):
            self._workers.call(index, _repeat, size.device, begin, size.share_seconds)
        found = self._workers.answers(range(count), READY_SECONDS)
        reserved = [mib for _, mib in found if mib is not None]
        return _figures([counted for counted, _ in found], self._load, max(reserved, default=None), size.device)


def _under_mps(size: Size) -> Iterator[Case]:
    control, kind = mps_control(), "processes under MPS"
    if control is None:
        yield Case({"what": "share", "kind": kind}, lambda: {"lacks": f"{MPS_CONTROL} is not on this machine"})
        return
    mps = Mps(control)
    try:
        with Workers(max(size.side_by_side), mps.start) as workers:
            for case in _processes(size, workers, kind, graph=True):
                yield Case(case.labels, partial(_as_client, mps, case))
    finally:
        mps.end()


def _as_client(mps: Mps, case: Case) -> Result:
    """Refuses figures of processes that have gone past the daemon."""
    found = case.measure()
    servers = mps.servers()
    if not servers:
        raise Failed("the daemon of MPS has started no server: the processes are not its clients")
    return found | {"servers": servers}
