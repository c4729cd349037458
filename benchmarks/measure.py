"""What the benchmarks share: interleaved timing and its spread, saved bytes, tables and result files.

Milliseconds do not carry from machine to machine: what is compared is timed in turns in one process, and ratios are
taken within a turn, so that a machine that slows down for a while slows both sides of a ratio.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
SHORTEST = 0.02  # seconds: shorter calls are timed several at a time

Seconds = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of `n` measurements."""

    n: int
    min: float
    median: float
    max: float

    @staticmethod
    def of(values: Iterable[float]) -> "Spread":
        ordered = sorted(values)
        return Spread(len(ordered), ordered[0], statistics.median(ordered), ordered[-1])

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.min:.{digits}f}-{self.max:.{digits}f})"


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """With the options all benchmarks have."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a smoke run of under two minutes, too short for figures")
    made.add_argument("--rounds", type=int, help="turns that are measured, after one that is not")
    made.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return made


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu") -> Seconds:
    """Seconds of each call, once per round, after a warm-up; every round begins with the next one of them."""
    repeats = {name: _repeats(call, device) for name, call in calls.items()}
    names, seconds = list(calls), {name: [] for name in calls}  # type: tuple[list[str], Seconds]
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_timed(calls[name], repeats[name], device))
    return seconds


def _repeats(call: Callable[[], object], device: str) -> int:
    took = _timed(call, 1, device)
    if took < 1:  # the first call also fills caches and compiles kernels
        took = _timed(call, 1, device)
    return max(1, round(SHORTEST / took))


def _timed(call: Callable[[], object], repeats: int, device: str) -> float:
    synchronise(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - started) / repeats


def synchronise(device: str) -> None:
    """Waits until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def ratio(seconds: Seconds, name: str, to: str) -> Spread:
    """Of the seconds of `name` to those of `to`, round by round."""
    return Spread.of(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def saved_mib(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> float:
    """MiB of distinct storages that a forward pass keeps for its backward pass, parameters not counted."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    total = sum(kept.values())
    del output  # until here all storages lived, so no two of them shared an address
    return total / 2**20


def relative_error(found: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """|found - true| / |true| over all tensors together."""
    squares = [((a - b).square().sum(), b.square().sum()) for a, b in zip(found, true, strict=True)]
    return float(sum(error for error, _ in squares) / sum(size for _, size in squares)) ** 0.5


def installed(peer: str) -> bool:
    """Whether a library of the `bench` extra is here; says so if not."""
    if importlib.util.find_spec(peer) is not None:
        return True
    print(f"{peer} is left out, it is not installed: pip install -e .[bench]")
    return False


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as what stands in them, the first one to the left."""
    lines = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    print(f"\n{title}")
    for line in lines:
        first, *others = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join([first.strip().ljust(widths[0]), *others]))


def write(name: str, document: Mapping[str, Any], *, device: str = "cpu", peers: Sequence[str] = ()) -> None:
    """Writes benchmarks/results/NAME.json: the document and where and with what it was measured."""
    versions = {library: importlib.metadata.version(library) for library in ("torch", "numpy", *peers)}
    machine = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    whole = {"machine": machine, "versions": versions, **document}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2, default=asdict) + "\n")
    print(f"written to benchmarks/results/{name}.json")
