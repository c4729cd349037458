"""What a GPU says about `odenet`: are its numbers right, and how much of the card does it reach?

One command for a bare machine without network: it takes a plain checkout and what `odenet` imports, nothing else.

    PYTHONPATH=. python benchmarks/gpu.py [--parts a,b] [--out FILE]

a. Every network, gradient and arithmetic against float64 on the CPU; resumed against uninterrupted training.
b. Milliseconds of a training step and shares of what the card reaches, beside the same nets over torchdiffeq.

A row is printed and appended to the file, as a line of JSON, as soon as it exists; one that fails says why. When the
time of a part is out (it is looked at between rows) the next one starts, and a last row counts what is left out.
Without a GPU everything runs at toy size on the CPU: that shows that the command works, and its times say nothing.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_accuracy import accuracy
from gpu_case import FULL, TOY, Case, Result, Size
from gpu_speed import speed
from measure import RESULTS, Spread


@dataclass(frozen=True, slots=True)
class Part:
    """A question, and the seconds that its rows may take together."""

    cases: Callable[[Size], Iterator[Case]]
    seconds: float


PARTS = {"a": Part(accuracy, 60), "b": Part(speed, 90)}


def run(name: str, size: Size, seconds: float, out: Path) -> None:
    """Emits a row for each case until the time is out, then one that says how many were not reached."""
    started = time.monotonic()
    cases = PARTS[name].cases(size)
    for case in cases:
        emit({"part": name, **case.labels}, attempt(case), out)
        if time.monotonic() - started > seconds:
            break
    left_out = sum(1 for _ in cases)
    emit({"part": name, "what": "end"}, {"seconds": time.monotonic() - started, "left_out": left_out}, out)


def attempt(case: Case) -> Result:
    """What was measured, or the error: a failure of one row must not cost the others."""
    try:
        return case.measure()
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def emit(labels: Mapping[str, Any], result: Result, out: Path) -> None:
    """Prints the row and appends it to the file."""
    print(*labels.values(), "|", "; ".join(f"{key} {shown(value)}" for key, value in result.items()), flush=True)
    with out.open("a") as file:
        file.write(json.dumps({**labels, **result}, default=asdict) + "\n")


def shown(value: object) -> str:
    if isinstance(value, Spread):
        return value.text()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine(device: str) -> Result:
    """Where and with what was measured."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library: importlib.metadata.version(library) for library in ("torch", "numpy", "torchdiffeq")},
        "cuda": torch.version.cuda,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated, in this order")
    parser.add_argument("--out", type=Path, help="file that rows are appended to; gpu.jsonl in $OUT or in results")
    parser.add_argument("--patience", type=float, default=1, help="a part may take so many times its time")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options = parser.parse_args(arguments)
    options.parts = options.parts.split(",")
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out = options.out or Path(os.environ.get("OUT", RESULTS)) / "gpu.jsonl"
    return options


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; bit-exact kernels need it
    options = parse()
    size = FULL if options.device == "cuda" else TOY
    options.out.parent.mkdir(parents=True, exist_ok=True)
    emit({"part": "machine"}, machine(options.device), options.out)
    for name in options.parts:
        run(name, size, options.patience * PARTS[name].seconds, options.out)


if __name__ == "__main__":
    main()
