"""What a GPU says about this project: are its numbers right, and how much of the card does it reach?

One command for a bare machine without network: it takes a plain checkout and what `odenet` imports, nothing else.

    PYTHONPATH=. python benchmarks/gpu.py [--only a,c] [--data FOLDER] [--out FILE]
    PYTHONPATH=. python benchmarks/gpu.py --pack DATA_DIR FOLDER

a. Graphs against eager training, every network, gradient and arithmetic against float64 on the CPU, resuming.
b. Milliseconds of a training step and shares of what the card reaches, beside the same nets over torchdiffeq.
c. Trials per hour, of 1 to 32 side by side: on streams, under MPS, as processes.
d. CIFAR-10 to 91 % with the clock.
e. Memory of networks of 1202 layers, with and without reconstructed states.
f. Full learning curves of random configurations on few images.
h. Memory formats and arithmetics of networks of three widths.
g. torch.compile on one network, where enough time is left.

d and f need CIFAR-10 from FOLDER (benchmarks/packed), where `--pack` has put it from torchvision's files: three parts
of at most 55 MB. What is missing there leaves rows out by name; d learns from one half of the training images, too.

A row is printed and appended to the file, as a line of JSON, as soon as it exists; one that fails says why. When the
time of a part is out (it is looked at between rows) the next one starts, and a last row counts what is left out; all
parts together have eight minutes. Without a GPU everything runs at toy size on the CPU: that shows that the command
works, and its times say nothing.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_accuracy import accuracy
from gpu_case import FULL, TOY, Case, Result, Size
from gpu_clock import clock
from gpu_curves import curves
from gpu_formats import formats
from gpu_memory import memory
from gpu_pack import pack
from gpu_share import share
from gpu_speed import compiled, speed
from measure import RESULTS, Spread


@dataclass(frozen=True, slots=True)
class Part:
    """A question, the seconds that its rows may take together, and those without which it is not begun."""

    cases: Callable[[Size], Iterator[Case]]
    seconds: float
    least: float = 1


SECONDS = 480  # of all parts
SHOWN = 8  # of a list, in print
PARTS = {
    "a": Part(accuracy, 60),
    "b": Part(speed, 90),
    "c": Part(share, 90),
    "d": Part(clock, 120),
    "e": Part(memory, 30),
    "f": Part(curves, 60),
    "h": Part(formats, 30),
    "g": Part(compiled, 120, least=60),  # its one row cannot be cut
}


def run(name: str, size: Size, seconds: float, out: Path) -> None:
    """Emits a row for each case until the time is out, then one that says how many were not reached."""
    started, left_out = time.monotonic(), 0
    try:
        for case in PARTS[name].cases(size):
            if left_out or time.monotonic() - started > seconds:
                left_out += 1
                continue
            emit({"part": name, **case.labels}, attempt(case), out)
    except Exception as error:  # noqa: BLE001
        emit({"part": name, "what": "part"}, {"error": f"{type(error).__name__}: {error}"}, out)
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
    if isinstance(value, list) and len(value) > SHOWN:
        return f"[{len(value)} of them]"
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
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...", help="these parts, in this order")
    parser.add_argument("--pack", nargs=2, type=Path, metavar=("DATA_DIR", "FOLDER"), help="pack CIFAR-10, no more")
    parser.add_argument("--data", type=Path, default=RESULTS.parent / "packed", metavar="FOLDER", help="what is packed")
    parser.add_argument("--out", type=Path, help="file that rows are appended to; gpu.jsonl in $OUT or in results")
    parser.add_argument("--patience", type=float, default=1, help="a part may take so many times its time")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out = options.out or Path(os.environ.get("OUT", RESULTS)) / "gpu.jsonl"
    return options


def pack_data(directory: Path, folder: Path) -> None:
    try:
        manifest = pack(directory, folder)
    except ValueError as error:
        print(f"error: {str(error).replace('runtime.data_dir=DIR', '--pack DATA_DIR FOLDER')}", file=sys.stderr)
        raise SystemExit(2) from error
    for name, part in manifest.items():
        print(f"{name}.xz: {part['shape'][0]} images, {part['bytes'] / 1e6:.1f} MB")


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; bit-exact kernels need it
    options = parse()
    if options.pack:
        pack_data(*options.pack)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends processes and MPS's daemon, too
    size = replace(FULL if options.device == "cuda" else TOY, pack=options.data)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    emit({"part": "machine"}, machine(options.device), options.out)
    ends = time.monotonic() + options.patience * SECONDS
    for name in options.only:
        part, left = PARTS[name], ends - time.monotonic()
        if left < part.least:
            emit(
                {"part": name, "what": "end"},
                {"seconds": 0.0, "left_out": f"all: {max(left, 0):.0f} s were left"},
                options.out,
            )
            continue
        run(name, size, min(left, options.patience * part.seconds), options.out)


if __name__ == "__main__":
    main()
