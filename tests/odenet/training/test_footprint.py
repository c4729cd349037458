"""What a network takes: each number against one that was found in another way."""

import pytest
import torch

from odenet import Basis, Gradient, ModelConfig, Network, Scheme, build_model
from odenet.networks.model import DepthNet
from odenet.training.cost import forward_gflops
from odenet.training.footprint import footprint
from tests.odenet.training.test_cost import CONFIGS, DIGIT, SHAPES, name, of, torchs_count

MIB = 2**20


@pytest.mark.parametrize("config", CONFIGS, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_operations_of_an_answer_are_those_torch_counts(config: ModelConfig, shape: tuple[int, int, int]) -> None:
    model = build_model(config, channels=shape[0], classes=10)
    images = torch.randn(2, *shape)
    assert forward_gflops(model, shape) * 1e9 == pytest.approx(torchs_count(model, images, backward=False), rel=1e-12)


def saved_bytes(model: DepthNet, images: int) -> int:
    """Distinct memory that the graph of one batch holds on to, weights and statistics left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(torch.randn(images, *DIGIT))
    assert logits.grad_fn is not None
    return sum(tensor.untyped_storage().nbytes() for address, tensor in held.items() if address not in own)


SAVING = [
    of(Network.continuous),
    of(Network.continuous, scheme=Scheme.rk4, basis=Basis.hat),
    of(Network.continuous, scheme=Scheme.rk4, gradient=Gradient.checkpointed),
    of(Network.hamiltonian, gradient=Gradient.reconstructed),
    of(Network.leapfrog),
    of(Network.lm_resnet),
    of(Network.neural_ode, scheme=Scheme.rk4),
]


@pytest.mark.slow
@pytest.mark.parametrize("config", SAVING, ids=name)
@pytest.mark.parametrize("images", [2, 17, 64])
def test_memory_is_four_numbers_that_add_up(config: ModelConfig, images: int) -> None:
    model = build_model(config, channels=1, classes=10)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    expected = 3 * weights + buffers + saved_bytes(model, images)
    assert footprint(model, DIGIT, images).memory_mib * MIB == pytest.approx(expected, rel=1e-9)
    more = footprint(model, DIGIT, images, moments=2).memory_mib - footprint(model, DIGIT, images).memory_mib
    assert more * MIB == pytest.approx(weights, rel=1e-6)


def test_walking_back_saves_the_states_of_all_steps() -> None:
    per_image = dict[Gradient, list[float]]()
    for gradient in (Gradient.direct, Gradient.reconstructed):
        configs = [of(Network.midpoint, nodes=nodes, gradient=gradient) for nodes in (2, 4, 8)]
        models = [build_model(config, channels=1, classes=10) for config in configs]
        bytes_of = [[footprint(model, DIGIT, images).memory_mib * MIB for images in (2, 258)] for model in models]
        per_image[gradient] = [(many - two) / 256 for two, many in bytes_of]
    direct, walked = per_image[Gradient.direct], per_image[Gradient.reconstructed]
    assert walked == [walked[0]] * 3
    a_step = (direct[1] - direct[0]) / 2
    assert (direct[2] - direct[1]) / 4 == pytest.approx(a_step)
    state = 4 * 4 * (64 + 2 * 16 + 4 * 4)  # bytes, in all stages together
    assert a_step >= 2 * state  # two layers keep at least their inputs


def test_half_precision_saves_less() -> None:
    model = build_model(of(Network.continuous), channels=1, classes=10)
    full = footprint(model, DIGIT, 256).memory_mib
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert footprint(model, DIGIT, 256).memory_mib < 0.9 * full


def test_latency_is_the_median_of_passes_in_evaluation_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build_model(of(Network.continuous), channels=1, classes=10), list[tuple[int, bool]]()
    durations = iter([100.0, 0.005, 0.001, 0.004, 0.002, 50.0])
    readings = [reading for duration in durations for reading in (0.0, duration)]
    monkeypatch.setattr("odenet.training.footprint.time.perf_counter", iter(readings).__next__)

    def note(module: torch.nn.Module, images: tuple[torch.Tensor, ...], _: object) -> None:
        calls.append((len(images[0]), module.training))

    model.stem.register_forward_hook(note)
    assert footprint(model, DIGIT, 8).latency_ms == pytest.approx(4.0)
    assert calls[-6:] == [(32, False)] * 6


@pytest.mark.parametrize("config", SAVING, ids=name)
def test_measuring_leaves_the_network_as_it_was(config: ModelConfig) -> None:
    model = build_model(config, channels=1, classes=10)
    model.head.eval()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modes, depths = [module.training for module in model.modules()], model.depths()
    found = footprint(model, DIGIT, 8)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert model.depths() == depths
    assert all(parameter.grad is None for parameter in model.parameters())
    assert found.parameters == sum(tensor.numel() for tensor in model.parameters())
    assert (found.gflops, found.rate_evaluations) == (forward_gflops(model, DIGIT), model.rate_evaluations)
