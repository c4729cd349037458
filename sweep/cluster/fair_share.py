"""Several sweeps on one cluster: what part of it each may take, agreed upon without anybody who decides.

Every driver writes into the cluster's own key-value store what it wants, reads what the others want, and computes the
same division. Clocks are not compared: a driver that has stopped writing is forgotten.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

NAMESPACE = b"sweep.claims"
SILENT_SECONDS = 30.0  # after which a driver that writes nothing is taken for dead


@dataclass(frozen=True, slots=True)
class Claim:
    """The part of a cluster that a sweep wants, and the most that it takes while others wait."""

    wanted: float
    most: float = 1.0


def division(claims: Mapping[str, Claim]) -> dict[str, float]:
    """Divide a cluster: equal parts, but none above what is wanted, or while others wait above its most. What is then
    left goes to those who want more than their most."""
    given = _filled({name: min(claim.wanted, claim.most) for name, claim in claims.items()}, 1.0)
    left = 1.0 - sum(given.values())
    more = _filled({name: claim.wanted - given[name] for name, claim in claims.items()}, left)
    return {name: given[name] + more[name] for name in claims}


def _filled(wanted: Mapping[str, float], left: float) -> dict[str, float]:
    """Divide max-min fairly: who wants little gets it, the others get equal parts of the rest."""
    given = {}
    for place, name in enumerate(sorted(wanted, key=lambda name: (wanted[name], name))):
        given[name] = min(wanted[name], max(0.0, left) / (len(wanted) - place))
        left -= given[name]
    return given


def slots_of(name: str, claims: Mapping[str, Claim], slots: int) -> int:
    """Return the sweep's part in whole slots, at least 1. Where all sweeps count the same slots, none is left over."""
    before, parts = 0.0, division(claims)
    for other in sorted(claims):
        if other == name:
            break
        before += parts[other]
    return max(1, _floor((before + parts[name]) * slots) - _floor(before * slots))


def _floor(slots: float) -> int:
    return int(slots + 1e-6)  # thirds do not add up to one


class Claims:
    """The claims of all sweeps on the cluster that this process is connected to."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self._beat = 0
        self._heard: dict[str, tuple[int, float]] = {}  # by name: the last beat, and when it was new

    def exchange(self, own: Claim) -> dict[str, Claim]:
        """Write the own claim, and return all of sweeps that are alive, the own one among them."""
        from ray.experimental.internal_kv import _internal_kv_put

        self._beat += 1
        _internal_kv_put(self.name, json.dumps({"beat": self._beat, **asdict(own)}), namespace=NAMESPACE)
        return {self.name: own} | dict(self._others())

    def _others(self) -> Iterator[tuple[str, Claim]]:
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list

        for name in sorted(key.decode() for key in _internal_kv_list("", namespace=NAMESPACE)):
            read = _read(_internal_kv_get(name, namespace=NAMESPACE)) if name != self.name else None
            if read is None:
                continue
            (beat, claim), now = read, time.monotonic()
            if self._heard.get(name, (None, 0.0))[0] != beat:
                self._heard[name] = beat, now
            if now - self._heard[name][1] < SILENT_SECONDS:
                yield name, claim
            else:
                _internal_kv_del(name, namespace=NAMESPACE)

    def withdraw(self) -> None:
        """Take the own claim back, so that the others need not wait until it is old."""
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_del

        with suppress(RayError, ConnectionError):  # a cluster that is gone has no claims
            _internal_kv_del(self.name, namespace=NAMESPACE)


def _read(written: bytes | None) -> tuple[int, Claim] | None:
    """Read another sweep's beat and claim; None where it is gone, or of a version that writes something else."""
    try:
        entry = json.loads(written or b"")
        beat, claim = int(entry["beat"]), Claim(float(entry["wanted"]), float(entry["most"]))
    except (ValueError, TypeError, KeyError):
        return None
    return (beat, claim) if 0 <= claim.wanted <= 1 and 0 < claim.most <= 1 else None
