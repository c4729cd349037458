"""Going on under another experiment with the weights of a checkpoint: exploit and explore in a population."""

import copy
from dataclasses import fields, replace
from typing import Any

from torch.optim import Optimizer

from odenet.depth.bases import BASES
from odenet.depth.discretisation import Depth
from odenet.networks.model import DepthNet
from odenet.networks.model_config import asked_nodes, stage_depths
from odenet.networks.refinement import refine
from odenet.training.checkpoint import Checkpoint
from odenet.training.config import ExperimentConfig, to_plain
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig
from odenet.training.regularization_config import RegularizationConfig

KEPT = ("optimizer", "frozen", "body_lr")  # how the optimizer's groups are made
# What may change while a network is trained.
CHANGEABLE = (
    *(f"optim.{field.name}" for field in fields(OptimConfig) if field.name not in KEPT),
    *(f"regularization.{field.name}" for field in fields(RegularizationConfig)),
    *("data.augment", "training.seed", "model.scheme", "model.substeps", "model.nodes"),
)


def transfer(checkpoint: Checkpoint, experiment: ExperimentConfig) -> Checkpoint:
    """Return the same network in training, at the same epoch, under `experiment`; `checkpoint` stays as it was.

    Weights, the optimizer's state and progress (so also what was spent) are kept. Steps become the new substeps times
    the present cells, the scheme the new one; more `model.nodes` are refinements, beside those there were and will be.
    Depth time is part of what the weights mean and stays: where the config leaves it to the nodes, a network built from
    `experiment` has another. Jaderberg et al. 2017, arXiv 1711.09846, change hyperparameters of the optimizer only.

    Raises:
        ValueError: the experiment differs in what cannot change, or has nodes that no refinement leads to; names it.
    """
    _check_changes(checkpoint.experiment, experiment)
    times = _refinements(checkpoint.experiment, experiment)
    model = checkpoint.build()
    optimizer = build_optimizer(model, checkpoint.experiment.optim)
    optimizer.load_state_dict(copy.deepcopy(checkpoint.optimizer))
    for _ in range(times):
        refine(model, optimizer)
    _take_course(model, experiment)
    _take_hyperparameters(optimizer, build_optimizer(model, experiment.optim))
    return replace(
        checkpoint,
        experiment=experiment,
        depths=model.depths(),
        weights=model.state_dict(),
        optimizer=optimizer.state_dict(),
        progress=copy.deepcopy(checkpoint.progress),
    )


def _check_changes(old: ExperimentConfig, new: ExperimentConfig) -> None:
    before, after = _flat(old), _flat(new)
    fixed = [key for key in before if before[key] != after[key] and key not in CHANGEABLE]
    if fixed:
        changes = ", ".join(f"{key} from {before[key]} to {after[key]}" for key in fixed)
        raise ValueError(f"A network in training cannot change {changes}; it can change {', '.join(CHANGEABLE)}.")


def _flat(config: ExperimentConfig) -> dict[str, Any]:
    return {f"{part}.{key}": value for part, keys in to_plain(config).items() for key, value in keys.items()}


def _refinements(old: ExperimentConfig, new: ExperimentConfig) -> int:
    """Return how many refinements lead from the nodes of the one to those of the other."""
    wanted = _nodes(stage_depths(new.model))
    depths, times = stage_depths(old.model), 0
    while (present := _nodes(depths)) != wanted:
        depths, times = [depth.refined() for depth in depths], times + 1
        if max(present) >= max(wanted):
            raise ValueError(
                f"model.nodes from {asked_nodes(old.model)} to {asked_nodes(new.model)}: no refinement leads there, "
                f"the stages would have {wanted} nodes after {_nodes(stage_depths(old.model))}; each refinement halves "
                "every cell."
            )
    return times


def _nodes(depths: list[Depth]) -> list[int]:
    return [depth.nodes for depth in depths]


def _take_course(model: DepthNet, experiment: ExperimentConfig) -> None:
    for stage, start in zip(model.depth_stages(), stage_depths(experiment.model), strict=True):
        steps = BASES[stage.depth.basis].cells(stage.depth.nodes) * experiment.model.substeps
        course = replace(stage.depth.course, scheme=start.course.scheme, steps=steps)
        stage.depth = replace(stage.depth, course=course)


def _take_hyperparameters(optimizer: Optimizer, fresh: Optimizer) -> None:
    """Set all but the learning rate, which every iteration sets: a transfer that changes nothing is the identity."""
    for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        group.update({key: value for key, value in new.items() if key not in ("params", "lr")})
