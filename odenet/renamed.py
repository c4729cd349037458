"""The names that modules had before they moved into folders, for the networks that were pickled under them.

MLflow's registry keeps a whole network as a pickle, which names each class by its module. A module of a former name is
made when it is asked for and holds what stands in the new ones; nothing in this project imports by a former name.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Where the classes are now that a network has had of a module. `odenet.networks`, a folder now, looks after its own.
FORMER = {
    "odenet.batch_norm": ("odenet.networks.batch_norm",),
    "odenet.blocks": (
        *("odenet.networks.blocks", "odenet.networks.heads"),
        *("odenet.networks.orders", "odenet.networks.widths", "odenet.depth.discretisation"),
    ),
    "odenet.convolutions": ("odenet.networks.convolutions",),
    "odenet.gradients": ("odenet.integrators.gradients",),
    "odenet.heads": ("odenet.networks.heads",),
    "odenet.layers": ("odenet.networks.layers", "odenet.networks.widths"),
    "odenet.model_config": ("odenet.networks.model_config",),
    "odenet.models": ("odenet.networks.model", "odenet.networks.model_config"),
    "odenet.norms": ("odenet.networks.norms",),
    "odenet.rates": ("odenet.networks.rates", "odenet.networks.orders"),
    "odenet.stepping": ("odenet.integrators.scheme",),
    "odenet.terms": ("odenet.enums",),
}


class FormerNames(MetaPathFinder, Loader):
    """Find modules by their former names, ahead of a finder that would look in another copy of the package."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in FORMER else None

    def exec_module(self, module: ModuleType) -> None:
        for name in FORMER[module.__name__]:
            held = vars(import_module(name))
            vars(module).update({key: value for key, value in held.items() if not key.startswith("__")})
