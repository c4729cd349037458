"""What anybody does to a torch module can be done to every network."""

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, update_bn

from odenet import Basis, ModelConfig, Network, Scheme, build_model
from odenet.networks.batch_norm import BatchNorm
from odenet.networks.model import DepthNet
from odenet.networks.norms import NodeBatchNorm

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # torch's own, in forward derivatives

CLASSES, SHAPE = 10, (3, 16, 16)


def networks(nodes: int = 3) -> Iterator[DepthNet]:
    """Every network, and one whose stages mix their nodes; adaptive steps are replaced by fixed ones."""
    for network in Network:
        if network is Network.resnet101:  # with as many nodes the same as resnet50
            continue
        constant = network is Network.neural_ode
        config = ModelConfig(
            network=network, width=8, nodes=1 if constant else nodes, scheme=Scheme.rk4 if constant else None
        )
        yield build_model(config, channels=SHAPE[0], classes=CLASSES)
    hats = ModelConfig(network=Network.continuous, width=8, nodes=nodes, basis=Basis.hat, scheme=Scheme.heun)
    yield build_model(hats, channels=SHAPE[0], classes=CLASSES)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def labels(count: int = 4) -> Tensor:
    return torch.arange(count) % CLASSES


def norms(model: DepthNet) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, BatchNorm | NodeBatchNorm)]


def buffers(model: DepthNet) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_train_and_answer_in_half_precision(dtype: torch.dtype) -> None:
    for model in networks():
        model.to(dtype)
        logits_BK = model(images().to(dtype))
        assert logits_BK.dtype is dtype
        F.cross_entropy(logits_BK.float(), labels()).backward()
        assert all(parameter.grad is not None and parameter.grad.dtype is dtype for parameter in model.parameters())
        assert model.eval()(images().to(dtype)).dtype is dtype


def test_a_memory_format_changes_strides_and_nothing_else() -> None:
    for model in networks():
        expected = model.double().eval()(images().double())
        model.to(memory_format=torch.contiguous_format)
        torch.testing.assert_close(model(images().double()), expected)
        assert all(parameter.is_contiguous() for parameter in model.parameters())
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images().double()), expected)
        kernels = [slice_ for p in model.parameters() if p.dim() == 5 for slice_ in p]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_batch_norms_in_evaluation_mode_are_frozen_while_the_rest_trains() -> None:
    for model in networks():
        model.train()
        for norm in norms(model):
            norm.eval()
        before = buffers(model)
        model(images()).sum().backward()
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_batch_norms_in_training_mode_learn_their_statistics_while_the_rest_is_evaluated() -> None:
    for model in networks():
        model.eval()
        for norm in norms(model):
            norm.train()
        before = buffers(model)
        model(images())
        assert not any(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_synchronised_batch_norm_is_refused_before_anything_has_changed() -> None:
    for model in networks():
        with pytest.raises(TypeError, match=r"SyncBatchNorm cannot take the place .* train it in one process"):
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        repr(model)


Exported = list[tuple[DepthNet, torch.export.ExportedProgram]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Every network, and what it was exported to before it ever ran."""
    batch = {0: torch.export.Dim("batch")}
    return [
        (model, torch.export.export(copy.deepcopy(model).eval(), (images(),), dynamic_shapes=(batch,)))
        for model in networks(nodes=2)  # each operation of each step is traced
    ]


@pytest.mark.slow
def test_a_network_that_never_ran_is_exported_for_any_number_of_images(exported: Exported) -> None:
    for model, program in exported:
        torch.testing.assert_close(program.module()(images(7)), model.eval()(images(7)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_exported_network_answers_the_same_in_onnx(exported: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    kinds = (Network.continuous, Network.hamiltonian, Network.heunnet, Network.lm_resnet)
    found = [one for one in exported if one[0].config.network in kinds and one[0].config.basis is None]
    assert len(found) == len(kinds)
    for model, program in found:
        model.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its dependencies
            converted = torch.onnx.export(program, verbose=False)
        assert converted is not None
        session = onnxruntime.InferenceSession(converted.model_proto.SerializeToString())
        (logits_BK,) = session.run(None, {session.get_inputs()[0].name: images(7).numpy()})
        torch.testing.assert_close(torch.from_numpy(logits_BK), model(images(7)).detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_networks_run_on_fake_tensors_and_remember_none() -> None:
    for model in networks():
        with FakeTensorMode():
            fake = build_model(model.config, channels=SHAPE[0], classes=CLASSES)
            logits_BK = fake(torch.randn(5, *SHAPE))
            logits_BK.sum().backward()
            assert logits_BK.shape == fake.eval()(torch.randn(5, *SHAPE)).shape == (5, CLASSES)
        assert type(model(images())) is Tensor


def test_functional_gradients_are_autograds() -> None:
    for model in networks():
        reference = copy.deepcopy(model)
        expected = torch.autograd.grad(F.cross_entropy(reference(images()), labels()), list(reference.parameters()))

        def loss(parameters: dict[str, Tensor], state: dict[str, Tensor], model: nn.Module = model) -> Tensor:
            logits_BK = torch.func.functional_call(model, (parameters, state), (images(),))
            return F.cross_entropy(logits_BK, labels())

        parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        found = torch.func.grad(loss)(parameters, buffers(model))
        # One ReLU may flip between the two formulae of batch norm.
        apart = sum(float((a - b).square().sum()) for a, b in zip(found.values(), expected, strict=True)) ** 0.5
        assert apart < 1e-2 * sum(float(b.square().sum()) for b in expected) ** 0.5


def test_forward_derivatives_agree_with_backward_ones() -> None:
    direction = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for model in networks():
        model.double().eval()
        x = images().double().requires_grad_()
        logits_BK, slope_BK = torch.func.jvp(model, (x.detach(),), (direction,))
        (pulled,) = torch.autograd.grad(model(x), x, logits_BK)
        torch.testing.assert_close((pulled * direction).sum(), (logits_BK * slope_BK).sum())


def test_gradients_of_single_images_come_from_vmap() -> None:
    for model in networks():
        model.double().eval()

        def squared(x: Tensor, model: nn.Module = model) -> Tensor:
            return model(x[None]).square().sum()

        found = torch.vmap(torch.func.grad(squared))(images().double())
        torch.testing.assert_close(found, torch.stack([torch.func.grad(squared)(x) for x in images().double()]))


def test_penalties_on_gradients_are_differentiated_again() -> None:
    for model in networks():
        x = images().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.stages.parameters())


def test_averaged_networks_renew_their_batch_norms() -> None:
    for model in networks():
        averaged = AveragedModel(model)
        averaged.update_parameters(model)
        update_bn([images(8), images(8)], averaged)
        plain = [module for module in averaged.modules() if isinstance(module, BatchNorm)]
        assert all(int(norm.num_batches_tracked) == 2 for norm in plain)


@pytest.mark.slow
def test_compiled_networks_are_one_graph() -> None:
    for model in networks():
        mixes = model.config.basis is Basis.hat
        if mixes or model.config.network in (Network.hamiltonian, Network.midpoint, Network.lm_resnet):
            torch.compiler.reset()
            expected = copy.deepcopy(model)(images())
            compiled = torch.compile(model, backend="eager", fullgraph=True)
            torch.testing.assert_close(compiled(images()), expected, rtol=1e-3, atol=1e-4)
    torch.compiler.reset()
