"""Checkpoints: whole or named as damaged, never executed, never half-written."""

import errno
import hashlib
import io
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odenet import (
    Checkpoint,
    DamagedCheckpoint,
    DataConfig,
    Device,
    ExperimentConfig,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    RefinementConfig,
    RegularizationConfig,
    RuntimeConfig,
    Training,
    TrainingConfig,
    load_checkpoint,
    save_checkpoint,
)
from odenet.networks.table import NETWORKS
from odenet.training.checkpoint import HEADER_BYTES, MAGIC

EXPERIMENT = ExperimentConfig(
    model=ModelConfig(width=1, nodes=1),
    data=DataConfig(per_class=3),
    optim=OptimConfig(optimizer=OptimizerKind.adamw),
    refinement=RefinementConfig(count=1, first=0.5),
    training=TrainingConfig(epochs=2),
)


@pytest.fixture(scope="module")
def training() -> Training:
    """At its end, refined once."""
    training = Training(EXPERIMENT, RuntimeConfig(device=Device.cpu))
    list(training)
    return training


@pytest.fixture
def path(training: Training, tmp_path: Path) -> Path:
    training.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.slow
def test_what_is_read_is_what_was_written(training: Training, path: Path) -> None:
    written, read = training.checkpoint(), load_checkpoint(path)
    for name in Checkpoint.__slots__:
        assert equal(getattr(read, name), getattr(written, name)), name
    assert (read.epoch, read.experiment.model.nodes) == (2, 1)
    assert read.depths == training.model.depths()
    assert {(depth.nodes, depth.initial_nodes, depth.course.steps) for depth in read.depths} == {(2, 1, 2)}


def test_a_network_is_built_from_a_checkpoint_alone(training: Training, path: Path) -> None:
    model, x_BCHW = load_checkpoint(path).build(), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x_BCHW), training.model.eval()(x_BCHW))


@pytest.mark.parametrize("network", Network)
def test_every_network_is_built_again_as_deep_as_it_was(network: Network, tmp_path: Path) -> None:
    refines = NETWORKS[network].capability.refines
    config = replace(
        EXPERIMENT,
        model=ModelConfig(network=network, width=4, nodes=2 if refines else 1),
        refinement=RefinementConfig(count=1 if refines else 0, first=0.5),
        regularization=RegularizationConfig(stochastic_depth=0.1),
    )
    training = Training(config, RuntimeConfig(device=Device.cpu))
    list(training)
    training.save(tmp_path / "checkpoint")
    read = load_checkpoint(tmp_path / "checkpoint")
    model, x_BCHW = read.build(), torch.randn(3, 1, 8, 8)
    assert (read.experiment, read.depths) == (config, training.model.depths())
    assert (model.config, model.depths()) == (config.model, read.depths)
    with torch.no_grad():
        assert torch.equal(model.eval()(x_BCHW), training.model.eval()(x_BCHW))


def with_checksum(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda content: content[:-1], r"is damaged: its \d+ bytes do not match their checksum\.$"),
    "cut in half": (lambda content: content[: len(content) // 2], "is damaged: "),
    "longer": (lambda content: content + b"\0", "is damaged: "),
    "only the first line": (lambda _: MAGIC, "is damaged: its 20 bytes do not match their checksum"),
    "a byte of the tensors": (lambda content: flip(content, len(content) // 2), "is damaged: "),
    "a byte of the checksum": (lambda content: flip(content, HEADER_BYTES - 2), "is damaged: "),
    "a byte of the line's end": (lambda content: flip(content, HEADER_BYTES - 1), "is damaged: "),
    "empty": (lambda _: b"", r"is no odenet checkpoint of version 1\.$"),
    "another version": (lambda content: content.replace(b"checkpoint 1", b"checkpoint 2"), "is no odenet checkpoint"),
    "foreign": (lambda content: content[HEADER_BYTES:], "is no odenet checkpoint"),
    "something else": (lambda _: with_checksum(b"text"), "holds something else than a checkpoint of this version: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_refused(path: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedCheckpoint, match=message) as refused:
        load_checkpoint(path)
    assert str(refused.value).startswith(str(path))


class Bomb:
    """Creates a file where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_with_a_right_checksum_is_not_run(path: Path) -> None:
    target, buffer = path.with_name("exploded"), io.BytesIO()
    torch.save({"head": "{}", "weights": {"w": Bomb(target)}, "optimizer": {}}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps(Bomb(target), protocol=2)):
        path.write_bytes(with_checksum(payload))
        with pytest.raises(DamagedCheckpoint, match="holds something else than a checkpoint"):
            load_checkpoint(path)
        assert not target.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert target.exists(), "the bomb would have worked"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_behind(
    training: Training, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[call], full)
        save_checkpoint(path, replace(training.checkpoint(), epoch=1))
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save_checkpoint(path, replace(training.checkpoint(), epoch=1))
    assert load_checkpoint(path).epoch == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]
