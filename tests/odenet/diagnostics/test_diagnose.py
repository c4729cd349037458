"""The row of one trained network: every number, or the reason why there is none."""

import pytest
import torch

from odenet import Scheme
from odenet.diagnostics.convergence import observed_order
from odenet.diagnostics.diagnose import diagnose
from odenet.diagnostics.manifesting import validity
from odenet.diagnostics.memory_free import memory_free
from odenet.diagnostics.smoothness import smoothness
from odenet.diagnostics.spectrum import spectrum
from tests.odenet.diagnostics.probes import images, right, tiny

NUMBERS = {
    "steps", "depth_time", "parameters", "rate_evaluations", "observed_order", "gradient_error",
    "reconstruction_error", "smoothness", "max_real", "amplification", "lipschitz_median", "lipschitz_90",
    "lipschitz_largest",
}  # fmt: skip
VERDICT = {"valid", "drop", "drop_error", "critical_step"}


def test_a_diagnosis_holds_what_each_part_measures_and_leaves_the_network_as_it_was() -> None:
    model, training = tiny("continuous", nodes=2, depth_time=1e-3), images(64, seed=1)
    shown = right(model, images())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = diagnose(model, shown, training_images=training, count=1)
    assert (found.scheme, found.steps, found.depth_time, found.rate_evaluations) == (Scheme.euler, 2, 1e-3, 6)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.stored == validity(model, shown)
    assert found.reestimated == validity(model, shown, training_images=training)
    assert found.observed_order == observed_order(model, shown, count=1).blocks
    walked, eigenvalues = memory_free(model, shown, count=1), spectrum(model, shown, count=1)
    assert (found.gradient_error, found.reconstruction_error) == (walked.gradient_error, walked.reconstruction_error)
    assert (found.max_real, found.amplification) == (eigenvalues.max_real, eigenvalues.amplification)
    assert found.smoothness == smoothness(model.network).first
    assert set(found.values()) == NUMBERS | VERDICT | {f"{name}_reestimated" for name in VERDICT}
    assert found.reasons == {}
    assert found.values()["valid"] == 1.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_has_no_meaning_is_left_out_with_its_reason() -> None:
    found = diagnose(tiny("lm_resnet", side=4, nodes=1), images(side=4), count=1)
    lacking = NUMBERS | VERDICT | {f"{name}_reestimated" for name in VERDICT}
    always = {"steps", "depth_time", "parameters", "rate_evaluations", "max_real"}
    always |= {name for name in NUMBERS if name.startswith("lipschitz")}
    assert set(found.reasons) == lacking - always
    assert set(found.values()) == always
    assert found.reasons["observed_order"] == "LM approximates no ODE"
    assert found.reasons["valid"] == "its k_n belong to one step of each block"
    assert found.reasons["valid_reestimated"] == "no training images were given"
    assert found.reasons["smoothness"] == "no stage has more than one node"
    assert "divides by k_n" in found.reasons["gradient_error"]
    assert all(found.reasons.values())


def test_too_few_images_and_other_shapes_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match=r"^20 images are too few: at least 100 are needed\.$"):
        diagnose(tiny("lm_resnet"), images(20))
    with pytest.raises(ValueError, match=r"^Images of shape \(1, 9, 9\): the network takes \(1, 8, 8\)\.$"):
        diagnose(tiny("continuous"), images(side=9))
    with pytest.raises(ValueError, match=r"^20 images are too few: at least 32 are needed\.$"):
        diagnose(tiny("continuous"), images(), training_images=images(20))
