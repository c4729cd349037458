"""The optimizer and its learning rate, as values."""

import math
from dataclasses import dataclass
from enum import Enum


class OptimizerKind(Enum):
    """The optimizers, fused where torch has that."""

    sgd = "sgd"
    adamw = "adamw"


class Schedule(Enum):
    """The fall of the learning rate over training."""

    cosine = "cosine"  # to 0
    step = "step"  # by 10 after a half and after three quarters of training (paper 1A: 0.25, 0.5, 0.75)
    constant = "constant"


class DepthMetric(Enum):
    """The inner product in which node tensors descend."""

    l2 = "l2"  # of functions of depth, by the mass matrix of the basis: a refinement does not change what lr means
    node = "node"  # of the coefficients, as the authors of arXiv 2008.02389 have it


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """The minimisation of the cross-entropy."""

    optimizer: OptimizerKind = OptimizerKind.sgd
    lr: float = 0.1  # at the start
    momentum: float = 0.9  # AdamW's first decay rate, too
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: Schedule = Schedule.cosine  # how the learning rate falls
    batch_size: int = 32  # images of an iteration
    depth_metric: DepthMetric = DepthMetric.l2  # the inner product in which nodes descend
    frozen: int = 0  # parts that keep their initial weights: 1 is the stem, 2 also the first stage, and so on
    body_lr: float = 1.0  # factor of the learning rate of all but the last linear layer

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optim.lr={self.lr}: must be positive and finite.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optim.momentum={self.momentum}: must be at least 0 and less than 1.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"optim.weight_decay={self.weight_decay}: must be at least 0 and finite.")
        if self.nesterov and (self.momentum == 0 or self.optimizer is not OptimizerKind.sgd):
            raise ValueError("optim.nesterov=true needs optim.optimizer=sgd with a momentum above 0.")
        if not 0 <= self.frozen <= 8:
            raise ValueError(f"optim.frozen={self.frozen}: must be from 0 to 8.")
        if not 0 < self.body_lr < math.inf:
            raise ValueError(f"optim.body_lr={self.body_lr}: must be positive and finite; optim.frozen keeps parts.")
        if not 1 <= self.batch_size <= 65536:
            raise ValueError(f"optim.batch_size={self.batch_size}: must be from 1 to 65536.")
