"""The closed choices of a configuration: a member's name is its value, as it is written there."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

ChoiceT = TypeVar("ChoiceT", bound=Enum)


class Scheme(Enum):
    """Integrators; `integrators.schemes.SCHEMES` holds formula, order and cost of each."""

    euler = "euler"
    midpoint = "midpoint"
    heun = "heun"
    ralston = "ralston"
    rk4 = "rk4"
    rk4_38 = "rk4_38"
    polynet = "polynet"
    two_step_midpoint = "two_step_midpoint"  # weakly unstable where solutions decay: for imaginary spectra
    leapfrog = "leapfrog"
    lm = "lm"
    verlet = "verlet"
    dopri5 = "dopri5"


class Start(Enum):
    """The state that a two-step scheme takes to have been before the first one."""

    consistent = "consistent"  # the first step is Euler's (MidPoint) or half as long (leapfrog): keeps the order
    repeat = "repeat"  # the first state once more
    paper = "paper"  # zero, as in Chang et al. 2018, arXiv 1709.03698


class Gradient(Enum):
    """Ways to differentiate an integration; `integrators.gradients` holds the algorithm of each."""

    direct = "direct"
    checkpointed = "checkpointed"
    reconstructed = "reconstructed"


class Basis(Enum):
    """Functions of depth that weights are made of; `depth.bases.BASES` holds the mathematics of each."""

    piecewise_constant = "piecewise_constant"
    hat = "hat"
    discontinuous_linear = "discontinuous_linear"
    polynomial = "polynomial"


class Compression(Enum):
    """Ways to make a trained network smaller; `networks.compression` does it."""

    trained = "trained"  # as it is
    projected = "projected"  # fewer nodes, by L2 projection over depth, as many steps; a ResNet's blocks are averaged
    shortened = "shortened"  # the trained weights in fewer, longer steps
    both = "both"  # fewer nodes, and as many fewer steps
    dropped = "dropped"  # blocks left out with their steps, evenly


class Network(Enum):
    """Whole networks; `networks.table.NETWORKS` holds the row (rate, scheme, basis, wiring) of each.

    A pickle names the module of a network that is defined outside this package, as it names those of classes.
    """

    continuous = "continuous"
    continuous_preact = "continuous_preact"
    stateful = "stateful"
    resnet = "resnet"
    hamiltonian = "hamiltonian"
    midpoint = "midpoint"
    leapfrog = "leapfrog"
    revnet = "revnet"
    scaled_resnet = "scaled_resnet"
    heunnet = "heunnet"
    lm_resnet = "lm_resnet"
    lm_bottleneck = "lm_bottleneck"
    lm_resnext = "lm_resnext"
    polynet = "polynet"
    fractalnet = "fractalnet"
    preact_resnet = "preact_resnet"
    wide_resnet = "wide_resnet"
    bottleneck_resnet = "bottleneck_resnet"
    resnext = "resnext"
    neural_ode = "neural_ode"
    resnet18 = "resnet18"
    resnet50 = "resnet50"
    resnet101 = "resnet101"

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., "Network"], tuple[str, ...]]:
        return vars(self).get("_reduced_", (Network, (self.value,)))


class Stem(Enum):
    """Ways in which images enter a network; `networks.table.STEMS` holds the layers of each."""

    cifar = "cifar"  # 3x3, for 32x32 pixels
    imagenet = "imagenet"  # 7x7 of stride 2 and a 3x3 max pool of stride 2, for 224x224 pixels


class Initialisation(Enum):
    """The dependence of a rate's weights on depth at the start of training."""

    independent = "independent"  # drawn anew for each node
    smooth = "smooth"  # those of the first node at every node
    zero = "zero"  # independent, but the last layer that has parameters starts at zero: the rate is zero


class Precision(Enum):
    """Arithmetic of training. Weights, batch-norm statistics and the optimizer are always fp32."""

    fp32 = "fp32"  # single precision throughout
    tf32 = "tf32"  # a GPU rounds what it multiplies to 10 bits, also in backward passes; on a CPU the same as fp32
    bf16 = "bf16"  # forward passes multiply in bf16, by autocast; what that leaves in fp32 is as in tf32


class Device(Enum):
    """The hardware a network runs on; `auto` is CUDA where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class CudaGraphs(Enum):
    """Whether an iteration of training is one CUDA graph; `auto` is wherever it can be."""

    auto = "auto"
    always = "always"  # refused where it cannot be
    never = "never"


class ExportFormat(Enum):
    """The file in which a trained network leaves.

    safetensors: weights, beside a JSON file with everything else; odenet reads it back without running code from it.
    onnx, pt2: a graph that ONNX Runtime, or torch alone, runs without odenet; of fixed steps only.
    """

    safetensors = "safetensors"
    onnx = "onnx"
    pt2 = "pt2"


class Corruption(Enum):
    """Changes of images with five severities each; `robustness.corruptions.CORRUPTIONS` holds the constants of each.

    Names and order are those of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261).
    """

    gaussian_noise = "gaussian_noise"
    shot_noise = "shot_noise"
    impulse_noise = "impulse_noise"
    defocus_blur = "defocus_blur"
    glass_blur = "glass_blur"
    motion_blur = "motion_blur"
    zoom_blur = "zoom_blur"
    snow = "snow"
    frost = "frost"
    fog = "fog"
    brightness = "brightness"
    contrast = "contrast"
    elastic_transform = "elastic_transform"
    pixelate = "pixelate"
    jpeg_compression = "jpeg_compression"
    speckle_noise = "speckle_noise"
    gaussian_blur = "gaussian_blur"
    spatter = "spatter"
    saturate = "saturate"


BENCHMARK = tuple(Corruption)[:15]  # for the final table only
DEVELOPMENT = tuple(Corruption)[15:]  # for every look before it


def add_member(kind: type[ChoiceT], name: str) -> ChoiceT:
    """Add a choice that is defined outside this package: a member called `name`, with that value. Python closes an
    enumeration where it is written, and so the member is put into the tables by which it looks one up."""
    added = object.__new__(kind)
    added._name_, added._value_ = name, name
    kind._member_names_.append(name)
    kind._member_map_[name] = kind._value2member_map_[name] = added
    type.__setattr__(kind, name, added)
    return added


def member(kind: type[ChoiceT], name: ChoiceT | str, key: str) -> ChoiceT:
    """Return the member of a closed choice, also by its name.

    Raises:
        ValueError: there is none; says what `key` can be.
    """
    if isinstance(name, kind):
        return name
    if isinstance(name, str) and name in kind.__members__:
        return kind[name]
    raise ValueError(f"{key}={name!r} is not possible: {', '.join(kind.__members__)} can be.")
