"""Batch-norm statistics estimated anew are those of the training images, as one sample."""

import numpy as np
import pytest
import torch

from odenet import Scheme
from odenet.diagnostics.reestimate import reestimate
from tests.grids import for_each
from tests.odenet.diagnostics.probes import images, tiny


@for_each("batch_size", [512, 50, 7])
def test_the_first_norm_has_mean_and_variance_of_all_images_whatever_the_batches(batch_size: int) -> None:
    model, shown = tiny("continuous"), images(101)
    found = reestimate(model, shown, batch_size=batch_size).network.stem[1]
    x_BCHW = torch.from_numpy(shown.pixels_BCHW).double() / 255 * model.scale_C11 + model.shift_C11
    seen_BCHW = model.network.stem[0].double()(x_BCHW)
    model.network.stem[0].float()
    assert torch.allclose(found.running_mean.double(), seen_BCHW.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.running_var.double(), seen_BCHW.var((0, 2, 3)), rtol=1e-5)


def test_norms_inside_an_integration_have_the_statistics_of_its_states() -> None:
    """With all images in one batch, evaluation repeats the pass of training: a node is read by one Euler step."""
    model, shown = tiny("continuous", nodes=2), images(200)
    found = reestimate(model, shown)
    x_BCHW = torch.from_numpy(shown.pixels_BCHW).float() / 255
    evaluated = found(x_BCHW)
    trained = found.train()(x_BCHW)
    apart = (evaluated - trained).norm() / trained.norm()
    assert apart < 0.01, "variances are unbiased in the one and biased in the other"
    assert (model(x_BCHW) - trained).norm() / trained.norm() > 0.1


def test_batches_are_pooled_as_one_sample_inside_an_integration_too() -> None:
    model, shown = tiny("continuous", nodes=2), images(300)
    whole, parts = (reestimate(model, shown, batch_size=size).state_dict() for size in (300, 100))
    for name, tensor in whole.items():
        if "running" in name:
            assert (tensor - parts[name]).norm() < 0.1 * tensor.norm(), name


def test_a_manifestation_has_statistics_of_its_own_and_the_original_stays_as_it_was() -> None:
    model, shown = tiny("continuous"), images(64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = reestimate(model, shown)
    other = reestimate(model.manifest(scheme=Scheme.rk4, steps=6), shown)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not (model.training or own.training or other.training)
    assert [depth.course.scheme for depth in other.network.depths()] == [Scheme.rk4] * 3
    moved = [name for name, tensor in own.state_dict().items() if not torch.equal(tensor, other.state_dict()[name])]
    assert {name.split(".")[-1] for name in moved} == {"running_mean", "running_var"}
    assert [norm.momentum for norm in own.modules() if hasattr(norm, "momentum")] == [
        norm.momentum for norm in model.modules() if hasattr(norm, "momentum")
    ]


def test_the_order_of_the_images_and_their_labels_do_not_matter() -> None:
    model, shown = tiny("continuous"), images(40)
    order = np.random.default_rng(1).permutation(40)
    one, other = reestimate(model, shown), reestimate(model, shown.take(order))
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor.float(), other.state_dict()[name].float(), rtol=1e-3, atol=1e-5), name


def test_a_network_without_batch_norm_is_copied() -> None:
    model = tiny("neural_ode", nodes=1)
    x_BCHW = torch.rand(3, 1, 8, 8)
    found = reestimate(model, images(40))
    assert found is not model
    assert (found(x_BCHW) - model(x_BCHW)).norm() < model(x_BCHW).norm()


def test_too_few_images_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^31 images are too few: at least 32 are needed\.$"):
        reestimate(tiny("continuous"), images(31))
    with pytest.raises(ValueError, match=r"^Images of shape \(1, 9, 9\): the network takes \(1, 8, 8\)\.$"):
        reestimate(tiny("continuous"), images(side=9))
