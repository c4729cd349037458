"""The nodes of a cluster that get no trials: named by the user, or found to be of no use."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NODE_LABEL = "ray.io/node-id"  # which Ray gives to every node


@dataclass(slots=True)
class LeftOut:
    """The nodes left out, each with the reason; `hosts`: names and addresses of hosts that the user left out."""

    hosts: Sequence[str] = ()
    reasons: dict[str, str] = field(default_factory=dict)  # by Ray's node id
    seen: set[str] = field(default_factory=set)  # names and addresses of all hosts

    def add(self, node: str, reason: str) -> None:
        """Leave a node out. Ray started anew on its host is another node, which is tried again."""
        self.reasons.setdefault(node, reason)

    def hear(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Leave out those of Ray's nodes that are on the user's hosts."""
        for node in nodes:
            names = {node["NodeManagerHostname"], node["NodeManagerAddress"]}
            if names & set(self.hosts):
                self.add(node["NodeID"], f"{host_of(node)}: cluster.leave_out names it")
            self.seen |= names

    def sentences(self) -> Iterator[str]:
        """Say which nodes are left out, and which of the user's hosts are not there."""
        for reason in self.reasons.values():
            yield f"Left out: {reason}. It gets no trials; Ray started anew there is tried again."
        for host in sorted(set(self.hosts) - self.seen):
            yield f"cluster.leave_out={host}: no node is there at present; there are {', '.join(sorted(self.seen))}."

    @property
    def text(self) -> str:
        return "; ".join(sorted(set(self.reasons.values())))

    def selector(self) -> dict[str, str]:
        """Say as one of Ray's label selectors: on any node but these.

        >>> LeftOut(reasons={"a1": "host3: no such directory"}).selector()
        {'ray.io/node-id': '!in(a1)'}
        """
        return {NODE_LABEL: f"!in({','.join(sorted(self.reasons))})"} if self.reasons else {}


def host_of(node: Mapping[str, Any]) -> str:
    """Name the host of one of Ray's nodes."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
