"""What the parts of `gpu.py` share: how large everything is, what a row is made from, and the arithmetics."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from odenet.enums import Precision

Labels = dict[str, Any]  # what a row is about
Result = dict[str, Any]  # what was found: figures, or why there are none


class Load(NamedTuple):
    """What is trained side by side: iterations of a whole trial, and how many images each has."""

    batch_size: int
    trial_iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large everything is, and where it runs."""

    device: str
    images: int  # of a comparison, square ones of `side` pixels
    side: int
    width: int
    nodes: int
    seeds: int
    iterations: tuple[int, ...]  # of SGD before the points of a comparison
    per_class: int  # digits to train on
    training_batch: int  # of them
    batch_sizes: tuple[int, ...]  # that are timed, of images of `timed_side` pixels
    timed_side: int
    widths: tuple[int, ...]  # of ContinuousNets whose memory formats are compared
    rounds: int
    matrix: int  # rows of the matrices that are multiplied
    copy_mib: int
    loads: tuple[Load, ...]
    side_by_side: tuple[int, ...]
    share_seconds: float  # of iterations in each row
    clock_seconds: float  # in which a network is to be trained on CIFAR-10
    most_epochs: int
    blocks_1202: tuple[int, int]  # per stage, of the Hamiltonian and the MidPoint network of 1202 layers
    trials: int  # of random configurations
    trials_at_once: int
    trial_per_class: int
    trial_epochs: int
    compiler: str  # of torch.compile
    pack: Path = Path("packed")  # where CIFAR-10's parts are


TOY = Size(
    device="cpu",
    images=4,
    side=8,
    width=8,
    nodes=2,
    seeds=1,
    iterations=(0,),
    per_class=4,
    training_batch=16,
    batch_sizes=(2,),
    timed_side=8,
    widths=(8, 16),
    rounds=1,
    matrix=256,
    copy_mib=8,
    loads=(Load(2, 10),),
    side_by_side=(1, 2),
    share_seconds=0.05,
    clock_seconds=0.01,
    most_epochs=2,
    blocks_1202=(3, 3),
    trials=1,
    trials_at_once=1,
    trial_per_class=4,
    trial_epochs=3,
    compiler="eager",
)
FULL = Size(
    device="cuda",
    images=16,
    side=16,
    width=16,
    nodes=3,
    seeds=3,
    iterations=(0, 20),
    per_class=40,
    training_batch=32,
    batch_sizes=(128, 1024),
    timed_side=32,
    widths=(16, 32, 64),
    rounds=5,
    matrix=8192,
    copy_mib=2048,
    loads=(Load(128, 120 * 391), Load(32, 60 * 10)),
    side_by_side=(1, 2, 4, 8, 16, 32),
    share_seconds=1.5,
    clock_seconds=50,
    most_epochs=120,
    blocks_1202=(100, 200),
    trials=64,
    trials_at_once=8,
    trial_per_class=50,
    trial_epochs=60,
    compiler="inductor",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: its labels, and how to find the rest. `measure` may raise: the row then says what went wrong."""

    labels: Labels
    measure: Callable[[], Result]


def arithmetics(device: str) -> tuple[Precision, ...]:
    """Those that differ on this device."""
    return tuple(Precision) if device == "cuda" else (Precision.fp32, Precision.bf16)
