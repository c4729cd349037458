"""What an optimizer remembers of parameters on the node axis, carried along when the grid of depth changes.

Shapes: `N` depth nodes, `M` nodes of the new grid.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from odenet.depth.bases import mix_nodes

# What torch's optimizers keep in the shape of a parameter, by the name that it has in their state.
LINEAR = {
    *("momentum_buffer", "exp_avg"),  # means of gradients or steps: SGD, RMSprop, Muon; Adam and its relatives
    "prev",  # the last gradient: Rprop
    "ax",  # the averaged parameter: ASGD
}
MOMENTS = {
    *("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"),  # squares of gradients: Adam's relatives, RMSprop, Adagrad
    "exp_inf",  # their largest absolute value: Adamax
    "acc_delta",  # squares of steps: Adadelta
    "step_size",  # lengths of steps: Rprop
    "grad_avg",  # a mean, but moved as square_avg is: their difference is a variance, of which RMSprop takes the root
}


@dataclass(frozen=True, slots=True)
class Matrices:
    """From old nodes to new ones (float64): of weights and momentum, of running variances, of second moments.

    The rows of the last two are not negative and sum to 1.
    """

    any_MN: Tensor
    variances_MN: Tensor
    moments_MN: Tensor


def move_state(optimizer: Optimizer, moved: dict[nn.Parameter, nn.Parameter], matrices: Matrices) -> set[str]:
    """Put the new parameters of a stage in the place of the old ones, with what the optimizer remembers of them.

    A parameter of which it remembers something that is not known here, or not in the parameter's shape, starts anew:
    what is left would not fit together. So does all that LBFGS knows, vectors over all parameters at once. Parameters
    that the optimizer does not have, and options, stay as they are.

    Args:
        moved: old parameters to new ones.

    Returns:
        names in the optimizer's state of what was reset.
    """
    reset = _forget_vectors(optimizer) if isinstance(optimizer, LBFGS) else set[str]()
    for group in optimizer.param_groups:
        mine = [parameter for parameter in group["params"] if parameter in moved]
        # In place: LBFGS keeps the list.
        group["params"][:] = [moved.get(parameter, parameter) for parameter in group["params"]]
        for old in mine:
            if old not in optimizer.state:
                continue
            state = optimizer.state.pop(old)
            if all(_can_move(name, value, old) for name, value in state.items()):
                optimizer.state[moved[old]] = {name: _moved(name, value, matrices) for name, value in state.items()}
                continue
            reset |= state.keys()
            if initial := _initial_state(optimizer, group, moved[old]):
                optimizer.state[moved[old]] = initial
    return reset


def _can_move(name: str, value: object, parameter: Tensor) -> bool:
    """Counters and other single numbers do not depend on the grid."""
    if isinstance(value, Tensor) and value.dim() > 0:
        return name in LINEAR | MOMENTS and value.shape == parameter.shape
    return value is None or isinstance(value, Tensor | int | float)


@torch.no_grad()
def _moved(name: str, value: Any, matrices: Matrices) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return mix_nodes(matrices.moments_MN if name in MOMENTS else matrices.any_MN, value)


def _forget_vectors(optimizer: LBFGS) -> set[str]:
    names = {name for state in optimizer.state.values() for name in state}
    optimizer.state.clear()
    optimizer._numel_cache = None  # how many weights there were
    return names


def _initial_state(optimizer: Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """What an optimizer of this class knows of a parameter before its first step.

    Most know nothing and begin at the step, but some begin in the constructor. One that cannot be built from its
    groups and defaults alone is taken to be of the first kind.
    """
    signature = inspect.signature(type(optimizer))
    defaults = {name: value for name, value in optimizer.defaults.items() if name in signature.parameters}
    groups = [{**group, "params": [parameter]}]
    try:
        signature.bind(params=groups, **defaults)
    except TypeError:
        return {}
    return type(optimizer)(params=groups, **defaults).state.get(parameter, {})
