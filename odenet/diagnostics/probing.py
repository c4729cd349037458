"""What diagnostics begin with: images as a classifier takes them, copies of it, its stages as fields.

Shapes: `B` batch, `C` channels, `H W` space.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from odenet.data.images import Images
from odenet.depth.node_weights import readout
from odenet.enums import Gradient, Scheme
from odenet.inference.classifier import Classifier
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, State, Stepping
from odenet.integrators.schemes import SCHEMES
from odenet.networks.blocks import DepthStage

Input = Tensor | State


def check_images(classifier: Classifier, images: Images, least: int = 1) -> None:
    """Raise ValueError where there are fewer than `least` images, or they are not shaped as the classifier's."""
    shape, expected = tuple(images.pixels_BCHW.shape[1:]), classifier.input_size
    if shape != expected:
        raise ValueError(f"Images of shape {shape}: the network takes {expected}.")
    if len(images) < least:
        raise ValueError(f"{len(images)} images are too few: at least {least} are needed.")


def first_pixels(classifier: Classifier, images: Images, count: int) -> Tensor:
    """Return the first `count` images as floats in [0, 1], in the arithmetic and on the device of the classifier.

    Raises:
        ValueError: there are fewer, or they are not shaped as the classifier's.
    """
    check_images(classifier, images, count)
    pixels_BCHW = torch.tensor(images.pixels_BCHW[:count], device=classifier.scale_C11.device)
    return pixels_BCHW.to(classifier.scale_C11.dtype) / 255


def copied(classifier: Classifier, dtype: torch.dtype, gradient: Gradient = Gradient.direct) -> Classifier:
    """Return a copy in evaluation mode and another arithmetic, whose parameters can be differentiated."""
    network = copy.deepcopy(classifier.network).requires_grad_()
    for stage in network.depth_stages():
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, gradient=gradient))
    return Classifier(network, classifier.images, classifier.about).to(dtype)


@torch.no_grad()
def stage_inputs(classifier: Classifier, x_BCHW: Tensor) -> list[Input]:
    """Return what each stage is given for these images."""
    inputs: list[Input] = []

    def note(_: nn.Module, arguments: tuple[Input, ...]) -> None:
        inputs.append(arguments[0])

    handles = [stage.register_forward_pre_hook(note) for stage in classifier.network.depth_stages()]
    try:
        classifier(x_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def opened(stage: DepthStage, course: Course) -> OpenRate:
    """Return the rate of a stage as a function of the stages of this course."""
    depth, device = stage.depth, next(stage.rate.parameters()).device
    return stage.rate.open(readout(depth.basis, depth.nodes, course.scheme, course.steps, device))


@torch.no_grad()
def integrated(stage: DepthStage, x: Input, *, scheme: Scheme, steps: int) -> Tensor:
    """Return the output of a stage under another manifestation."""
    course = replace(stage.depth.course, scheme=scheme, steps=steps, gradient=Gradient.direct)
    return integrate_stages(opened(stage, course), x, course)


@torch.no_grad()
def states(stage: DepthStage, x: Input, course: Course) -> list[State]:
    """Return the state of a fixed-step scheme before the first step and after each."""
    method, rate = SCHEMES[course.scheme], opened(stage, course)
    assert isinstance(method, Stepping)
    found = [method.start(x, course) if isinstance(x, Tensor) else x]
    for step in range(course.steps):
        found.append(method.step(rate, found[-1], step, course))
    return found
