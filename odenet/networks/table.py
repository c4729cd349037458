"""The table of networks: each is a row (rate, scheme, basis, wiring) and what may be asked of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

from odenet.enums import Basis, Gradient, Initialisation, Network, Scheme, Stem, add_member
from odenet.integrators.scheme import ExplicitRungeKutta
from odenet.integrators.schemes import ADAPTIVE, SCHEMES, TwoStep
from odenet.networks import orders
from odenet.networks.orders import RateOrder, TransitionOrder

# PolyNet's step, which leaves x out of a stage, is for its own network: where F(0) != 0 it solves another equation.
RUNGE_KUTTA = tuple(
    scheme for scheme, method in SCHEMES.items() if isinstance(method, ExplicitRungeKutta) and all(method.of_x)
)
FIRST_ORDER = (
    *RUNGE_KUTTA,
    *(scheme for scheme, method in SCHEMES.items() if isinstance(method, TwoStep) and method.power == 1),
)
PARTITIONED = (*FIRST_ORDER, *(scheme for scheme, method in SCHEMES.items() if method.needs == "halves"))


@dataclass(frozen=True, slots=True)
class Capability:
    """The limits of what a network can be asked for; `because` is the reason."""

    schemes: tuple[Scheme, ...]  # to train with
    manifestations: tuple[Scheme, ...]  # that make sense of trained weights
    bases: tuple[Basis, ...] = tuple(Basis)
    initialisations: tuple[Initialisation, ...] = tuple(Initialisation)
    gradients: tuple[Gradient, ...] = tuple(Gradient)
    refines: bool = True
    substeps: bool = True  # more than one integrator step per cell
    depth_time: bool = True  # a T other than the row's
    most_nodes: int | None = None
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The average pool of a head, to size x size."""

    size: int = 1
    kernel: int | None = None  # as published, and as long its stride; what it leaves over is dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """One row: a stem, stages of a transition and an integration over depth, a head."""

    rate: RateOrder
    scheme: Scheme = Scheme.euler  # as published
    basis: Basis = Basis.piecewise_constant
    transition: TransitionOrder
    first_transition: bool = True  # also before the first stage
    opening: RateOrder | None = None  # the rate of a depth stage of one node before the first stage
    strides: tuple[int, ...] = (1, 2, 2)  # one for each stage; of further ones 2
    nodes: tuple[int, ...] = (2,)  # as published: of each stage, or one number for all
    stem: orders.StemOrder = orders.STEMS[Stem.cifar]
    head: tuple[str, ...] = ()  # layers before the pool
    pool: Pool = Pool()
    last_extra: int = 0  # nodes of the last stage beyond `model.nodes`
    depth_time: Callable[[int], float] = float  # as published, of the number of nodes
    capability: Capability
    source: str


def _times_one(nodes: int) -> float:  # noqa: ARG001
    return 1.0


_ODE = Capability(FIRST_ORDER, FIRST_ORDER, because="its rate is an ODE of first order")
_RESNET = Capability(
    (Scheme.euler,),
    FIRST_ORDER,
    (Basis.piecewise_constant,),
    refines=False,
    substeps=False,
    depth_time=False,
    because="it is a ResNet",
)
_LM = replace(
    _RESNET, schemes=(Scheme.lm,), manifestations=(Scheme.lm,), because="its k_n belong to one step of each block"
)
# A zero rate of these has no gradient: the last kernel stands on both sides of the activation, or a ReLU comes last.
_NOT_ZERO = (Initialisation.independent, Initialisation.smooth)
_HAMILTONIAN = Capability(
    PARTITIONED, PARTITIONED, initialisations=_NOT_ZERO, because="it is a Hamiltonian system of first order"
)

_CONTINUOUS = Wiring(
    rate=orders.POST_ACTIVATION,
    transition=orders.STITCH,
    capability=_ODE,
    source="Queiruga et al. 2020, arXiv 2008.02389",
)
_PREACT = Wiring(
    rate=orders.PRE_ACTIVATION,
    transition=orders.PROJECTION,
    stem=orders.StemOrder(norm=False),
    head=("norm", "relu"),
    capability=_RESNET,
    source="He et al. 2016, arXiv 1603.05027",
)
# Pooled and zero-padded between the widths. In the authors' code the first block of a stage still has the old width:
# blocks per width are n+1, n, n-1.
_REVERSIBLE = Wiring(
    rate=orders.HAMILTONIAN,
    scheme=Scheme.verlet,
    transition=orders.POOL_PAD_HALVES,
    first_transition=False,
    opening=orders.HAMILTONIAN_FIRST,
    head=("norm", "relu"),
    last_extra=-1,
    capability=_HAMILTONIAN,
    source="Chang et al. 2018, arXiv 1709.03698, Eq. 7 and 10",
)
_SCALED = Wiring(
    rate=orders.NORM_LAST,
    transition=orders.PLAIN,
    first_transition=False,
    strides=(1,),
    stem=orders.StemOrder(size=5, stride=3),
    pool=Pool(size=2, kernel=4),  # 10x10 at images of 32x32, of which it leaves out the last two rows and columns
    depth_time=_times_one,
    capability=_ODE,
    source="Sander et al. 2022, arXiv 2205.14612",
)

_LM_NET = replace(
    _PREACT,
    rate=orders.LM,
    scheme=Scheme.lm,
    transition=orders.LM_PROJECTION,
    capability=_LM,
    source="Lu et al. 2018, arXiv 1710.10121",
)
_LM_BOTTLENECK = replace(_LM_NET, rate=orders.LM_BOTTLENECK, transition=orders.LM_BOTTLENECK_PROJECTION)

# Blocks relu(x + f(x)), the first of each stage a transition: torchvision's ResNets, whose weights fit at
# model.width=64, with bottlenecks at model.widen=4.
_TORCHVISION = Wiring(
    rate=orders.BASIC_BOTTLENECK,
    transition=orders.BASIC_BOTTLENECK_PROJECTION,
    strides=(1, 2, 2, 2),
    stem=orders.STEMS[Stem.imagenet],
    capability=replace(
        _RESNET,
        initialisations=_NOT_ZERO,
        gradients=(Gradient.direct, Gradient.checkpointed),
        because="its blocks end with a ReLU, which nothing undoes",
    ),
    source="He et al. 2016, arXiv 1512.03385, as torchvision has it",
)

NETWORKS: dict[Network, Wiring] = {
    Network.continuous: _CONTINUOUS,
    Network.continuous_preact: replace(
        _CONTINUOUS, rate=orders.PRE_ACTIVATION_BIAS, transition=orders.PREACT_STITCH, head=("norm",)
    ),
    Network.stateful: replace(
        _CONTINUOUS,
        rate=orders.PRE_ACTIVATION,
        transition=orders.STATEFUL_STITCH,
        head=("norm",),
        source="Queiruga et al. 2021, arXiv 2106.10820",
    ),
    # The twin: same stem, transitions, head and parameter count; its blocks x + R(x) are the Euler steps at T = nodes.
    Network.resnet: replace(_CONTINUOUS, capability=_RESNET, source="the ResNet of arXiv 2008.02389"),
    Network.hamiltonian: _REVERSIBLE,
    Network.midpoint: replace(
        _REVERSIBLE,
        rate=orders.MIDPOINT,
        scheme=Scheme.two_step_midpoint,
        transition=orders.POOL_PAD,
        opening=None,
        last_extra=0,
        capability=replace(_ODE, initialisations=_NOT_ZERO),
        source="Chang et al. 2018, arXiv 1709.03698",
    ),
    Network.leapfrog: replace(
        _REVERSIBLE,
        rate=orders.LEAPFROG,
        scheme=Scheme.leapfrog,
        transition=orders.POOL_PAD,
        opening=None,
        last_extra=0,
        capability=Capability(
            (Scheme.leapfrog,),
            (Scheme.leapfrog,),
            initialisations=_NOT_ZERO,
            because="its ODE x'' = R(x) is of second order",
        ),
        source="Chang et al. 2018, arXiv 1709.03698, Eq. 17",
    ),
    Network.revnet: replace(
        _REVERSIBLE,
        rate=orders.REVNET,
        opening=None,
        last_extra=0,
        capability=replace(
            _RESNET, schemes=(Scheme.verlet,), manifestations=PARTITIONED, because="it is a reversible ResNet"
        ),
        source="Gomez et al. 2017, arXiv 1707.04585",
    ),
    Network.scaled_resnet: _SCALED,
    Network.heunnet: replace(
        _SCALED,
        scheme=Scheme.heun,
        basis=Basis.hat,
        depth_time=lambda nodes: (nodes - 1) / nodes,
        capability=replace(_ODE, bases=(Basis.hat,), because="HeunNet shares the functions of its nodes between steps"),
    ),
    Network.lm_resnet: _LM_NET,
    Network.lm_bottleneck: _LM_BOTTLENECK,
    Network.lm_resnext: _LM_BOTTLENECK,
    Network.polynet: replace(
        _PREACT,
        scheme=Scheme.polynet,
        capability=replace(
            _RESNET,
            schemes=(Scheme.polynet,),
            manifestations=(Scheme.polynet,),
            because="PolyNet's block is one step",
        ),
        source="Zhang et al. 2017, arXiv 1611.05725",
    ),
    Network.fractalnet: replace(
        _PREACT,
        rate=orders.FRACTAL,
        transition=orders.PLAIN,
        head=(),
        capability=replace(_RESNET, initialisations=_NOT_ZERO, because="a fractal block is one step"),
        source="Larsson et al. 2017, arXiv 1605.07648",
    ),
    # ResNet-20 is nodes=2, ResNet-56 nodes=8: a transition is the first block of each stage.
    Network.preact_resnet: _PREACT,
    Network.wide_resnet: replace(_PREACT, source="Zagoruyko and Komodakis 2016, arXiv 1605.07146"),
    Network.bottleneck_resnet: replace(_PREACT, rate=orders.BOTTLENECK, transition=orders.BOTTLENECK_PROJECTION),
    Network.resnext: replace(
        _PREACT,
        rate=orders.BOTTLENECK,
        transition=orders.BOTTLENECK_PROJECTION,
        source="Xie et al. 2017, arXiv 1611.05431, in pre-activation order",
    ),
    Network.neural_ode: replace(
        _PREACT,
        rate=orders.GROUP_NORM,
        scheme=Scheme.dopri5,
        depth_time=_times_one,
        capability=Capability(
            (*ADAPTIVE, *RUNGE_KUTTA),
            (*ADAPTIVE, *FIRST_ORDER),
            (Basis.piecewise_constant,),
            refines=False,
            most_nodes=1,
            because="its weights do not depend on depth",
        ),
        source="Chen et al. 2018, arXiv 1806.07366",
    ),
    Network.resnet18: replace(_TORCHVISION, rate=orders.BASIC, transition=orders.BASIC_PROJECTION, nodes=(1, 1, 1, 1)),
    Network.resnet50: replace(_TORCHVISION, nodes=(2, 3, 5, 2)),
    Network.resnet101: replace(_TORCHVISION, nodes=(2, 3, 22, 2)),
}

HOMES: dict[Network, str] = {}  # the modules of those that are defined outside this package


def add_networks(rows: Mapping[str, Wiring], module: str | None = None) -> None:
    """Add networks that are defined outside this package: from then on `model.network` can be one of these names.

    Args:
        module: where they are defined, as NETWORKS: pickles of such networks name it, and import it when they are read.

    Raises:
        ValueError: a name is not possible or another network's, or what it names is no row.
    """
    for name, row in rows.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            raise ValueError(f"A network cannot be called {name!r}: small letters, digits and '_', a letter first.")
        if not isinstance(row, Wiring):
            raise ValueError(f"The network {name} is no row: a Wiring is needed, not {row!r}.")
        if name not in Network.__members__:
            NETWORKS[add_member(Network, name)] = row
        elif NETWORKS[Network[name]] is not row:
            raise ValueError(f"There is a network called {name} already; call yours otherwise.")
        if module is not None:
            HOMES[Network[name]] = module
            vars(Network[name])["_reduced_"] = imported_network, (module, name)


def imported_network(module: str, name: str) -> Network:
    """Return a network that a module defines, which is imported: how a pickle of such a network is read."""
    add_networks(import_module(module).NETWORKS, module)
    return Network[name]
