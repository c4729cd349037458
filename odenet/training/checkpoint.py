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
        """Build the network with its weights, on the CPU."""
        config = self.experiment.model
        network = build_model(config, channels=self.channels, classes=self.classes, depths=self.depths)
        network.load_state_dict(self.weights)
        return network


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside the target, then rename: a kill, a full disk or a loss of power leaves the old file whole.

    >>> import tempfile
    >>> from odenet import Training
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_checkpoint(Path(directory, "first"), Training(ExperimentConfig()).checkpoint())
    ...     [file.name for file in Path(directory).iterdir()]
    ['first']
    """
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
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Bring a new name to the disk: the checkpoint before it may be deleted next."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, by weights_only, so that loading never runs code.

    Raises:
        DamagedCheckpoint: the content does not match its checksum, or is no checkpoint of this version.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> from odenet import Training
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Training(ExperimentConfig()).save(Path(directory, "first"))
    ...     checkpoint = load_checkpoint(Path(directory, "first"))
    >>> checkpoint.epoch, type(checkpoint.build()).__name__
    (0, 'DepthNet')
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
