"""The optimizer, the learning rate as a function of progress, and gradients in L2 over depth."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from odenet.models import DepthNet


class OptimizerKind(Enum):
    """Fused where torch has it."""

    sgd = "sgd"
    adamw = "adamw"


class Schedule(Enum):
    """How the learning rate falls over training."""

    cosine = "cosine"  # to 0
    step = "step"  # by 10 after a half and after three quarters of training (paper 1A: 0.25, 0.5, 0.75)
    constant = "constant"


class DepthMetric(Enum):
    """The inner product in which node tensors descend."""

    l2 = "l2"  # over depth: gradients times nodes / initial nodes, so a refinement does not change what lr means
    node = "node"  # of the coefficients, as the authors of arXiv 2008.02389 have it


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Minimisation of the cross-entropy."""

    optimizer: OptimizerKind = OptimizerKind.sgd
    lr: float = 0.1
    momentum: float = 0.9  # AdamW's first decay rate, too
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: Schedule = Schedule.cosine
    batch_size: int = 32
    depth_metric: DepthMetric = DepthMetric.l2

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optim.lr={self.lr}: must be positive and finite.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optim.momentum={self.momentum}: must be at least 0 and less than 1.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"optim.weight_decay={self.weight_decay}: must be at least 0 and finite.")
        if self.nesterov and (self.momentum == 0 or self.optimizer is not OptimizerKind.sgd):
            raise ValueError("optim.nesterov=true needs optim.optimizer=sgd with a momentum above 0.")
        if not 1 <= self.batch_size <= 65536:
            raise ValueError(f"optim.batch_size={self.batch_size}: must be from 1 to 65536.")


def build_optimizer(model: DepthNet, config: OptimConfig) -> Optimizer:
    """Build SGD or AdamW with weight decay on all parameters but the k_n of LM steps.

    So decay Queiruga et al. (arXiv 2008.02389) and He et al.; the Hamiltonian networks' authors (arXiv 1709.03698)
    decay kernels only. Here all networks have one rule, so that a study compares them on equal terms.
    """
    memories = [stage.rate.memory for stage in model.depth_stages() if stage.rate.memory is not None]
    free = {id(memory) for memory in memories}
    decayed = [parameter for parameter in model.parameters() if id(parameter) not in free]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if memories:
        groups.append({"params": memories, "weight_decay": 0.0})
    if config.optimizer is OptimizerKind.adamw:
        betas = (config.momentum, 0.999)
        return AdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
    return SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )


def learning_rate(config: OptimConfig, progress: float) -> float:
    """The rate after the fraction `progress` of all iterations, in [0, 1)."""
    if config.schedule is Schedule.cosine:
        return config.lr * (1 + math.cos(math.pi * progress)) / 2
    if config.schedule is Schedule.step:
        return config.lr * 0.1 ** ((progress >= 0.5) + (progress >= 0.75))
    return config.lr


@torch.no_grad()
def scale_depth_gradients(model: DepthNet) -> None:
    """Turns gradients of node coefficients into gradients in L2 over depth: times nodes / initial nodes.

    A node of a twice as fine grid acts on half the depth, so its coefficient's gradient is half as long; without the
    factor learning would slow down with every refinement. Weight decay, added by the optimizer, is not scaled.
    """
    for stage in model.depth_stages():
        factor = stage.depth.nodes / stage.depth.initial_nodes
        if factor != 1:
            torch._foreach_mul_([p.grad for p in stage.rate.parameters() if p.grad is not None], factor)
