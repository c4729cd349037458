"""The optimizer, the learning rate as a function of progress, and gradients in L2 over depth."""

import inspect
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.discretisation import Depth
from odenet.networks.model import DepthNet
from odenet.training.optim_config import OptimConfig, OptimizerKind, Schedule


def _eager(kind: type[Optimizer]) -> Any:
    """Derive an optimizer without the decorators by which torch's load its compiler on their first call, which takes
    4 s of a process. They are for compiled optimizers; here networks are compiled at most."""
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


_EagerSGD, _EagerAdamW = _eager(SGD), _eager(AdamW)
FACTOR = "lr_factor"  # of a group of parameters


def build_optimizer(model: DepthNet, config: OptimConfig) -> Optimizer:
    """Build SGD or AdamW with weight decay on all parameters but the k_n of LM steps.

    So decay Queiruga et al. (arXiv 2008.02389) and He et al.; the Hamiltonian networks' authors (arXiv 1709.03698)
    decay kernels only. Here all networks have one rule, so that a study compares them on equal terms.
    """
    memories = [stage.rate.memory for stage in model.depth_stages() if stage.rate.memory is not None]
    head = [] if config.body_lr == 1 else list(model.head.linear.parameters())
    free = {id(parameter) for parameter in (*memories, *head)}
    decayed = [parameter for parameter in model.parameters() if id(parameter) not in free]
    groups: list[dict[str, Any]] = [{"params": decayed, FACTOR: config.body_lr}]
    if memories:
        groups.append({"params": memories, "weight_decay": 0.0, FACTOR: config.body_lr})
    if head:
        groups.append({"params": head, FACTOR: 1.0})
    if config.optimizer is OptimizerKind.adamw:
        betas = (config.momentum, 0.999)
        return _EagerAdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
    return _EagerSGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )


def plain_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state to be kept, the same whether a CUDA graph held the learning rate in a tensor or not."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    return state


def freeze(model: DepthNet, parts: int) -> None:
    """Stop learning so many parts from the images on: their parameters, and their batch norms stay as they are."""
    for part in model.parts()[:parts]:
        part.requires_grad_(False).eval()


def learning_rate(config: OptimConfig, progress: float) -> float:
    """Return the rate after the fraction `progress` of all iterations, in [0, 1)."""
    if config.schedule is Schedule.cosine:
        return config.lr * (1 + math.cos(math.pi * progress)) / 2
    if config.schedule is Schedule.step:
        return config.lr * 0.1 ** ((progress >= 0.5) + (progress >= 0.75))
    return config.lr


@torch.no_grad()
def scale_depth_gradients(model: DepthNet) -> None:
    """Turn gradients g of node coefficients into gradients G in L2 over depth, in place: G = M^{-1} g / initial nodes.

    M is the mass matrix of the basis, so G holds the node values of the function of depth along which the loss falls
    fastest for its norm in L2. g alone depends on how nodes cut depth: one of a twice as fine grid acts on half the
    depth, and learning would slow down with every refinement. For piecewise constants it is g * nodes / initial nodes.

    In every basis the mean of G over depth is the sum of g over the nodes, divided by the initial nodes: a constant
    learns as fast as from the plain gradient of piecewise constants on the initial grid. What differs between a cell's
    ends learns up to 3 times (lines), 4 times (hats) or about N + 1 times (polynomials of N nodes) as fast as from the
    plain gradient of the same basis, so the largest stable learning rate may be smaller.

    With SGD the L2 projection of a step on a refined grid is the step on the coarse one, and a step commutes with
    refinement for momentum, weight decay (which acts on node values and is not changed here) and gradients that the
    coarse grid can represent. AdamW divides each node's value by its own second moment, which is not linear: with it
    this holds only where refinement repeats nodes. Parameters without a gradient are left alone.
    """
    for stage in model.depth_stages():
        depth, gradients = stage.depth, [p.grad for p in stage.rate.parameters() if p.grad is not None]
        if BASES[depth.basis].degree(depth.nodes) > 0:
            for gradient in gradients:
                gradient.copy_(mix_nodes(_inverse_mass_NN(depth, gradient.dtype, gradient.device), gradient))
        elif gradients and depth.nodes != depth.initial_nodes:  # M = 1 / nodes
            torch._foreach_mul_(gradients, depth.nodes / depth.initial_nodes)


@lru_cache(maxsize=256)
def _inverse_mass_NN(depth: Depth, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return M^{-1} / initial nodes, computed in float64 once in a process and kept as it is applied."""
    mass_NN = BASES[depth.basis].mass_NN(depth.nodes)
    return torch.linalg.inv(depth.initial_nodes * mass_NN).to(device, dtype)
