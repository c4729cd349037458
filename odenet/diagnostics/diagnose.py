"""All that is measured of one trained network besides its accuracy, in one row."""

from dataclasses import dataclass

import torch

from odenet.data.images import Images
from odenet.diagnostics.convergence import observed_order
from odenet.diagnostics.lipschitz import Lipschitz, lipschitz
from odenet.diagnostics.manifesting import validity
from odenet.diagnostics.memory_free import memory_free
from odenet.diagnostics.probing import check_images
from odenet.diagnostics.reestimate import LEAST_TRAINING_IMAGES
from odenet.diagnostics.smoothness import smoothness
from odenet.diagnostics.spectrum import spectrum
from odenet.diagnostics.validity import LEAST_IMAGES, Validity
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier

IMAGES_OF_LOGITS = 32
LOST = "shorter steps of the trained scheme lose accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One trained network; None where a number has no meaning, with the reason by its name in `reasons`."""

    scheme: Scheme
    steps: int  # of the last stage
    depth_time: float  # T of the last stage
    parameters: int
    rate_evaluations: int  # of a forward pass
    observed_order: float | None  # of the outputs of the integrations
    stored: Validity  # with batch norm as trained
    reestimated: Validity  # with batch norm estimated anew on training images
    gradient_error: float | None  # relative, of the memory-free gradient, float32
    reconstruction_error: float | None  # relative, float32
    smoothness: float | None  # S1
    max_real: float | None  # of the eigenvalues of dR/dx
    amplification: float | None  # max |R(h lambda)|
    sensitivity: Lipschitz  # of the logits to the image
    reasons: dict[str, str]

    def values(self) -> dict[str, float]:
        """Return what was measured as numbers by name, a verdict as 1 or 0; without what is None."""
        plain = {name: getattr(self, name) for name in NUMBERS}
        found = plain | _verdict(self.stored) | _verdict(self.reestimated, "_reestimated")
        local = self.sensitivity
        found |= {"lipschitz_median": local.median, "lipschitz_90": local.upper, "lipschitz_largest": local.largest}
        return {name: float(value) for name, value in found.items() if value is not None}


NUMBERS = (
    "steps", "depth_time", "parameters", "rate_evaluations", "observed_order", "gradient_error",
    "reconstruction_error", "smoothness", "max_real", "amplification",
)  # fmt: skip


def _verdict(found: Validity, suffix: str = "") -> dict[str, float | None]:
    named = {"valid": found.valid, "drop": found.drop, "drop_error": found.error, "critical_step": found.critical_step}
    return {f"{name}{suffix}": value for name, value in named.items()}


def diagnose(
    classifier: Classifier, images: Images, *, training_images: Images | None = None, count: int = 4
) -> Diagnosis:
    """Measure the row of one trained network; it stays as it is.

    Args:
        images: validity is measured on all of them, at least 100; orders, gradients and spectra on the first `count`
            (orders on two), which take most of the time; Lipschitz constants on the first 32.
        training_images: to estimate batch-norm statistics anew; without them there is no verdict on that.

    Raises:
        ValueError: too few images, or images of another shape.
    """
    check_images(classifier, images, max(LEAST_IMAGES, count))
    if training_images is not None:
        check_images(classifier, training_images, LEAST_TRAINING_IMAGES)
    network, course = classifier.network, classifier.network.depths()[-1].course
    stored = validity(classifier, images)
    again = Validity(valid=None, reason="no training images were given")
    if training_images is not None:
        again = validity(classifier, images, training_images=training_images)
    order = observed_order(classifier, images, count=min(count, 2))
    walked = memory_free(classifier, images, dtype=torch.float32, count=count)
    smooth, eigenvalues = smoothness(network), spectrum(classifier, images, count=count)
    found = Diagnosis(
        scheme=course.scheme,
        steps=course.steps,
        depth_time=course.depth_time,
        parameters=network.parameter_count,
        rate_evaluations=network.rate_evaluations,
        observed_order=order.blocks,
        stored=stored,
        reestimated=again,
        gradient_error=walked.gradient_error,
        reconstruction_error=walked.reconstruction_error,
        smoothness=smooth.first,
        max_real=eigenvalues.max_real,
        amplification=eigenvalues.amplification,
        sensitivity=lipschitz(classifier, images, count=min(IMAGES_OF_LOGITS, len(images))),
        reasons={},
    )
    why = {
        "observed_order": order.reason,
        "gradient_error": walked.reason,
        "reconstruction_error": walked.reason,
        "smoothness": "no stage has more than one node",
        "max_real": "no eigenvalue converged",
        "amplification": eigenvalues.reason,
        **dict.fromkeys(_verdict(stored), stored.reason or LOST),
        **dict.fromkeys(_verdict(again, "_reestimated"), again.reason or LOST),
    }
    measured = found.values()
    found.reasons.update({name: reason for name, reason in why.items() if name not in measured})
    return found
