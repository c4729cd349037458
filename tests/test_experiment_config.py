"""An experiment as one value: its plain form, its identity, and what it refuses."""

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, get_type_hints

import pytest

from odenet import (
    Basis,
    ExperimentConfig,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    RefinementConfig,
    RuntimeConfig,
    Scheme,
    TrainingConfig,
    refine,
)
from odenet.config import from_plain, identity, model_after, to_plain
from odenet.models import build_model

# A value for every field that is not an enumeration; and a combination it needs where it is not free.
OTHER: dict[str, Any] = {
    "model.width": 8,
    "model.nodes": 3,
    "model.substeps": 2,
    "model.depth_time": 1.5,
    "data.per_class": None,
    "data.val_fraction": 0.25,
    "data.draw": 2,
    "optim.lr": 0.3,
    "optim.momentum": 0.5,
    "optim.weight_decay": 0.0,
    "optim.nesterov": True,
    "optim.batch_size": 7,
    "refinement.count": 2,
    "refinement.first": 0.5,
    "refinement.interval": 0.1,
    "training.epochs": 40,
    "training.seed": 2**62,
}


def keys(kind: Any = ExperimentConfig, prefix: str = "") -> dict[str, Any]:
    """Every dotted key with its type."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        found |= keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else {prefix + name: hint}
    return found


def with_value(config: ExperimentConfig, key: str, value: object) -> ExperimentConfig:
    part, name = key.split(".")
    return replace(config, **{part: replace(getattr(config, part), **{name: value})})


def other_value(key: str, hint: Any, draw: Callable[[list[Any]], Any]) -> Any:
    return draw(list(hint)) if isinstance(hint, type) and issubclass(hint, Enum) else OTHER[key]


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
        assert {type(value) for value in values} <= {int, float, bool, str, type(None)}
        assert plain["model"]["scheme"] == config.model.scheme.name


def test_what_is_left_out_keeps_its_default_and_an_integer_is_a_float() -> None:
    config = from_plain(ExperimentConfig, {"optim": {"lr": 1}, "model": {"depth_time": 2}})
    assert config == ExperimentConfig(optim=OptimConfig(lr=1.0), model=ModelConfig(depth_time=2.0))
    assert (type(config.optim.lr), type(config.model.depth_time)) == (float, float)


@pytest.mark.parametrize("key", keys())
def test_the_identity_changes_with_every_field(key: str) -> None:
    # Heun goes with every basis, but only Euler with every network.
    config = (
        ExperimentConfig() if key == "model.network" else with_value(ExperimentConfig(), "model.scheme", Scheme.heun)
    )
    part, name = key.split(".")
    present = getattr(getattr(config, part), name)
    changed = with_value(config, key, other_value(key, keys()[key], lambda all_: next(x for x in all_ if x != present)))
    assert changed != config
    assert identity(changed) != identity(config)


def test_the_identity_is_equal_for_equal_configs_and_written_down() -> None:
    assert identity(ExperimentConfig(optim=OptimConfig(lr=1))) == identity(ExperimentConfig(optim=OptimConfig(lr=1.0)))
    # A change here means that recorded experiments are no longer found: new fields and defaults do that on purpose.
    assert identity(ExperimentConfig()) == "ffdf826726fa3cd4"


def test_every_part_is_a_keyword_dataclass_with_slots() -> None:
    whole = ExperimentConfig()
    for part in [whole, RuntimeConfig(), *(getattr(whole, field.name) for field in fields(whole))]:
        assert "__dict__" not in dir(part)
        assert all(field.kw_only for field in fields(part))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"modle": {}}, r"modle is no key; possible are model, data, optim, refinement, training\."),
        ({"model": {"scheem": "rk4"}}, r"model\.scheem is no key; possible are network, width, nodes, basis, .*"),
        ({"model": {"scheme": "rk5"}}, r"model\.scheme='rk5': must be one of euler, midpoint, heun, ralston, rk4, .*"),
        ({"model": {"scheme": "RK4"}}, r"model\.scheme='RK4': must be one of .*"),
        ({"model": {"scheme": 4}}, r"model\.scheme=4: must be one of .*"),
        ({"model": {"scheme": ["rk4"]}}, r"model\.scheme=\['rk4'\]: must be one of .*"),
        ({"model": {"scheme": None}}, r"model\.scheme=None: must be one of .*"),
        ({"model": {"nodes": 2.0}}, r"model\.nodes=2\.0: must be of type int\."),
        ({"model": {"nodes": True}}, r"model\.nodes=True: must be of type int\."),
        ({"model": {"nodes": None}}, r"model\.nodes=None: must be of type int\."),
        ({"model": {"depth_time": "2"}}, r"model\.depth_time='2': must be of type float\."),
        ({"data": {"per_class": "all"}}, r"data\.per_class='all': must be of type int\."),
        ({"optim": {"nesterov": 1}}, r"optim\.nesterov=1: must be of type bool\."),
        ({"optim": {"lr": True}}, r"optim\.lr=True: must be of type float\."),
        ({"optim": 0.1}, r"optim must be a mapping, not 0\.1\."),
        (["model"], r"the config must be a mapping, not \['model'\]\."),
    ],
)
def test_a_plain_form_that_is_none_is_refused(plain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_plain(ExperimentConfig, plain)


# Values and combinations


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (ModelConfig, {"width": 0}, r"model\.width=0: must be from 1 to 4096\."),
        (ModelConfig, {"nodes": 0}, r"model\.nodes=0: must be from 1 to 4096\."),
        (ModelConfig, {"substeps": 4097}, r"model\.substeps=4097: must be from 1 to 4096\."),
        (
            ModelConfig,
            {"nodes": 512, "substeps": 9},
            r"model\.nodes=512 with model\.substeps=9 takes 4608 steps .*4096 .*",
        ),
        (ModelConfig, {"depth_time": 0.0}, r"model\.depth_time=0\.0: must be positive and finite, or null for 2\."),
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


HAT = ModelConfig(basis=Basis.hat)
RESNET = ModelConfig(network=Network.resnet)
PREACT = ModelConfig(network=Network.preact_resnet)
ONE = RefinementConfig(count=1)


@pytest.mark.parametrize(
    ("model", "refinement", "message"),
    [
        (RESNET, ONE, r"model\.network=resnet with refinement\.count=1: a ResNet cannot be refined; use 0\."),
        (PREACT, ONE, r"model\.network=preact_resnet with refinement\.count=1: a ResNet cannot be refined; use 0\."),
        (
            replace(RESNET, scheme=Scheme.rk4),
            RefinementConfig(),
            r"model\.network=resnet with model\.scheme=rk4: only euler is possible, it is a ResNet\.",
        ),
        (
            replace(RESNET, basis=Basis.hat, scheme=Scheme.euler),
            RefinementConfig(),
            r"model\.network=resnet with model\.basis=hat: only piecewise_constant is possible, it is a ResNet\.",
        ),
        (
            replace(RESNET, substeps=2),
            RefinementConfig(),
            r"model\.network=resnet with model\.substeps=2: a ResNet's block is one step; use 1\.",
        ),
        (
            # Its first stage has a node more, so no one depth time would make every block a residual block.
            replace(PREACT, depth_time=2.0),
            RefinementConfig(),
            r"model\.network=preact_resnet with model\.depth_time=2\.0: a ResNet's is the number of its blocks; .*",
        ),
        (
            HAT,
            RefinementConfig(),
            r"model\.scheme=euler with model\.basis=hat, 2 nodes and 1 steps never reads node 1, whose weights would "
            r"stay untrained: choose a scheme with a stage at the end of the step \(heun, rk4, rk4_38\), or "
            r"model\.substeps=2\.",
        ),
        (
            replace(HAT, nodes=1),
            ONE,
            r"model\.scheme=euler with model\.basis=hat, 2 nodes and 1 steps after refinement never reads node 1, .*",
        ),
        (
            ModelConfig(nodes=1024),
            RefinementConfig(count=3, interval=0.1),
            r"refinement\.count=3 from model\.nodes=1024 and 1024 steps ends with 8192 nodes and 8192 steps per stage: "
            r"at most 4096 are possible; refine less often or start with fewer\.",
        ),
        (ModelConfig(), RefinementConfig(count=9), r"refinement\.count=9 with first=0\.3 .* but training has 30: .*"),
    ],
)
def test_an_impossible_combination_is_refused(model: ModelConfig, refinement: RefinementConfig, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ExperimentConfig(model=model, refinement=refinement)


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("basis", Basis)
def test_what_the_message_recommends_is_accepted(scheme: Scheme, basis: Basis) -> None:
    for nodes in (1, 2, 5):
        ExperimentConfig(model=ModelConfig(scheme=scheme, basis=basis, nodes=nodes, substeps=2), refinement=ONE)
    if scheme is not Scheme.euler:
        ExperimentConfig(model=ModelConfig(scheme=scheme, basis=basis), refinement=ONE)


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_network_at_the_end_of_training_is_known_beforehand(basis: Basis, count: int) -> None:
    start = ModelConfig(width=1, nodes=2, basis=basis, substeps=2)
    config = ExperimentConfig(model=start, refinement=RefinementConfig(count=count))
    model = build_model(start, channels=1, classes=2)
    for _ in range(count):
        refine(model)
    assert model_after(config) == model.config
    assert model_after(config).steps == model.depth_stages()[0].depth.steps
