"""How exact the memory-free gradient of a whole network is, and the walk back."""

import math

import pytest
import torch

from odenet import Scheme
from odenet.diagnostics.memory_free import memory_free
from tests.grids import for_each
from tests.odenet.diagnostics.probes import SMOOTH, images, row, tiny


@for_each("name", ["hamiltonian", "midpoint", "leapfrog", "revnet"])
def test_a_reversible_network_is_undone_to_the_rounding_of_its_arithmetic(name: str) -> None:
    for dtype, rounding in ((torch.float32, 1e-3), (torch.float64, 1e-12)):
        found = memory_free(tiny(name), images(), dtype=dtype, count=4)
        assert found.gradient_error is not None
        assert found.reconstruction_error is not None
        assert found.gradient_error < rounding
        assert 0 < found.reconstruction_error < rounding
        assert found.cosine == pytest.approx(1, abs=1e-6)


def test_the_errors_of_euler_and_heun_fall_with_the_steps_as_published() -> None:
    """O(1/N) and O(1/N^2) on smooth weights, of the gradient and of the reconstruction alike."""
    with row("continuous", rate=SMOOTH, strides=(1,)) as name:
        for scheme, order in ((Scheme.euler, 1), (Scheme.heun, 2)):
            model = tiny(name, scheme=scheme, nodes=1, depth_time=0.5)
            coarse, fine = (
                memory_free(model.manifest(scheme=scheme, steps=steps), images(), dtype=torch.float64, count=2)
                for steps in (16, 32)
            )
            for error in ("gradient_error", "reconstruction_error"):
                slope = math.log2(getattr(coarse, error) / getattr(fine, error))
                assert order - 0.2 < slope < order + 1.2, (scheme, error)


def test_what_cannot_be_undone_has_a_reason() -> None:
    found = memory_free(tiny("lm_resnet"), images(), count=2)
    assert (found.gradient_error, found.reconstruction_error) == (None, None)
    assert "divides by k_n" in found.reason
    found = memory_free(tiny("neural_ode", nodes=1), images(), count=2)
    assert found.gradient_error is not None
    assert found.reconstruction_error is None
    assert "adaptive" in found.reason


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^3 images are too few: at least 16 are needed\.$"):
        memory_free(tiny("continuous"), images(3))
