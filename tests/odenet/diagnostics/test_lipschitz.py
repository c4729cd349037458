"""Local Lipschitz constants, against functions of which they are known."""

import numpy as np
import pytest
import torch
from torch import nn

from odenet.diagnostics.lipschitz import lipschitz, local_constants
from odenet.diagnostics.probing import first_pixels
from tests.odenet.diagnostics.probes import images, tiny


def test_a_linear_network_has_the_spectral_norm_of_its_matrix_at_every_image():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, dtype=torch.float64))
    expected = torch.linalg.matrix_norm(linear[1].weight.detach(), ord=2)
    found_B = local_constants(linear, torch.rand(7, 1, 8, 8, dtype=torch.float64))
    assert torch.allclose(found_B, expected.expand(7), rtol=1e-10)


def test_a_classifier_has_the_spectral_norm_of_its_jacobian_with_its_normalisation_and_quantiles_over_images():
    model, shown = tiny("continuous", nodes=1), images(4)
    found = lipschitz(model, shown, count=4)
    x_BCHW = first_pixels(model, shown, 4).double()
    exact = model.double()
    jacobian = torch.autograd.functional.jacobian(lambda x: exact(x[None])[0], x_BCHW[0]).flatten(1)
    first = float(np.linalg.svd(jacobian.numpy(), compute_uv=False)[0])
    all_B = local_constants(exact, x_BCHW)
    assert float(all_B[0]) == pytest.approx(first, rel=1e-6)
    assert found.largest == pytest.approx(float(all_B.max()), rel=1e-3)
    assert found.median <= found.upper <= found.largest
    assert found.images == 4
