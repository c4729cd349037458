"""Checkpoints: one file each, written atomically, checksummed, read without running code.

Layout: the line b"odenet checkpoint 1", the SHA-256 of the rest in hex, then torch.save of tensors and a JSON string.
"""

import hashlib
import io
import json
import os
import pickle
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from odenet.data.batches import Statistics
from odenet.data.subsets import load_data
from odenet.depth.discretisation import Depth
from odenet.inference.classifier import Classifier
from odenet.inference.image_format import ImageFormat
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
    images: ImageFormat | None = None  # None in files of before
    versions: dict[str, str] = field(default_factory=dict)  # of what it is trained with, and the device and its flags

    def classifier(self, device: torch.device | str = "cpu", data_dir: Path | str = "data") -> Classifier:
        """Build the network as it is to be used: normalisation inside, in evaluation mode, on a device.

        Args:
            data_dir: where the data set is: a checkpoint that was written before it kept its normalisation needs it.

        Raises:
            MissingData, DamagedData: of such a checkpoint.
        """
        plain = {"experiment": to_plain(self.experiment), "epoch": self.epoch, "versions": self.versions}
        return Classifier(self.build().to(device), self.images or self._images_of(data_dir), plain)

    def _images_of(self, data_dir: Path | str) -> ImageFormat:
        config = self.experiment.data
        data = load_data(config, data_dir)
        return Statistics.of(data.train).image_format(config, data.labels, data.train.pixels_BCHW.shape[1:])

    def build(self) -> DepthNet:
        """Build the bare network with its weights, on the CPU, to train it further or change its depth.

        It is in training mode, and takes images that were normalised by the mean and standard deviation of the data it
        learned from, in [0, 1]: to use it, take `classifier`, which does both.
        """
        config = self.experiment.model
        network = build_model(config, channels=self.channels, classes=self.classes, depths=self.depths)
        network.load_state_dict(self.weights)
        return network


def present_versions() -> dict[str, str]:
    """Return the versions of what runs: Python, torch, numpy and, where it is installed as such, this project."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("numpy", "continuous-depth-sweep"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write beside the target, then rename: a kill, a full disk or a loss of power leaves the old file whole.

    >>> import tempfile
    >>> from odenet import Training
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_checkpoint(Path(directory, "first"), Training(ExperimentConfig()).checkpoint())
    ...     [file.name for file in Path(directory).iterdir()]
    ['first']
    """
    path, payload = Path(path), _payload(checkpoint)
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


def packed(checkpoint: Checkpoint) -> bytes:
    """Return the content of a checkpoint's file, for storage that has no files."""
    payload = _payload(checkpoint)
    return _header(payload) + payload


def _payload(checkpoint: Checkpoint) -> bytes:
    head = {
        "experiment": to_plain(checkpoint.experiment),
        "depths": [to_plain(depth) for depth in checkpoint.depths],
        "images": None if checkpoint.images is None else to_plain(checkpoint.images),
        **{name: getattr(checkpoint, name) for name in ("channels", "classes", "epoch", "progress", "versions")},
    }
    buffer = io.BytesIO()
    tensors = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
    torch.save({"head": json.dumps(head), **tensors}, buffer)
    return buffer.getvalue()


def _sync_directory(directory: Path) -> None:
    """Bring a new name to the disk: the checkpoint before it may be deleted next."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint, by weights_only, so that loading never runs code; `.classifier()` is the network to be used.

    Raises:
        DamagedCheckpoint: the content does not match its checksum, or is no checkpoint of this version.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> from odenet import Training
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Training(ExperimentConfig()).save(Path(directory, "first"))
    ...     checkpoint = load_checkpoint(Path(directory, "first"))
    >>> checkpoint.epoch, checkpoint.classifier(device="cpu").dataset
    (0, 'digits')
    """
    if Path(path).is_fifo():
        raise DamagedCheckpoint(f"{path} is no odenet checkpoint but a named pipe, which would be waited for.")
    return unpacked(Path(path).read_bytes(), path)


def unpacked(content: bytes, place: Path | str) -> Checkpoint:
    """Read the content of a checkpoint's file. DamagedCheckpoint: as `load_checkpoint`, which names `place`."""
    header, payload = content[:HEADER_BYTES], content[HEADER_BYTES:]
    if not header.startswith(MAGIC):
        raise DamagedCheckpoint(f"{place} is no odenet checkpoint of version 1.")
    if header != _header(payload):
        raise DamagedCheckpoint(f"{place} is damaged: its {len(content)} bytes do not match their checksum.")
    try:
        return _unpack(payload)
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        raise DamagedCheckpoint(f"{place} holds something else than a checkpoint of this version: {error}") from error


def _header(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def _unpack(payload: bytes) -> Checkpoint:
    stored = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    head = json.loads(stored["head"])
    images = head.pop("images", None)
    return Checkpoint(
        experiment=from_plain(ExperimentConfig, head.pop("experiment")),
        depths=[from_plain(Depth, depth) for depth in head.pop("depths")],
        weights=stored["weights"],
        optimizer=stored["optimizer"],
        images=None if images is None else from_plain(ImageFormat, images),
        **head,
    )
