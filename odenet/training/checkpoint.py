"""Checkpoints: one file each, written atomically, checksummed, read without running code.

Layout: the line b"odenet checkpoint 1", the SHA-256 of the rest in hex, then torch.save of tensors and a JSON string.
"""

import hashlib
import io
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odenet.depth.discretisation import Depth
from odenet.networks.model import DepthNet, build_model
from odenet.training.config import ExperimentConfig, from_plain, to_plain

MAGIC = b"odenet checkpoint 1\n"
HEADER_BYTES = len(MAGIC) + 65


class DamagedCheckpoint(ValueError):
    """The file is not what was written: truncated, altered, or something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A network in training. `depths` are the present (refined) ones, `experiment` is what training began with."""

    experiment: ExperimentConfig
    depths: list[Depth]
    channels: int
    classes: int
    epoch: int  # epochs completed
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]  # what Training carries besides: plain JSON values

    def build(self) -> DepthNet:
        """The network with its weights, on the CPU."""
        config = self.experiment.model
        network = build_model(config, channels=self.channels, classes=self.classes, depths=self.depths)
        network.load_state_dict(self.weights)
        return network


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes beside the target, then renames: a kill or a full disk leaves the old file whole."""
    head = {
        "experiment": to_plain(checkpoint.experiment),
        "depths": [to_plain(depth) for depth in checkpoint.depths],
        **{name: getattr(checkpoint, name) for name in ("channels", "classes", "epoch", "progress")},
    }
    buffer = io.BytesIO()
    tensors = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
    torch.save({"head": json.dumps(head), **tensors}, buffer)
    payload = buffer.getvalue()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.writelines([_header(payload), payload])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads with weights_only, so loading never runs code.

    Raises:
        DamagedCheckpoint: the content does not match its checksum, or is no checkpoint of this version.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    header, payload = content[:HEADER_BYTES], content[HEADER_BYTES:]
    if not header.startswith(MAGIC):
        raise DamagedCheckpoint(f"{path} is no odenet checkpoint of version 1.")
    if header != _header(payload):
        raise DamagedCheckpoint(f"{path} is damaged: its {len(content)} bytes do not match their checksum.")
    try:
        return _unpack(payload)
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        raise DamagedCheckpoint(f"{path} holds something else than a checkpoint of this version: {error}") from error


def _header(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def _unpack(payload: bytes) -> Checkpoint:
    stored = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    head = json.loads(stored["head"])
    return Checkpoint(
        experiment=from_plain(ExperimentConfig, head.pop("experiment")),
        depths=[from_plain(Depth, depth) for depth in head.pop("depths")],
        weights=stored["weights"],
        optimizer=stored["optimizer"],
        **head,
    )


def newest_checkpoint(paths: list[Path]) -> tuple[Checkpoint, list[DamagedCheckpoint]]:
    """The first whole one of `paths` (newest first) and what was wrong with those before it.

    Raises:
        DamagedCheckpoint: none is whole; names them all.
    """
    damaged: list[DamagedCheckpoint] = []
    for path in paths:
        try:
            return load_checkpoint(path), damaged
        except DamagedCheckpoint as error:
            damaged.append(error)
    raise DamagedCheckpoint(" ".join(map(str, damaged)) or "There is no checkpoint.")
