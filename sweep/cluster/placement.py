"""Where Ray may place a trial, and what it is to give it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.cluster.join import obstacles
from sweep.cluster.left_out import LeftOut
from sweep.cluster.resources import fitting

LOOK_SECONDS = 20  # for the nodes to look again while a sweep runs


@dataclass(frozen=True, slots=True)
class Placement:
    """The resources of a trial, as Ray names them, and the nodes that it gets none from. `marker`: of the session's run
    directory, where nodes need to see it."""

    per_trial: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    left_out: LeftOut = field(default_factory=LeftOut)
    autoscaling: bool = False
    marker: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a placement group besides its bundle. Hosts that the user left out may have come."""
        import ray

        if self.left_out.hosts:
            self.left_out.hear(ray.nodes())
        selector = self.left_out.selector()
        return {"bundle_label_selector": [selector]} if selector else {}

    def look_again(self) -> None:
        """Have every node look at the run directory, and leave out those that cannot; Ray says only that one of them
        could not start a worker."""
        for node, reason in obstacles(self.marker, self.left_out, LOOK_SECONDS).items():
            self.left_out.add(node, reason)

    def obstacle(self) -> str:
        """Say why no trial can run any more: every node is left out; empty where one can."""
        if self.autoscaling or not self.left_out.reasons or fitting(self.per_trial, self.left_out):
            return ""
        return f"no node is left that a trial can run on: {self.left_out.text}"
