"""An experiment as one value: its plain form, its identity, and the range of its values."""

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest

from odenet import (
    ExperimentConfig,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    RuntimeConfig,
    Scheme,
    TrainingConfig,
)
from odenet.training.config import from_plain, identity, to_plain

# A value for every field that is not an enumeration.
OTHER: dict[str, Any] = {
    "model.width": 8,
    "model.widen": 2,
    "model.final_width": 24,
    "model.cardinality": 4,
    "model.nodes": 4,
    "model.substeps": 2,
    "model.depth_time": 1.5,
    "model.skip_init": True,
    "model.tolerance": 1e-4,
    "model.initial_sha256": 64 * "a",
    "data.per_class": None,
    "data.val_fraction": 0.25,
    "data.draw": 2,
    "optim.lr": 0.3,
    "optim.momentum": 0.5,
    "optim.weight_decay": 0.0,
    "optim.nesterov": True,
    "optim.batch_size": 7,
    "optim.frozen": 2,
    "optim.body_lr": 0.5,
    "refinement.count": 2,
    "refinement.first": 0.5,
    "refinement.interval": 0.1,
    "refinement.coarsen": 0.9,
    "refinement.at": [3, 5],
    "regularization.smoothness": 1e-4,
    "regularization.stochastic_depth": 0.5,
    "regularization.noise": 0.01,
    "training.epochs": 40,
    "training.seed": 2**62,
}


def keys(kind: Any = ExperimentConfig, prefix: str = "") -> dict[str, Any]:
    """Every dotted key that makes a difference, with its type; data.path says where images are, not which."""
    found: dict[str, Any] = {}
    compared = {f.name for f in fields(kind) if f.compare}
    for name, hint in ((name, hint) for name, hint in get_type_hints(kind).items() if name in compared):
        found |= keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else {prefix + name: hint}
    return found


def with_value(config: ExperimentConfig, key: str, value: object) -> ExperimentConfig:
    part, name = key.split(".")
    return replace(config, **{part: replace(getattr(config, part), **{name: value})})


def other_value(key: str, hint: Any, draw: Callable[[list[Any]], Any]) -> Any:
    kinds = get_args(hint) or (hint,)
    choices = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)), None)
    return OTHER[key] if choices is None else draw(list(choices))


def random_config(seed: int) -> ExperimentConfig:
    """Defaults with about half of the keys changed, as far as they go together."""
    draws, config = random.Random(seed), ExperimentConfig()
    for key, hint in keys().items():
        if draws.random() < 0.5:
            try:
                config = with_value(config, key, other_value(key, hint, draws.choice))
            except ValueError:
                continue
    return config


# Plain form and identity


def test_the_plain_form_is_the_config_with_enumerations_by_name() -> None:
    configs = [random_config(seed) for seed in range(300)]
    assert len({identity(config) for config in configs}) > 250
    for config in configs:
        plain = to_plain(config)
        assert from_plain(ExperimentConfig, plain) == config
        values = [value for part in plain.values() for value in part.values()]
        assert {type(value) for value in values} <= {int, float, bool, str, list, type(None)}
        assert plain["model"]["gradient"] == config.model.gradient.name
        assert plain["model"]["scheme"] == (None if config.model.scheme is None else config.model.scheme.name)


def test_what_is_left_out_keeps_its_default_and_an_integer_is_a_float() -> None:
    config = from_plain(ExperimentConfig, {"optim": {"lr": 1}, "model": {"depth_time": 2}})
    assert config == ExperimentConfig(optim=OptimConfig(lr=1.0), model=ModelConfig(depth_time=2.0))
    assert (type(config.optim.lr), type(config.model.depth_time)) == (float, float)


# What else must be said where a key means nothing, or cannot be, in the default network.
NEEDS: dict[str, dict[str, Any]] = {
    "model.basis": {"scheme": Scheme.heun},
    "model.start": {"scheme": Scheme.two_step_midpoint},
    "model.tolerance": {"network": Network.neural_ode, "nodes": 1},
    "model.cardinality": {"network": Network.resnext},
}


@pytest.mark.parametrize("key", keys())
def test_the_identity_changes_with_every_field(key: str) -> None:
    config = ExperimentConfig(model=ModelConfig(**NEEDS.get(key, {})))
    part, name = key.split(".")
    present = getattr(getattr(config, part), name)
    changed = with_value(config, key, other_value(key, keys()[key], lambda all_: next(x for x in all_ if x != present)))
    assert changed != config
    assert identity(changed) != identity(config)


def test_the_identity_is_equal_for_equal_configs_and_written_down() -> None:
    assert identity(ExperimentConfig(optim=OptimConfig(lr=1))) == identity(ExperimentConfig(optim=OptimConfig(lr=1.0)))
    # A change here means that recorded experiments are no longer found: new fields and defaults do that on purpose.
    assert identity(ExperimentConfig()) == "0ad9bbf9a65a27d0"


def test_every_part_is_a_keyword_dataclass_with_slots() -> None:
    whole = ExperimentConfig()
    for part in [whole, RuntimeConfig(), *(getattr(whole, field.name) for field in fields(whole))]:
        assert "__dict__" not in dir(part)
        assert all(field.kw_only for field in fields(part))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"modle": {}}, r"modle is no key; possible are model, data, optim, refinement, regularization, training\."),
        ({"model": {"scheem": "rk4"}}, r"model\.scheem is no key; possible are network, width, widen, .*"),
        ({"model": {"scheme": "rk5"}}, r"model\.scheme='rk5': must be one of euler, midpoint, heun, ralston, rk4, .*"),
        ({"model": {"scheme": "RK4"}}, r"model\.scheme='RK4': must be one of .*"),
        ({"model": {"scheme": 4}}, r"model\.scheme=4: must be one of .*"),
        ({"model": {"scheme": ["rk4"]}}, r"model\.scheme=\['rk4'\]: must be one of .*"),
        ({"model": {"gradient": None}}, r"model\.gradient=None: must be one of direct, checkpointed, reconstructed\."),
        ({"model": {"nodes": 2.0}}, r"model\.nodes=2\.0: must be of type int\."),
        ({"model": {"nodes": True}}, r"model\.nodes=True: must be of type int\."),
        ({"model": {"width": None}}, r"model\.width=None: must be of type int\."),
        ({"model": {"nodes": ""}}, r"model\.nodes=: write a number for all stages, such as 2, or one for .*"),
        ({"model": {"depth_time": "2"}}, r"model\.depth_time='2': must be of type float\."),
        ({"data": {"per_class": "all"}}, r"data\.per_class='all': must be of type int\."),
        ({"optim": {"nesterov": 1}}, r"optim\.nesterov=1: must be of type bool\."),
        ({"optim": {"lr": True}}, r"optim\.lr=True: must be of type float\."),
        ({"refinement": {"at": 3}}, r"refinement\.at=3: must be a list\."),
        ({"refinement": {"at": [3, 5.0]}}, r"refinement\.at\[1\]=5\.0: must be of type int\."),
        ({"optim": 0.1}, r"optim must be a mapping, not 0\.1\."),
        (["model"], r"the config must be a mapping, not \['model'\]\."),
    ],
)
def test_a_plain_form_that_is_none_is_refused(plain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_plain(ExperimentConfig, plain)


# Values


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (ModelConfig, {"width": 0}, r"model\.width=0: must be from 1 to 4096\."),
        (ModelConfig, {"nodes": 0}, r"model\.nodes=0: must be from 1 to 4096\."),
        (ModelConfig, {"substeps": 4097}, r"model\.substeps=4097: must be from 1 to 4096\."),
        (ModelConfig, {"widen": 0}, r"model\.widen=0: must be from 1 to 4096\."),
        (ModelConfig, {"cardinality": 0}, r"model\.cardinality=0: must be from 1 to 4096\."),
        (ModelConfig, {"final_width": 0}, r"model\.final_width=0: must be from 1 to 16384, or null\."),
        (ModelConfig, {"tolerance": 0.0}, r"model\.tolerance=0\.0: must be above 0 and below 1\."),
        (ModelConfig, {"tolerance": 1.0}, r"model\.tolerance=1\.0: must be above 0 and below 1\."),
        (ModelConfig, {"depth_time": 0.0}, r"model\.depth_time=0\.0: must be positive and finite, or null for what .*"),
        (ModelConfig, {"depth_time": float("inf")}, r"model\.depth_time=inf: must be positive and finite, .*"),
        (OptimConfig, {"lr": 0.0}, r"optim\.lr=0\.0: must be positive and finite\."),
        (OptimConfig, {"lr": float("nan")}, r"optim\.lr=nan: must be positive and finite\."),
        (OptimConfig, {"momentum": 1.0}, r"optim\.momentum=1\.0: must be at least 0 and less than 1\."),
        (OptimConfig, {"weight_decay": -1e-4}, r"optim\.weight_decay=-0\.0001: must be at least 0 and finite\."),
        (OptimConfig, {"batch_size": 0}, r"optim\.batch_size=0: must be from 1 to 65536\."),
        (OptimConfig, {"nesterov": True, "momentum": 0.0}, r"optim\.nesterov=true needs optim\.optimizer=sgd with .*"),
        (OptimConfig, {"nesterov": True, "optimizer": OptimizerKind.adamw}, r"optim\.nesterov=true needs .*"),
        (TrainingConfig, {"epochs": 0}, r"training\.epochs=0: must be from 1 to 100000\."),
        (TrainingConfig, {"seed": -1}, r"training\.seed=-1: must be from 0 to 2\^63 - 1\."),
        (TrainingConfig, {"seed": 2**63}, r"training\.seed=9223372036854775808: must be from 0 to .*"),
    ],
)
def test_a_value_out_of_range_is_refused(kind: type, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**wrong)
