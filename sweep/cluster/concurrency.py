"""How many trials of a sweep run at once: what was asked for, else what fits a cluster whose nodes come and go, and of
that a fair part where other sweeps are on it."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from sweep.cluster.fair_share import Claim, Claims, slots_of
from sweep.cluster.placement import Placement
from sweep.cluster.resources import slots
from sweep.config.schema import AppConfig, ClusterKind

REFRESH_SECONDS = 2.0
FEWEST_AHEAD = 8  # trials that wait for nodes which an autoscaler is to add; as many as run, if those are more
GROWTH_SECONDS = 900.0  # for a node to come; later only one trial waits, because the cluster is as large as it gets


class Concurrency:
    """The number of trials of this driver that may run at once.

    On a machine of one's own it is fixed. On a joined cluster the nodes and the claims of other sweeps are looked at
    every two seconds.
    """

    def __init__(self, config: AppConfig, placement: Placement, say: Callable[[str], None]) -> None:
        self._cluster, self._asked = config.cluster, config.search.concurrency
        self._placement, self._say = placement, say
        self._claims = Claims() if self._cluster.kind is ClusterKind.address else None
        self._slots, self._grew = self._present(), time.monotonic()
        self._sweeps = 1  # on this cluster
        self._part = self._slots  # of these slots, where others are here, too
        self._looked = -REFRESH_SECONDS

    def __enter__(self) -> "Concurrency":
        return self

    def __exit__(self, *_: object) -> None:
        if self._claims is not None:
            self._claims.withdraw()

    @property
    def shared(self) -> bool:
        """Tell whether other sweeps are at work on the cluster."""
        return self._sweeps > 1

    def limit(self) -> int:
        """Return how many trials may be under way, those included that wait for a node to come."""
        if self._asked is not None and not self.shared:
            return self._asked
        most = (self._part if self.shared else self._slots) + (self._ahead() if self._cluster.autoscaling else 0)
        return most if self._asked is None else min(self._asked, most)

    def _ahead(self) -> int:
        may_grow = time.monotonic() - self._grew < GROWTH_SECONDS and not self.shared
        return max(FEWEST_AHEAD, self._slots) if may_grow else 1

    def look(self, live: int, wants_more: bool) -> None:
        """Count nodes and hear the other sweeps, if that was a while ago. `live`: trials under way; `wants_more` False:
        there are no more to begin, so that the rest is for others."""
        if self._claims is None or time.monotonic() - self._looked < REFRESH_SECONDS:
            return
        from ray.exceptions import RayError

        with suppress(RayError):  # the head is away for a moment; if it is lost, Ray says so
            self._count()
            wanted = (self._asked or self._slots) if wants_more else live
            claim = Claim(min(1.0, wanted / self._slots), self._cluster.share or 1.0)
            self._divide(self._claims.name, self._claims.exchange(claim))
        self._looked = time.monotonic()

    def _present(self) -> int:
        return slots(self._placement.per_trial, self._placement.left_out)

    def _count(self) -> None:
        now = self._present()
        if now > self._slots:
            self._grew = time.monotonic()
        if now != self._slots:
            self._say(f"nodes have {'come' if now > self._slots else 'gone'}: room for {now} trials at once")
        self._slots = now

    def _divide(self, own: str, claims: Mapping[str, Claim]) -> None:
        sweeps, self._sweeps = self._sweeps, len(claims)
        self._part = slots_of(own, claims, self._slots)
        if self._sweeps > sweeps:
            self._say(f"{self._sweeps} sweeps are on this cluster: {self._part} of {self._slots} trials at once here")
        elif self._sweeps < sweeps and not self.shared:
            self._say("no other sweep is on this cluster any more")
