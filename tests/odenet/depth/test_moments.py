"""Any optimizer goes through refinement and coarsening: it keeps what can be moved and says what it has forgotten."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from odenet import Basis, OptimConfig, OptimizerKind, Scheme, coarsen, refine
from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.moments import LINEAR, MOMENTS
from odenet.networks.model import DepthNet
from odenet.training.optim import build_optimizer
from tests.odenet.networks.test_refinement import continuous, learn, node_tensors

KEPT: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.01),
    "SGD, momentum": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01, nesterov=True, fused=True),
    "Adam": lambda p: optim.Adam(p, foreach=True),
    "AdamW": lambda p: optim.AdamW(p, fused=True),
    "AdamW, amsgrad": lambda p: optim.AdamW(p, amsgrad=True),
    "Adamax": optim.Adamax,
    "NAdam": optim.NAdam,
    "RAdam": optim.RAdam,
    "RMSprop": lambda p: optim.RMSprop(p, lr=1e-3),
    "RMSprop, centered": lambda p: optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
    "ASGD": lambda p: optim.ASGD(p, t0=1),
    "Rprop": lambda p: optim.Rprop(p, lr=1e-3),
    "Muon": optim.Muon,
}
RESET: dict[str, tuple[Callable[[Any], Optimizer], set[str]]] = {
    "Adafactor": (optim.Adafactor, {"row_var", "col_var", "step"}),
    "LBFGS": (lambda p: optim.LBFGS(p, lr=0.01, max_iter=2), {"d", "t", "old_dirs", "prev_flat_grad", "n_iter"}),
}
EVERY = KEPT | {name: build for name, (build, _) in RESET.items()}


class Unknown(Optimizer):
    """Of somebody else: momentum under torch's name, and the sum of absolute gradients under one of its own."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def start(self, parameter: Tensor) -> None:
        zero = torch.zeros_like(parameter)
        self.state[parameter] |= {"step": 0, "momentum_buffer": zero, "loudness": zero.clone()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if not self.state[parameter]:
                    self.start(parameter)
                state = self.state[parameter]
                state["step"] += 1
                state["momentum_buffer"].mul_(0.9).add_(parameter.grad)
                state["loudness"].add_(parameter.grad.abs())
                parameter.sub_(group["lr"] * state["momentum_buffer"] / state["loudness"].add(1e-8))


class StartsAtOnce(Unknown):
    """It has what it remembers from the constructor on."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.start(parameter)


def those_of(name: str, model: DepthNet) -> list[nn.Parameter]:
    return [p for p in model.parameters() if name != "Muon" or p.dim() == 2]


def uneven(model: DepthNet, draws: torch.Generator) -> None:
    """Gradients of very different size at neighbouring nodes: what polynomials overshoot on."""
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)
    for parameter, _, _ in node_tensors(model):
        parameter.grad *= 10.0 ** torch.randint(-6, 3, parameter.shape, generator=draws)


def steps(model: DepthNet, optimizer: Optimizer, count: int, draws: torch.Generator) -> None:
    def closure() -> float:
        uneven(model, draws)
        return 0.0

    for _ in range(count):
        closure()
        if isinstance(optimizer, optim.LBFGS):
            optimizer.step(closure)
        else:
            optimizer.step()


def remembered(optimizer: Optimizer, names: set[str]) -> Iterator[Tensor]:
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        yield from (value for name, value in optimizer.state.get(parameter, {}).items() if name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_of_torch_steps_on_through_refinements_and_coarsening_in_every_basis(name: str) -> None:
    squares = MOMENTS - {"grad_avg"}
    for basis in Basis:
        model, draws = continuous(basis, Scheme.heun, nodes=4), torch.Generator().manual_seed(0)
        optimizer = EVERY[name](those_of(name, model))
        for change in (refine, refine, coarsen):
            steps(model, optimizer, 3, draws)
            before = [float(value.min()) for value in remembered(optimizer, squares)]
            reset = change(model, optimizer)
            after = [float(value.min()) for value in remembered(optimizer, squares)]
            if name in KEPT:
                assert reset == []
                assert [value > 0 for value in after] == [value > 0 for value in before]
                assert not after or min(after) >= 0
            else:
                assert set(reset) >= RESET[name][1]
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            assert [id(parameter) for parameter in held] == [id(parameter) for parameter in those_of(name, model)]
            assert set(optimizer.state) <= set(held)
        steps(model, optimizer, 3, draws)
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        assert all(bool(value.isfinite().all()) for value in remembered(optimizer, LINEAR | MOMENTS))


def test_every_optimizer_of_torch_is_in_the_table() -> None:
    classes = {value for value in vars(optim).values() if isinstance(value, type) and issubclass(value, Optimizer)}
    tried = {type(build(those_of(name, continuous()))) for name, build in EVERY.items()}
    assert classes - tried == {Optimizer, optim.SparseAdam}  # that one refuses the gradients of convolutions


@pytest.mark.parametrize("basis", Basis)
def test_means_move_like_weights_and_squares_like_variances(basis: Basis) -> None:
    model, draws = continuous(basis, Scheme.heun, nodes=4), torch.Generator().manual_seed(0)
    optimizer = optim.RMSprop(model.parameters(), momentum=0.9)
    steps(model, optimizer, 2, draws)
    old = [dict(optimizer.state[parameter]) for parameter, _, _ in node_tensors(model)]
    refine(model, optimizer)
    for (parameter, _, _), state in zip(node_tensors(model), old, strict=True):
        new = optimizer.state[parameter]
        for name, positive in (("momentum_buffer", False), ("square_avg", True)):
            expected = mix_nodes(BASES[basis].refinement_MN(4, positive=positive), state[name])
            torch.testing.assert_close(new[name], expected, rtol=0, atol=0)
        assert new["step"] == state["step"]


def test_merging_a_silent_node_with_a_loud_one_gives_no_large_step() -> None:
    model = continuous(nodes=4)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        learn(model)
        for parameter, _, _ in node_tensors(model):
            parameter.grad[1::2] = 0
        optimizer.step()
    coarsen(model, optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = [float((new.detach() - old).abs().max()) for new, old in zip(model.parameters(), before, strict=True)]
    assert 0 < max(moved) < 0.01


@pytest.mark.parametrize("kind", [Unknown, StartsAtOnce])
def test_what_torch_does_not_name_is_reset_and_said(kind: type[Unknown]) -> None:
    model, draws = continuous(nodes=4), torch.Generator().manual_seed(0)
    optimizer = kind([{"params": list(model.stem.parameters()), "lr": 0.5}, {"params": model.stages.parameters()}])
    steps(model, optimizer, 2, draws)
    stem = copy.deepcopy([remembered_of(optimizer, parameter) for parameter in model.stem.parameters()])
    for change in (refine, coarsen):
        assert change(model, optimizer) == ["loudness", "momentum_buffer", "step"]
        for parameter, old in zip(model.stem.parameters(), stem, strict=True):
            assert all(torch.equal(*both) for both in zip(remembered_of(optimizer, parameter), old, strict=True))
        assert not any(bool(value.any()) for p, _, _ in node_tensors(model) for value in remembered_of(optimizer, p))
        uneven(model, draws)
        optimizer.step()
        stem = copy.deepcopy([remembered_of(optimizer, parameter) for parameter in model.stem.parameters()])
        assert {optimizer.state[p]["step"] for p, _, _ in node_tensors(model)} == {1}
        assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_stage_that_cannot_be_coarsened_keeps_all_that_is_known_of_it() -> None:
    model, draws = continuous(nodes=1), torch.Generator().manual_seed(0)
    optimizer = Unknown(model.parameters())
    steps(model, optimizer, 2, draws)
    known = copy.deepcopy(optimizer.state_dict())
    assert coarsen(model, optimizer) == []
    torch.testing.assert_close(optimizer.state_dict(), known, rtol=0, atol=0)


def remembered_of(optimizer: Optimizer, parameter: nn.Parameter) -> list[Tensor]:
    return [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)]


def test_an_optimizer_that_cannot_be_built_from_its_groups_starts_anew_at_its_step() -> None:
    class Bound(Unknown):
        def __init__(self, params: Any, model: nn.Module) -> None:
            super().__init__(params)
            self.model = model

    model, draws = continuous(nodes=4), torch.Generator().manual_seed(0)
    optimizer = Bound(model.parameters(), model)
    steps(model, optimizer, 2, draws)
    assert refine(model, optimizer) == ["loudness", "momentum_buffer", "step"]
    steps(model, optimizer, 1, draws)
    assert {state["step"] for state in optimizer.state.values()} == {1, 3}


def test_groups_keep_their_options_and_parameters_outside_the_optimizer_stay_outside() -> None:
    model, draws = continuous(nodes=2), torch.Generator().manual_seed(0)
    first, second, third = (list(stage.rate.parameters()) for stage in model.depth_stages())
    optimizer = optim.Adam([{"params": first, "lr": 0.5}, {"params": second, "weight_decay": 0.1}], lr=0.1)
    steps(model, optimizer, 2, draws)
    third[0].requires_grad_(False)
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    assert refine(model, optimizer) == []
    stages = model.depth_stages()
    for group, stage, old in zip(optimizer.param_groups, stages[:2], options, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in stage.rate.parameters()]
        assert {key: value for key, value in group.items() if key != "params"} == old
    assert set(optimizer.state) == {p for stage in stages[:2] for p in stage.rate.parameters()}
    assert optimizer.state_dict()["state"].keys() == set(range(len(first) + len(second)))
    assert not next(stages[2].rate.parameters()).requires_grad


@pytest.mark.parametrize("name", KEPT)
def test_a_refined_optimizer_is_saved_and_loaded_and_its_schedule_goes_on(name: str) -> None:
    model, draws = continuous(Basis.polynomial, Scheme.heun, nodes=3), torch.Generator().manual_seed(0)
    optimizer = EVERY[name](those_of(name, model))
    schedule = StepLR(optimizer, step_size=1, gamma=0.5)
    rate = optimizer.param_groups[0]["lr"]
    steps(model, optimizer, 2, draws)
    schedule.step()
    refine(model, optimizer)
    other = copy.deepcopy(model)
    loaded = EVERY[name](those_of(name, other))
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, going_on in ((model, optimizer), (other, loaded)):
        steps(net, going_on, 2, torch.Generator().manual_seed(1))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        # NAdam's own product of momenta is rounded to the precision of the parameter when it is loaded.
        torch.testing.assert_close(one, two, rtol=1e-6 if name == "NAdam" else 0, atol=0)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate / 4)


def test_the_optimizers_of_training_forget_nothing() -> None:
    for kind in OptimizerKind:
        model = continuous(nodes=2)
        optimizer = build_optimizer(model, OptimConfig(optimizer=kind, lr=0.01))
        learn(model)
        optimizer.step()
        assert refine(model, optimizer) == coarsen(model, optimizer) == []
