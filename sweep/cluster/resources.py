"""Count the CPUs and GPUs of a cluster's nodes, and those that one trial takes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sweep.cluster.left_out import LeftOut
from sweep.config.schema import AUTO, SHARE_UNITS, Resources
from sweep.errors import InputError

NOBODY = LeftOut()


class Node(NamedTuple):
    """A node that is alive."""

    id: str
    ip: str
    cpus: int
    gpus: int

    def fits(self, cpus: float, gpus: float) -> int:
        """Count the trials that fit. A share lies within one GPU: of 0.4 two fit on each, so four on two."""
        by_cpus = int(self.cpus // cpus)
        if gpus == 0:
            return by_cpus
        if gpus < 1:
            return min(by_cpus, self.gpus * (SHARE_UNITS // round(gpus * SHARE_UNITS)))
        return min(by_cpus, int(self.gpus // gpus))


def _nodes(left_out: LeftOut) -> list[Node]:
    """List the nodes that are alive and not left out."""
    import ray

    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in left_out.reasons
    ]


def trial_resources(
    resources: Resources,
    autoscaling: bool = False,
    on_a_gpu: Callable[[], int] = lambda: 1,
    left_out: LeftOut = NOBODY,
) -> dict[str, float]:
    """Name one trial's resources as Ray's placement groups do: {"CPU": 1.0, "GPU": 0.5}; no GPU, no key.

    Args:
        autoscaling: of ClusterConfig: nodes may still come, so nothing is refused for being larger than those present,
            but whether trials get GPUs must be said.
        on_a_gpu: measures how many trials share a GPU, where gpus=auto and there is one.
        left_out: nodes that are not counted.

    Raises:
        InputError: no node can ever meet it; the message says what the cluster has.
    """
    nodes = _nodes(left_out)
    gpus = resources.gpus
    if gpus is None or isinstance(gpus, str):
        if autoscaling and not any(node.gpus for node in nodes):
            raise InputError(
                "No node has a GPU now, but cluster.autoscaling=true: say runtime.resources.gpus=1, a share, or 0."
            )
        gpus = _share(resources, nodes, on_a_gpu)
    if not autoscaling and not any(node.fits(resources.cpus, gpus) for node in nodes):
        raise InputError(
            f"A trial asks for {resources.cpus} CPUs and {gpus:g} GPUs on one node; the cluster has {_offer(nodes)}. "
            "Lower runtime.resources.cpus or runtime.resources.gpus; if nodes can still come, cluster.autoscaling=true."
        )
    return {"CPU": float(resources.cpus)} | ({"GPU": float(gpus)} if gpus else {})


def _share(resources: Resources, nodes: list[Node], on_a_gpu: Callable[[], int]) -> float:
    """Return the GPUs of a trial where none were said: none where there are none."""
    if not any(node.gpus for node in nodes):
        return 0.0
    return SHARE_UNITS // on_a_gpu() / SHARE_UNITS if resources.gpus == AUTO else 1.0


def _offer(nodes: list[Node]) -> str:
    kinds = Counter((node.cpus, node.gpus) for node in nodes)
    listed = ", ".join(f"{n} x ({cpus} CPUs, {gpus} GPUs)" for (cpus, gpus), n in sorted(kinds.items()))
    return f"{listed}, in all {sum(node.cpus for node in nodes)} CPUs and {sum(node.gpus for node in nodes)} GPUs"


def slots(per_trial: Mapping[str, float], left_out: LeftOut = NOBODY) -> int:
    """Count the trials that fit at once on the nodes present, at least 1; other users' work is not considered."""
    return max(1, fitting(per_trial, left_out))


def fitting(per_trial: Mapping[str, float], left_out: LeftOut) -> int:
    """Count the trials that fit at once, if any."""
    return sum(node.fits(per_trial["CPU"], per_trial.get("GPU", 0.0)) for node in _nodes(left_out))
