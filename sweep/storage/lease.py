"""Sessions of drivers in storage: one driver at a time works on a sweep, whatever machine it is on.

A session is a folder of numbered objects that one driver alone writes. It begins by creating its first object, which
storage refuses where there is one of the same number. A driver that was thought dead and comes back writes to its own
session, which nobody reads any more, and finds at its next turn that there is another one.
"""

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sweep.errors import InputError
from sweep.storage.objects import ObjectStore, Stored

BEAT_SECONDS = 10.0  # between two manifests
SILENT_SECONDS = 30.0  # after which a driver that did not end its session is taken for dead
POLL_SECONDS = 2.0
SESSIONS = "_sessions"  # no sweep within a study can be called so
_KEY = re.compile(rf"(?P<head>.*/{SESSIONS}/)(?P<number>\d{{6}})/(?P<rest>.+)")
_CLOSED = "-closed.json"


@dataclass(slots=True)
class KnownSession:
    """A session in storage. `seen`: when its driver last wrote, by the clock of the storage."""

    folder: str
    number: int
    manifests: list[str] = field(default_factory=list)  # the oldest first
    keys: list[str] = field(default_factory=list)
    seen: float = 0.0

    @property
    def is_closed(self) -> bool:
        return bool(self.manifests) and self.manifests[-1].endswith(_CLOSED)

    def add(self, found: Stored) -> None:
        self.keys.append(found.key)
        self.seen = max(self.seen, found.modified)
        if found.key.startswith(f"{self.folder}/manifest-"):
            self.manifests.append(found.key)


def session_folder(name: str, number: int) -> str:
    return f"{name}/{SESSIONS}/{number:06d}"


def manifest_key(folder: str, turn: int, closed: bool) -> str:
    return f"{folder}/manifest-{turn:08d}{_CLOSED if closed else '.json'}"


def driver_key(folder: str) -> str:
    return f"{folder}/driver.json"


def sessions_of(store: ObjectStore, name: str) -> list[KnownSession]:
    """List the sessions of a sweep, the oldest first."""
    found: dict[int, KnownSession] = {}
    for one in store.objects(f"{name}/{SESSIONS}/"):
        if parts := _KEY.fullmatch(one.key):
            number = int(parts["number"])
            found.setdefault(number, KnownSession(session_folder(name, number), number)).add(one)
    return [found[number] for number in sorted(found)]


def newest_manifest(sessions: list[KnownSession]) -> str:
    """Return the key of the last manifest that any driver has written; empty where there is none."""
    return next((one.manifests[-1] for one in reversed(sessions) if one.manifests), "")


def driver_of(store: ObjectStore, session: KnownSession) -> dict[str, str]:
    """Read what the driver of a session says of itself; nothing where that is damaged."""
    try:
        content = json.loads(store.get(driver_key(session.folder)))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}


def begin_session(store: ObjectStore, name: str, copy: str, say: Callable[[str], None]) -> str:
    """Begin a session and return its folder; `copy` is the id of the run directory that it mirrors.

    Raises:
        InputError: another driver is at work on this sweep.
    """
    before = sessions_of(store, name)
    if before:
        _wait_until_silent(store, name, before[-1], say)
    folder = session_folder(name, before[-1].number + 1 if before else 1)
    driver = {"copy": copy, "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    if not store.create(driver_key(folder), json.dumps(driver).encode()):
        raise InputError(f"Another driver has begun to work on {name} in {store.address} at this moment.")
    return folder


def _wait_until_silent(store: ObjectStore, name: str, last: KnownSession, say: Callable[[str], None]) -> None:
    """Return when the driver of this session has ended it, or was silent for long enough."""
    if last.is_closed:
        return
    silent = store.now() - last.seen
    driver, wait = driver_of(store, last), SILENT_SECONDS - silent
    if wait > 0:
        say(
            f"The driver of {name} on {driver.get('host', 'another machine')} did not end its session, and was there "
            f"{max(0.0, silent):.0f} s ago: waiting up to {wait:.0f} s for a sign of it."
        )
    end = time.monotonic() + wait
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
        now = sessions_of(store, name)[-1]
        if now.is_closed:
            return
        if (now.number, now.manifests) != (last.number, last.manifests):
            raise InputError(
                f"Another driver is at work on {name} in {store.address}: on {driver.get('host', 'another machine')}, "
                f"since {driver.get('since', 'some time')}. Wait for it, or stop it first."
            )


def is_followed(store: ObjectStore, folder: str) -> bool:
    """Tell whether there is a later session than that of this folder."""
    head = folder.rpartition("/")[0]
    return bool(store.objects(f"{head}/", after=f"{folder}/~"))
