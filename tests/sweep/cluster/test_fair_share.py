"""Several sweeps on one cluster: who gets how much, for any claims, and how a dead sweep is forgotten."""

import itertools
import json

import pytest

from sweep.cluster import fair_share
from sweep.cluster.fair_share import Claim, Claims, division, slots_of
from tests.grids import for_each


@pytest.fixture
def store(monkeypatch) -> dict[bytes, bytes]:
    """The cluster's key-value store, as Ray's functions on it see it."""
    kept: dict[bytes, bytes] = {}
    place = "ray.experimental.internal_kv._internal_kv_"
    monkeypatch.setattr(f"{place}put", lambda key, value, namespace: kept.update({key.encode(): value.encode()}))
    monkeypatch.setattr(f"{place}get", lambda key, namespace: kept.get(key.encode()))
    monkeypatch.setattr(f"{place}list", lambda prefix, namespace: list(kept))
    monkeypatch.setattr(f"{place}del", lambda key, namespace: kept.pop(key.encode(), None))
    return kept


@pytest.mark.parametrize(
    ("claims", "parts"),
    [
        ([Claim(1.0)], [1.0]),
        ([Claim(1.0), Claim(1.0)], [0.5, 0.5]),
        ([Claim(1.0), Claim(0.1)], [0.9, 0.1]),
        ([Claim(1.0), Claim(0.1), Claim(1.0)], [0.45, 0.1, 0.45]),
        ([Claim(1.0, most=0.25), Claim(1.0)], [0.25, 0.75]),
        ([Claim(1.0, most=0.25)], [1.0]),
        ([Claim(1.0, most=0.25), Claim(0.5)], [0.5, 0.5]),
        ([Claim(1.0, most=0.25), Claim(1.0, most=0.25)], [0.5, 0.5]),
        ([Claim(0.0), Claim(1.0)], [0.0, 1.0]),
    ],
)
def test_a_cluster_is_divided_equally_up_to_what_each_wants_and_its_most_while_others_wait(claims, parts):
    found = division({str(place): claim for place, claim in enumerate(claims)})
    assert list(found.values()) == pytest.approx(parts)


@for_each("slots", [3, 4, 5, 8, 13])
@for_each("wanted", itertools.product([1, 2, 3, 13], repeat=3))
def test_no_slot_is_left_over_or_given_twice_and_nobody_starves(slots, wanted):
    claims = {name: Claim(min(1.0, count / slots)) for name, count in zip("abc", wanted, strict=True)}
    given = [slots_of(name, claims, slots) for name in claims]
    assert sum(given) == min(slots, sum(min(slots, count) for count in wanted))
    assert all(count >= min(most, slots // 3) for count, most in zip(given, wanted, strict=True))


def test_of_more_sweeps_than_slots_each_gets_one():
    claims = dict.fromkeys("abc", Claim(1.0))
    assert [slots_of(name, claims, 2) for name in claims] == [1, 1, 1]


def test_sweeps_read_each_others_claims_until_they_are_withdrawn(store):
    first, second = Claims(), Claims()
    assert first.exchange(Claim(1.0)) == {first.name: Claim(1.0)}
    assert second.exchange(Claim(0.5, 0.3)) == {first.name: Claim(1.0), second.name: Claim(0.5, 0.3)}
    assert first.exchange(Claim(0.7))[second.name] == Claim(0.5, 0.3)
    second.withdraw()
    assert set(first.exchange(Claim(1.0))) == {first.name}


def test_a_sweep_that_writes_no_more_is_forgotten_by_its_beat_not_by_a_clock(store, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(fair_share.time, "monotonic", lambda: now[0])
    first, dead, alive = Claims(), Claims(), Claims()
    dead.exchange(Claim(1.0))
    for _ in range(4):
        alive.exchange(Claim(1.0))
        assert alive.name in first.exchange(Claim(1.0))
        now[0] += fair_share.SILENT_SECONDS / 3
    assert set(first.exchange(Claim(1.0))) == {first.name, alive.name}
    assert {key.decode() for key in store} == {first.name, alive.name}
    assert json.loads(store[first.name.encode()]) == {"beat": 5, "wanted": 1.0, "most": 1.0}


NO_CLAIMS = (
    *(b"", b"?", b"[]", b"{}", b'{"beat": 1, "wanted": null, "most": 1}', b'{"beat": 1, "wanted": NaN, "most": 1}'),
    *(b'{"beat": 1, "wanted": 7, "most": 1}', b'{"beat": 1, "wanted": 1, "most": 0}'),
)


@for_each("written", NO_CLAIMS)
def test_what_is_no_claim_stops_nobody(store, written):
    store[b"stranger"] = written
    own = Claims()
    assert own.exchange(Claim(1.0)) == {own.name: Claim(1.0)}
    own.withdraw()
