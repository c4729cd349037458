"""A network begins with weights of a file, of another project or of this one, and may learn only a part of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import Tensor

from odenet import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    Network,
    OptimConfig,
    Training,
    TrainingConfig,
    build_model,
)
from odenet.enums import Gradient
from odenet.networks.model import DepthNet
from odenet.pretrained.initial import UnfitWeights, begin_with
from odenet.pretrained.torchvision_names import from_torchvision
from odenet.pretrained.weight_file import NoWeights, hash_of, read_weights
from odenet.training.config import identity
from odenet.training.step import StaticStep

SMALL = ModelConfig(width=4, nodes=1)
DIGITS = DataConfig(per_class=5)


def built(config: ModelConfig = SMALL, *, classes: int = 10, seed: int = 0) -> DepthNet:
    return build_model(config, channels=1, classes=classes, seed=seed)


def experiment(tmp_path: Path, model: ModelConfig = SMALL, **optim: float) -> ExperimentConfig:
    torch.save(built(model, seed=7).state_dict(), tmp_path / "weights.pth")
    initial = replace(model, initial=str(tmp_path / "weights.pth"), initial_sha256=hash_of(tmp_path / "weights.pth"))
    length = TrainingConfig(epochs=2)
    return ExperimentConfig(model=initial, data=DIGITS, optim=OptimConfig(**optim), training=length)  # type: ignore[arg-type]


def test_every_kind_of_file_gives_the_same_weights(tmp_path: Path) -> None:
    training = Training(ExperimentConfig(model=SMALL, data=DIGITS))
    weights = training.model.state_dict()
    training.save(tmp_path / "own.ckpt")
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "wrapped.pt")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "theirs.safetensors")
    for name in ("own.ckpt", "plain.pth", "wrapped.pt", "theirs.safetensors"):
        read = read_weights(tmp_path / name)
        assert {key: tensor for key, tensor in read.items() if not torch.equal(tensor, weights[key])} == {}, name
        model = built(seed=1)
        assert begin_with(model, tmp_path / name) == []
        assert torch.equal(model.stem.get_parameter("0.weight"), weights["stem.0.weight"])


def test_torchvisions_weights_begin_a_network_of_other_classes_whose_head_stays_as_drawn(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    model = build_model(ModelConfig(network=Network.resnet18, width=64), channels=3, classes=4)
    head = model.head.linear.weight.clone()
    assert begin_with(model, tmp_path / "resnet18.pth") == ["head.linear.weight", "head.linear.bias"]
    assert torch.equal(model.head.linear.weight, head)
    named = from_torchvision(theirs.state_dict())
    kernel = "stages.3.rate.layers.0.inner.3.kernel"
    assert torch.equal(model.state_dict()[kernel], named[kernel])


class Foreign:
    """What a pickle would run."""


def test_a_file_that_holds_no_weights_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("weights")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save(Foreign(), tmp_path / "code.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    Training(ExperimentConfig(model=SMALL, data=DIGITS)).save(tmp_path / "cut.ckpt")
    content = (tmp_path / "cut.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[:-9])
    for name in ("empty.pth", "text.pth", "none.pth", "code.pth", "cut.safetensors", "cut.ckpt", "absent.pth", "."):
        with pytest.raises(NoWeights, match=r"can be|damaged|no whole file") as caught:
            read_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(built().state_dict(), tmp_path / "weights.pth")
    deeper, other = built(replace(SMALL, nodes=2)), built(replace(SMALL, network=Network.preact_resnet))
    with pytest.raises(UnfitWeights, match=r"stages\.0\.rate\.layers\.0\.kernel is \(1, .*\) there and \(2, .*\) here"):
        begin_with(deeper, tmp_path / "weights.pth")
    with pytest.raises(UnfitWeights, match=r"it lacks stem\.weight, .* and \d+ more; it has besides stem\.0\.weight, "):
        begin_with(other, tmp_path / "weights.pth")


def test_training_begins_with_them_and_their_hash_is_part_of_what_is_learned(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    training = Training(config)
    assert torch.equal(training.model.state_dict()["stem.0.weight"], built(seed=7).state_dict()["stem.0.weight"])
    moved = replace(config, model=replace(config.model, initial="elsewhere.pth"))
    assert identity(moved) == identity(config) and moved == config
    assert identity(replace(config, model=SMALL)) != identity(config)
    torch.save(built(seed=8).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(NoWeights, match="is another file now: its SHA-256 is "):
        Training(config)


def changed(training: Training) -> set[str]:
    """The first names of what two epochs of training have changed."""
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    assert len(list(training)) == 2
    after = training.model.state_dict()
    return {".".join(name.split(".")[:2]) for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_frozen_parts_stay_as_they_were_with_their_statistics_whatever_the_gradient(tmp_path: Path) -> None:
    later = {"transitions.1", "stages.1", "transitions.2", "stages.2", "head.linear"}
    for gradient in (Gradient.direct, Gradient.checkpointed):
        model = replace(SMALL, gradient=gradient)
        assert changed(Training(experiment(tmp_path, model, frozen=2))) == later
        assert changed(Training(experiment(tmp_path, model, frozen=4))) == {"head.linear"}
    with pytest.raises(ValueError, match=r"optim\.frozen=5: this network has 5 parts, 4 of them can be: the stem"):
        experiment(tmp_path, frozen=5)


def test_the_body_learns_at_its_own_rate_in_both_kinds_of_step(tmp_path: Path) -> None:
    """A plain step of SGD is the rate times the gradient: ratios of steps are ratios of rates."""

    def step(factor: float, kind: type | None = None) -> dict[str, Tensor]:
        config = experiment(tmp_path, body_lr=factor, momentum=0.0, weight_decay=0.0)
        training = Training(config)
        if kind is not None:
            training._step = kind(training.model, training.optimizer, config, training.model)
        before = {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}
        for x_BCHW, labels_B in training.iterations(1):
            training.update(x_BCHW, labels_B, 0)
        return {name: parameter.detach() - before[name] for name, parameter in training.model.named_parameters()}

    whole = step(1.0)
    for part in (step(0.1), step(0.1, StaticStep)):
        for name, moved in whole.items():
            factor = 1.0 if name.startswith("head.linear") else 0.1
            torch.testing.assert_close(part[name], factor * moved, rtol=2e-3, atol=2e-7)
