"""Rates, transitions and stems as data: the names of their layers, in the order in which they are applied.

`rates` and `blocks` build them; `table` combines them into networks.
"""

from dataclasses import dataclass

from odenet.enums import Stem


@dataclass(frozen=True, slots=True)
class RateOrder:
    """A rate as data. `second` makes it partitioned: y' = layers(z), z' = second(y) on the halves of the channels."""

    layers: tuple[str, ...]
    second: tuple[str, ...] = ()
    bias: bool = False  # of convolutions
    inner: tuple[str, ...] = ("norm", "relu")  # between K and K^T of the symmetric layers; of the clipped one all
    memory: bool = False  # k_n of the LM step


@dataclass(frozen=True, slots=True, kw_only=True)
class StemOrder:
    """A convolution[, batch norm, ReLU][, 3x3 max pool of stride 2] of the images."""

    size: int = 3
    stride: int = 1
    padding: int = 1
    norm: bool = True
    pool: bool = False


STEMS = {Stem.cifar: StemOrder(), Stem.imagenet: StemOrder(size=7, stride=2, padding=3, pool=True)}

# Queiruga et al. 2020 (arXiv 2008.02389), the authors' default order.
POST_ACTIVATION = RateOrder(("conv", "relu", "norm", "conv", "relu", "norm"), bias=True)
# He et al. 2016 (arXiv 1603.05027), full pre-activation; with biases "ContinuousNetActFirst" of the former.
PRE_ACTIVATION = RateOrder(("norm", "relu", "conv", "norm", "relu", "conv"))
PRE_ACTIVATION_BIAS = RateOrder(PRE_ACTIVATION.layers, bias=True)
BOTTLENECK = RateOrder(("norm", "relu", "reduce", "norm", "relu", "grouped", "norm", "relu", "expand"))
# Lu et al. 2018, arXiv 1710.10121.
LM = RateOrder(PRE_ACTIVATION.layers, memory=True)
LM_BOTTLENECK = RateOrder(BOTTLENECK.layers, memory=True)
# Chang et al. 2018 (arXiv 1709.03698), Eq. 7 with batch norm: y' = K1^T s(K1 z), z' = -K2^T s(K2 y).
HAMILTONIAN = RateOrder(("norm", "symmetric"), second=("norm", "minus_symmetric"))
# Without batch norm, as the paper draws it: the system whose spectrum is imaginary.
HAMILTONIAN_BARE = RateOrder(("symmetric",), second=("minus_symmetric",), bias=True, inner=("relu",))
# The net's first f lacks its first batch norm.
HAMILTONIAN_FIRST = RateOrder(("symmetric",), second=("norm", "minus_symmetric"))
MIDPOINT = RateOrder(("norm", "antisymmetric", "norm", "relu"))
LEAPFROG = RateOrder(("norm", "minus_symmetric"))
# Gomez et al. 2017, arXiv 1707.04585.
REVNET = RateOrder(PRE_ACTIVATION.layers, second=PRE_ACTIVATION.layers)
# Sander et al. 2022, arXiv 2205.14612.
NORM_LAST = RateOrder(("conv", "norm", "relu", "conv", "norm"), bias=True)
# He et al. 2016 (arXiv 1512.03385): the block as first published, whose last ReLU comes after the sum.
BASIC = RateOrder(("clipped",), inner=("conv", "norm", "relu", "conv", "norm"))
BASIC_BOTTLENECK = RateOrder(
    ("clipped",), inner=("reduce", "norm", "relu", "grouped", "norm", "relu", "expand", "norm")
)
# Larsson et al. 2017 (arXiv 1605.07648): the fractal of three columns; a unit step of Euler replaces h by it.
FRACTAL = RateOrder(("fractal",))
# Chen et al. 2018 (arXiv 1806.07366), without the time channel: an adaptive scheme allows no batch norm.
GROUP_NORM = RateOrder(("group_norm", "relu", "conv", "group_norm", "relu", "conv"), bias=True)
# Smooth in x, as a reference must be whose adjoint equation is to be as exact as its tolerance: ReLU's kinks are not.
GROUP_NORM_SMOOTH = RateOrder(("group_norm", "softplus", "conv", "group_norm", "softplus", "conv"), bias=True)


@dataclass(frozen=True, slots=True)
class TransitionOrder:
    """A transition as data: skip(x) + residual(x).

    Where the shape does not change and `identity` holds, the skip is x itself. `shared` layers come before both (but
    not before that x). With `history` the skip comes back beside the sum: the state before, for a two-step scheme.
    """

    skip: tuple[str, ...]
    residual: tuple[str, ...] = ()
    bias: bool = False
    shared: tuple[str, ...] = ()
    identity: bool = True
    history: bool = False
    last: tuple[str, ...] = ()  # layers after the sum

    @property
    def pool_pad_halves(self) -> int:
        """Return how many parts of the state are padded; 0: the transition pads nothing."""
        return {"pool_pad": 1, "pool_pad_halves": 2}.get(self.skip[0], 0)


# conv1x1(x) + conv-ReLU-BN-conv-ReLU-BN(x) of Queiruga et al. 2020. Their main branch creates the second batch norm and
# leaves it out; here it is applied, as in their version of May 2020, so that no parameter is without a gradient.
STITCH = TransitionOrder(("conv1",), ("conv", "relu", "norm") * 2, bias=True, identity=False)
PREACT_STITCH = TransitionOrder(("conv1",), ("norm", "relu", "conv") * 2, bias=True, identity=False)
# Queiruga et al. 2021, arXiv 2106.10820.
STATEFUL_STITCH = TransitionOrder(("conv1", "norm"), ("conv", "norm", "relu", "conv"), shared=("norm", "relu"))
PROJECTION = TransitionOrder(("conv1", "norm"), ("norm", "relu", "conv") * 2)
BOTTLENECK_PROJECTION = TransitionOrder(("conv1", "norm"), BOTTLENECK.layers)
# Lu et al. 2018: the history restarts with the downsampled state.
LM_PROJECTION = TransitionOrder(("norm", "relu", "conv1"), ("norm", "relu", "conv") * 2, history=True)
LM_BOTTLENECK_PROJECTION = TransitionOrder(("norm", "relu", "conv1"), BOTTLENECK.layers, history=True)
# The first block of a stage of He et al. 2016, arXiv 1512.03385.
BASIC_PROJECTION = TransitionOrder(("conv1", "norm"), BASIC.inner, last=("relu",))
BASIC_BOTTLENECK_PROJECTION = TransitionOrder(("conv1", "norm"), BASIC_BOTTLENECK.inner, last=("relu",))
PLAIN = TransitionOrder(("conv", "norm", "relu"), identity=False)
# Chang et al. 2018: average pool, then zero channels on both sides (of each half where the state has two).
POOL_PAD = TransitionOrder(("pool_pad",))
POOL_PAD_HALVES = TransitionOrder(("pool_pad_halves",))
