"""A network made smaller without data: what stays the same function, and what a smaller one costs."""

import pytest
import torch

from odenet import Basis, Initialisation, ModelConfig, Network, build_model
from odenet.enums import Compression
from odenet.networks.compression import compressed

X_BCHW = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def built(**changes):
    return build_model(ModelConfig(**{"width": 4, "nodes": 4} | changes), channels=1, classes=5).eval()


def ways(model):
    return {(one.how, one.factor): one.network for one in compressed(model)}


def test_each_way_takes_what_it_says_of_nodes_steps_and_depth():
    found = ways(built(substeps=2))
    told = {
        (how.value, factor): (one.depths()[-1].nodes, one.depths()[-1].course.steps, one.depths()[-1].course.depth_time)
        for (how, factor), one in found.items()
    }
    assert told == {
        ("trained", 1): (4, 8, 4), ("projected", 2): (2, 8, 4), ("shortened", 2): (4, 4, 4), ("both", 2): (2, 4, 4),
        ("dropped", 2): (2, 4, 2), ("projected", 4): (1, 8, 4), ("shortened", 4): (4, 2, 4), ("both", 4): (1, 2, 4),
        ("dropped", 4): (1, 2, 1), ("shortened", 8): (4, 1, 4), ("both", 8): (1, 1, 4),
    }  # fmt: skip
    assert found[Compression.both, 4].parameter_count < found[Compression.shortened, 4].parameter_count


def test_weights_that_are_the_same_at_every_depth_are_projected_exactly():
    model = built(initialisation=Initialisation.smooth)
    found = ways(model)
    with torch.no_grad():
        expected = model(X_BCHW)
        assert torch.allclose(found[Compression.projected, 4](X_BCHW), expected, atol=1e-5)
        shorter = found[Compression.shortened, 2](X_BCHW)
        assert torch.allclose(found[Compression.both, 2](X_BCHW), shorter, atol=1e-5)


def test_a_resnet_has_its_blocks_averaged_in_twos_or_every_other_left_out():
    model = built(network=Network.resnet)
    kernels = [p for name, p in model.named_parameters() if name.endswith("kernel") and p.shape[0] == 4]
    found = ways(model)
    for (how, expected) in (
        (Compression.both, lambda k: (k[0::2] + k[1::2]) / 2), (Compression.dropped, lambda k: k[0::2])
    ):  # fmt: skip
        smaller = [p for name, p in found[how, 2].named_parameters() if name.endswith("kernel") and p.shape[0] == 2]
        assert len(smaller) == len(kernels) > 0
        assert all(torch.allclose(one, expected(other)) for one, other in zip(smaller, kernels, strict=True))
    assert found[Compression.dropped, 2].depths()[-1].course.depth_time == 2, "a block is as long as before"


@pytest.mark.parametrize("network", ["lm_resnet", "polynet", "neural_ode"])
def test_a_network_whose_steps_belong_to_its_blocks_or_data_stays_as_it_is(network):
    changes = {"nodes": 1} if network == "neural_ode" else {}
    assert [one.how for one in compressed(built(network=Network[network], **changes))] == [Compression.trained]


def test_all_ways_of_every_basis_leave_the_network_as_it_was_and_run():
    for changes in ({"basis": Basis.hat, "nodes": 5, "substeps": 2}, {"network": Network.hamiltonian}):
        model = built(**changes)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for one in compressed(model):
            with torch.no_grad():
                assert one.network(X_BCHW).isfinite().all()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
