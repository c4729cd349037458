"""How many trials run at once while nodes and other sweeps come and go."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RpcError

from sweep.cluster import concurrency as module
from sweep.cluster.concurrency import Concurrency
from sweep.cluster.fair_share import Claim
from sweep.cluster.placement import Placement
from sweep.config.schema import AppConfig, ClusterConfig, ClusterKind


class Cluster:
    """So many nodes of four CPUs, other sweeps' claims, and a clock that steps at every look."""

    def __init__(self, monkeypatch, nodes: int) -> None:
        self.nodes, self.others, self.now, self.heard = nodes, dict[str, Claim](), 0.0, list[Claim]()
        self.away = False
        monkeypatch.setattr("ray.nodes", self._listed)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module, "Claims", lambda: self)

    name = "own"

    def _listed(self) -> list[dict[str, Any]]:
        if self.away:
            raise RpcError("the head is away")
        return [
            {"NodeID": str(n), "NodeManagerAddress": "::1", "Resources": {"CPU": 4.0}, "Alive": True}
            for n in range(self.nodes)
        ]

    def exchange(self, own: Claim) -> dict[str, Claim]:
        self.heard.append(own)
        return {"own": own, **self.others}

    def withdraw(self) -> None:
        self.others["withdrawn"] = Claim(0.0)

    def limit(self, one: Concurrency, live: int = 0, wants_more: bool = True, seconds: float = 2.0) -> int:
        self.now += seconds
        one.look(live, wants_more)
        return one.limit()


def concurrency(said: list[str], asked: int | None = None, **cluster: Any) -> Concurrency:
    options = {"kind": ClusterKind.address, "address": "auto", **cluster}
    config = AppConfig(cluster=ClusterConfig(**options))
    config = replace(config, search=replace(config.search, concurrency=asked))
    return Concurrency(config, Placement(), said.append)


def test_concurrency_follows_the_nodes_that_come_and_go(monkeypatch):
    cluster, said = Cluster(monkeypatch, nodes=1), list[str]()
    one = concurrency(said)
    found = []
    for cluster.nodes in (1, 3, 1):
        found.append(cluster.limit(one))
    assert found == [4, 12, 4]
    assert said == ["nodes have come: room for 12 trials at once", "nodes have gone: room for 4 trials at once"]
    cluster.nodes = 2
    assert cluster.limit(one, seconds=0.5) == 4, "looked at every two seconds"


def test_a_number_that_was_asked_for_stays(monkeypatch):
    cluster = Cluster(monkeypatch, nodes=1)
    one = concurrency([], asked=7, autoscaling=True)
    for cluster.nodes in (1, 4):
        assert cluster.limit(one) == 7


def test_an_autoscaler_sees_trials_that_wait_as_many_as_run_until_no_node_comes_any_more(monkeypatch):
    cluster = Cluster(monkeypatch, nodes=0)
    one = concurrency([], autoscaling=True)
    assert cluster.limit(one) == 1 + module.FEWEST_AHEAD
    cluster.nodes = 4
    assert cluster.limit(one) == 16 + 16
    assert cluster.limit(one, seconds=module.GROWTH_SECONDS) == 16 + 1
    cluster.nodes = 5
    assert cluster.limit(one) == 20 + 20


def test_a_sweep_keeps_to_its_part_while_others_wait_and_takes_what_they_do_not_want(monkeypatch):
    cluster, said = Cluster(monkeypatch, nodes=2), list[str]()
    one = concurrency(said, share=0.25)
    found = []
    for cluster.others in ({}, {"zzz": Claim(1.0)}, {"zzz": Claim(0.25)}, {}):
        found.append(cluster.limit(one, live=8))
    assert found == [8, 2, 6, 8]
    assert said == [
        "2 sweeps are on this cluster: 2 of 8 trials at once here",
        "no other sweep is on this cluster any more",
    ]
    assert cluster.heard[-1] == Claim(1.0, 0.25)
    cluster.limit(one, live=3, wants_more=False)
    assert cluster.heard[-1] == Claim(3 / 8, 0.25)
    with one:
        pass
    assert "withdrawn" in cluster.others


def test_a_number_asked_for_is_no_claim_to_more_than_a_part(monkeypatch):
    cluster = Cluster(monkeypatch, nodes=2)
    cluster.others = {"zzz": Claim(1.0)}
    assert cluster.limit(concurrency([], asked=6)) == 4
    assert cluster.limit(concurrency([], asked=3)) == 3
    assert cluster.heard[-1] == Claim(3 / 8)


def test_while_the_head_does_not_answer_the_last_number_holds(monkeypatch):
    cluster = Cluster(monkeypatch, nodes=2)
    one = concurrency([])
    cluster.away = True
    assert cluster.limit(one) == 8


def test_on_a_machine_of_ones_own_nothing_is_looked_at(monkeypatch):
    cluster = Cluster(monkeypatch, nodes=1)
    one = concurrency([], kind=ClusterKind.local, address=None)
    cluster.nodes = 3
    with one:
        assert cluster.limit(one) == 4
    assert not one.shared
    assert cluster.heard == []
    assert cluster.others == {}


@pytest.mark.parametrize(("kind", "epochs"), [(ClusterKind.local, 5), (ClusterKind.address, 1)])
def test_a_node_that_goes_costs_at_most_one_epoch(kind, epochs):
    address = "auto" if kind is ClusterKind.address else None
    config = AppConfig(cluster=ClusterConfig(kind=kind, address=address))
    assert config.checkpoint_every == epochs
    assert replace(config, search=replace(config.search, checkpoint_every=3)).checkpoint_every == 3
