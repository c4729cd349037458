"""The verdict of `validity` on a network: its accuracy measured under other manifestations than its own."""

from collections.abc import Sequence

from odenet.data.batches import Batches, Statistics
from odenet.data.images import Images
from odenet.diagnostics.probing import check_images
from odenet.diagnostics.reestimate import reestimate
from odenet.diagnostics.validity import LEAST_IMAGES, AccuracyChange, Validity, judge, paired_error
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.training.evaluation import Manifested, manifested, measured

SCHEMES = (Scheme.rk4,)  # besides the trained one
STEP_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # those below 1 serve h* alone


def validity(classifier: Classifier, images: Images, *, training_images: Images | None = None) -> Validity:
    """Say whether a network is an ODE: whether it keeps its accuracy under finer manifestations, see `judge`.

    A ResNet is prolonged by repetition: its blocks are the Euler steps of weights that are constant on each block, so
    at 2n steps each block is taken twice at half the length. It is the control, and expected to fail.

    Args:
        images: to measure on, at least 100.
        training_images: if given, batch-norm statistics are estimated on these anew under every manifestation, the
            trained one too.

    Raises:
        ValueError: too few images, or images of another shape.
    """
    check_images(classifier, images, LEAST_IMAGES)
    course = classifier.network.depths()[-1].course
    unasked = judge(course.scheme, [])
    if unasked.reason and not unasked.unmeasured:
        return unasked
    statistics, device = Statistics.identity(classifier.images.channels), classifier.scale_C11.device
    batches = Batches(images, statistics=statistics, device=device)
    results = []
    for other, trained in manifested(classifier, SCHEMES, STEP_FACTORS):
        assert isinstance(other, Classifier)
        found = other.network.depths()[-1].course
        if found.scheme is course.scheme or course.steps <= found.steps <= 2 * course.steps:  # what the rule asks for
            ready = other if training_images is None else reestimate(other, training_images)
            results.append(measured(ready, batches, trained=trained, counted=False))
    return verdict(results)


def reestimated_manifestations(
    classifier: Classifier,
    batches: Batches,
    training_images: Images,
    schemes: Sequence[Scheme],
    step_factors: Sequence[float],
) -> list[Manifested]:
    """Score as `manifestations` does, each with batch-norm statistics of its own from training images."""
    results = []
    for other, trained in manifested(classifier, schemes, step_factors):
        assert isinstance(other, Classifier)
        results.append(measured(reestimate(other, training_images), batches, trained=trained))
    return results


def verdict(results: Sequence[Manifested]) -> Validity:
    """Judge what was measured. ValueError: the trained manifestation is not among the results."""
    own = next((one for one in results if one.trained), None)
    if own is None:
        raise ValueError("No verdict without the score under the trained manifestation.")
    others = [one for one in results if not one.trained]
    return judge(own.scheme, [change(own, one) for one in others])


def change(own: Manifested, other: Manifested) -> AccuracyChange:
    """Compare a manifestation with the trained one, image by image."""
    n, gone, gained = len(own.hits_N), lost(own, other), lost(other, own)
    return AccuracyChange(other.scheme, other.steps / own.steps, gone - gained, paired_error(gone, gained, n))


def lost(own: Manifested, other: Manifested) -> float:
    """Return the share of images that the first has right and the second has wrong."""
    return float((own.hits_N & ~other.hits_N).mean())
