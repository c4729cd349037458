"""Parameters that every family searches, the same objects for all: what differs between families is the network alone.

Low-data tuning of the first four beat all but one of eight specialised methods (Brigato et al. 2021, arXiv 2108.13122).
How a network is differentiated (`model.gradient`) is searched nowhere: it decides memory and time, not what is learned.
"""

from collections.abc import Mapping

from search_spaces.parameters import Choice, Float, Parameter, When, fixed
from search_spaces.space import Space

COMMON: dict[str, Parameter] = {
    # From below the 5e-3 of low-data work at batches of 10 to above the 0.1 that ResNets use at 100 to 256.
    "optim.lr": Float(1e-3, 0.3, log=True),
    # As Brigato et al. search it. Scarce data want about ten times the usual 5e-4; a baseline denied that is weak.
    "optim.weight_decay": Float(1e-5, 1e-1, log=True),
    # At a fixed number of epochs smaller batches are more optimizer updates. The largest needs the most memory.
    "optim.batch_size": Choice((64, 32, 16)),
    "data.augment": Choice(("none", "standard")),
    # None, and what LM-ResNet-56 and -110 use: 0.8 and 0.5 survive at the end (arXiv 1710.10121).
    "regularization.stochastic_depth": Choice((0.0, 0.2, 0.5)),
    # None, the 0.001 of the authors of LM-ResNet, and more, up to a tenth of what batch norm makes of a channel.
    "regularization.noise": Choice((0.0, 0.001, 0.01, 0.1)),
}

# Of weights in depth, where there are several nodes. It multiplies an integral over depth: N sum |K_j+1 - K_j|^2 for N
# nodes. In this unit the code of Chang et al. 2018 (arXiv 1709.03698) has 1e-4 / N for 6 to 18 nodes, that is 6e-6 to
# 2e-5, and others 2e-4 / (h N) at h = 0.06, that is 6e-4. Well below all of these there is no regularization.
SMOOTHNESS: dict[str, Parameter] = {"regularization.smoothness": Float(1e-7, 1e-2, log=True)}


SHARED = ".shared"  # ends the name of a family whose space is `shared`


def shared(space: Space) -> Space:
    """Return the space of what all families search, `COMMON`, alone: every dimension of a family's own is left out, so
    that it has the value of the configuration. ValueError: it searches nothing of `COMMON`."""
    left_out: list[str] = []
    for key in space.entries:
        condition = space.conditions.get(key)
        depends = condition is not None and condition.key in left_out
        if depends or (key in space.parameters and key not in COMMON):
            left_out.append(key)
    if not set(space.parameters) - set(left_out):
        raise ValueError(f"Nothing is searched that all families share: {', '.join(COMMON)}. Search the full space.")
    return space.without(left_out)


def family(network: str, own: Mapping[str, Parameter], conditions: Mapping[str, When] | None = None) -> Space:
    """Build the space of a network: the common parameters, then its own."""
    return Space({"model.network": fixed(network), **COMMON, **own}, conditions or {})
