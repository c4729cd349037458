"""The adaptive reference: how exact its adjoint equation is, in which arithmetic it integrates, how it is built."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet import (
    Basis,
    DataConfig,
    Diverged,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    RuntimeConfig,
    Scheme,
    Training,
    build_model,
    evaluate,
    integrate,
    load_data,
)
from odenet.data.batches import Batches, Statistics
from odenet.depth.discretisation import Depth
from odenet.enums import Device
from odenet.integrators.scheme import Course
from odenet.networks.blocks import DepthStage
from odenet.networks.model_config import stage_depths
from odenet.networks.orders import GROUP_NORM, GROUP_NORM_SMOOTH, RateOrder
from odenet.networks.rates import Rate
from odenet.networks.widths import Widths
from odenet.seeding import global_seed
from odenet.training.config import from_plain

ODE = ModelConfig(network=Network.neural_ode, nodes=1, width=8)


def gradients(order: RateOrder, gradient: Gradient, tolerance: float) -> Tensor:
    """Of one stage, all parameters as one vector, in float64."""
    with global_seed(0, "init"):
        rate = Rate(order, 1, Widths(8, 8)).double()
    course = Course(Scheme.dopri5, 1, gradient=gradient, tolerance=tolerance)
    stage = DepthStage(rate, Depth(Basis.piecewise_constant, 1, course, 1))
    draws = torch.Generator().manual_seed(1)
    x_BCHW, weights_BCHW = (torch.randn(2, 8, 6, 6, dtype=torch.float64, generator=draws) for _ in range(2))
    (stage(x_BCHW) * weights_BCHW).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in rate.parameters() if parameter.grad is not None])


def adjoint_error(order: RateOrder, tolerance: float) -> float:
    exact, adjoint = (gradients(order, how, tolerance) for how in (Gradient.direct, Gradient.reconstructed))
    return float((adjoint - exact).norm() / exact.norm())


def test_the_adjoint_of_a_smooth_rate_is_about_as_exact_as_the_tolerance_and_that_of_relu_is_not() -> None:
    for tolerance in (1e-3, 1e-5, 1e-7):
        assert adjoint_error(GROUP_NORM_SMOOTH, tolerance) < 30 * tolerance
    assert adjoint_error(GROUP_NORM, 1e-5) > 300e-5


def test_under_autocast_the_adaptive_scheme_keeps_state_and_depth_in_full_precision() -> None:
    """A state in bf16 would put the logits off by 8 %, its slopes in bf16 put them off by 1 %."""
    x_BCHW = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for gradient in (Gradient.direct, Gradient.reconstructed):
        model = build_model(replace(ODE, gradient=gradient), channels=3, classes=10)
        exact = model(x_BCHW).detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits_BK = model(x_BCHW).float()
        F.cross_entropy(logits_BK, torch.arange(8)).backward()
        assert float((logits_BK.detach() - exact).norm() / exact.norm()) < 0.03


def test_more_nodes_than_the_network_can_have_are_refused_wherever_one_comes_in() -> None:
    wrong = ModelConfig(network=Network.neural_ode)
    message = r"^model\.network=neural_ode with model\.nodes=2: its weights do not depend on depth; use 1\.$"
    for enter in (
        lambda: stage_depths(wrong),
        lambda: build_model(wrong, channels=1, classes=2),
        lambda: build_model(wrong, channels=1, classes=2, depths=stage_depths(ODE)),
        lambda: ExperimentConfig(model=wrong),
        lambda: from_plain(ExperimentConfig, {"model": {"network": "neural_ode"}}),
    ):
        with pytest.raises(ValueError, match=message):
            enter()


def test_a_heunnet_of_one_node_is_refused_because_it_would_take_no_time() -> None:
    with pytest.raises(ValueError, match=r"^model\.network=heunnet with model\.nodes=1: .* T is 0 then, .* at least 2"):
        build_model(ModelConfig(network=Network.heunnet, nodes=1), channels=1, classes=2)
    build_model(ModelConfig(network=Network.heunnet, nodes=1, depth_time=1.0), channels=1, classes=2)


@pytest.mark.parametrize("gradient", [Gradient.direct, Gradient.reconstructed])
def test_a_network_that_the_adaptive_scheme_cannot_follow_has_diverged(gradient: Gradient) -> None:
    """torchdiffeq asserts, of a step that vanishes beside the depth, or of a state that is not finite."""
    plain = {"model": {"network": "neural_ode", "nodes": 1, "width": 2, "gradient": gradient.value}}
    config = from_plain(ExperimentConfig, plain | {"data": {"per_class": 5}, "optim": {"lr": 1e30}})
    with pytest.raises(Diverged, match="in epoch 1"):
        next(Training(config, RuntimeConfig(device=Device.cpu)))


def test_a_rate_that_blows_up_is_a_floating_point_error_forwards_and_backwards_and_its_own_assertions_stay() -> None:
    h0 = torch.ones(1, requires_grad=True)
    with pytest.raises(FloatingPointError, match=r"no further step .*underflow in dt"):
        integrate(lambda t, h: 10 * h * h, h0, scheme=Scheme.dopri5, steps=1)
    state = integrate(_Exploding.apply, h0, scheme=Scheme.dopri5, steps=1, gradient="reconstructed")
    with pytest.raises(FloatingPointError, match="no further step"):
        state.sum().backward()

    def asserting(t: float, h: Tensor) -> Tensor:
        assert t < 0, "of the rate"
        return h

    with pytest.raises(AssertionError, match="of the rate"):
        integrate(asserting, h0, scheme=Scheme.dopri5, steps=1)


class _Exploding(torch.autograd.Function):
    """A rate whose derivative is not finite."""

    @staticmethod
    def forward(ctx: object, t: float, h: Tensor) -> Tensor:
        return -h

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0] * torch.inf


def test_a_network_without_an_answer_scores_no_image_and_an_infinite_loss() -> None:
    data = load_data(DataConfig(per_class=5))
    model = build_model(replace(ODE, width=2), channels=1, classes=10)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1e30)
    score = evaluate(model, Batches(data.train, statistics=Statistics.of(data.train)))
    assert (score.accuracy, score.loss, score.n) == (0.0, float("inf"), len(data.train))
