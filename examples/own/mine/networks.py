"""A network of one's own: a row that differs from ContinuousNet's in its rate and its scheme, and the space of it."""

from dataclasses import replace

from odenet import Network, Scheme
from odenet.networks import table
from odenet.networks.orders import RateOrder
from search_spaces.common import family
from search_spaces.parameters import Choice

# By the name that `model.network` has: what can be built, trained, refined and searched from here on.
NETWORKS = {
    "heun_net": replace(
        table.NETWORKS[Network.continuous],
        rate=RateOrder(("conv", "norm", "relu", "conv", "norm"), bias=True),
        scheme=Scheme.heun,
        source="of my own",
    ),
}

# By the name that `space` has: the optimizer, augmentation and noise that all families search, and two keys more.
SPACES = {
    "heun_net": family("heun_net", {"model.scheme": Choice(("euler", "heun")), "model.nodes": Choice((1, 2))}),
}
