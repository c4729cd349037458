"""Mirror a run directory while a stage is at work on it, beside the driver's loop and never in it."""

import _thread
import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.config.places import is_bucket
from sweep.errors import InputError, StorageError, WorkError
from sweep.records.files import read_bytes
from sweep.storage.lease import BEAT_SECONDS, begin_session, driver_of, newest_manifest, sessions_of
from sweep.storage.mirror import RECORD, Followed, Mirror
from sweep.storage.objects import ObjectStore, Refused, Unreachable
from sweep.storage.opening import open_store

END_SECONDS = 60.0  # that the end of a session waits for storage
NOT_NOW = (Unreachable, Refused, StorageError, OSError)  # one turn failed; the next may not


def store_at(address: str) -> ObjectStore:
    """Open storage. InputError: its directory is not there, or its configuration cannot be."""
    if not is_bucket(address) and not Path(address).is_dir():
        raise InputError(f"runtime.storage={address}: there is no such directory on this machine; mount or make it.")
    try:
        return open_store(address)
    except Refused as error:
        raise InputError(f"runtime.storage={address}: {error.strerror}.") from error


@contextmanager
def answering(address: str) -> Iterator[ObjectStore]:
    """Ask storage inside the block. InputError: it does not answer, or refuses what is asked."""
    store = store_at(address)
    try:
        yield store
    except (Unreachable, Refused) as error:
        raise InputError(
            f"runtime.storage={address}: {error.strerror}. Nothing was started; bucket, credentials and endpoint are "
            "said by the address, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile), and AWS_ENDPOINT_URL."
        ) from error


def check_usable(address: str | None) -> None:
    """Write, list, read and delete an object. InputError: storage does not answer, or refuses one of these."""
    if address is None:
        return
    with answering(address) as store:
        key = f"_check/{uuid.uuid4().hex}"
        store.put(key, b"")
        for found in store.objects(key):
            store.get(found.key)
        store.delete([key])


def check_absent(address: str | None, name: str) -> None:
    """Raise InputError where storage has a sweep of this name already."""
    if address is None:
        return
    with answering(address) as store:
        if any(session.manifests for session in sessions_of(store, name)):
            raise InputError(
                f"{address} has a sweep {name} already: choose another name, or go on with it by `sweep resume {name} "
                f"runtime.storage={address}`."
            )


def forget(address: str | None, directory: Path) -> None:
    """Remove from storage what a run directory has there that nothing could be started in."""
    if address is not None:
        with suppress(InputError, *NOT_NOW):
            store, copy = open_store(address), _recorded(directory)["copy"]
            for session in sessions_of(store, directory.name):
                if driver_of(store, session).get("copy") == copy:
                    store.delete(session.keys)


@contextmanager
def mirrored(address: str | None, directory: Path, say: Callable[[str], None]) -> Iterator[Mirror | None]:
    """Mirror a run directory inside the block, once before it begins; None without storage.

    Raises:
        InputError: storage does not answer, or what it has is not this directory's; another driver is at work there.
        WorkError: at the end, not all could be brought to storage, or another driver has taken over.
    """
    recorded = _recorded(directory)
    _check_same(address, recorded.get("storage"), directory)
    if address is None:
        yield None
        return
    with answering(address) as store:
        _check_current(store, directory.name, recorded)
        mirror = Mirror(store, begin_session(store, directory.name, recorded["copy"], say), directory)
        try:
            mirror.turn()
        except Followed as error:
            raise InputError(f"Another driver has begun to work on {directory.name} at this moment.") from error
    thread = _Mirroring(mirror, address, say)
    thread.start()
    try:
        yield mirror
    except BaseException:
        with suppress(WorkError):  # what went wrong inside is to be said, not what follows from it
            thread.end()
        if thread.followed:
            raise WorkError(thread.followed) from None
        raise
    else:
        thread.end()


def _recorded(directory: Path) -> dict[str, str]:
    """Read storage.json; nothing where there is none. InputError: it is damaged."""
    file = directory / RECORD
    try:
        content = json.loads(read_bytes(file)) if file.exists() else {}
        return {key: str(content[key]) for key in ("storage", "copy", "manifest")} if content else {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{file} is damaged: {error!r}. Move {directory} away: `sweep resume` builds it again from storage."
        ) from error


def _check_same(address: str | None, recorded: str | None, directory: Path) -> None:
    if address == recorded:
        return
    if recorded is None:
        raise InputError(
            f"runtime.storage={address}: {directory.name} began without storage, and its checkpoints are in "
            f"{directory}. Storage is chosen when a sweep begins."
        )
    raise InputError(
        f"runtime.storage={'null' if address is None else address}: {directory.name} keeps its checkpoints in "
        f"{recorded}. To move it, copy all objects there, move {directory} away, and resume from the new address."
    )


def _check_current(store: ObjectStore, name: str, recorded: dict[str, str]) -> None:
    """Raise InputError where another machine went on with the sweep since this run directory was written."""
    sessions = sessions_of(store, name)
    driver = driver_of(store, sessions[-1]) if sessions else {}
    is_ours = driver.get("copy", recorded["copy"]) == recorded["copy"]
    if not is_ours and newest_manifest(sessions) != recorded["manifest"]:
        raise InputError(
            f"{name} went on in {store.address} on {driver.get('host', 'another machine')} since "
            f"{driver.get('since', 'then')}, and what is here is older. Move the directory away: `sweep resume {name} "
            f"runtime.storage={store.address}` builds it again as it is there."
        )


class _Mirroring(threading.Thread):
    """A thread that brings to storage what has changed, and says when it cannot and when it can again."""

    def __init__(self, mirror: Mirror, address: str, say: Callable[[str], None]) -> None:
        super().__init__(name="mirror", daemon=True)
        self._mirror, self._address, self._say = mirror, address, say
        self._over = threading.Event()
        self._whole = time.strftime("%H:%M:%S")  # when all was there
        self._why = ""  # why it is not now
        self.followed = ""

    def run(self) -> None:
        while not self._over.wait(BEAT_SECONDS) and not self.followed:
            self._turn()

    def end(self) -> None:
        """End the session in storage. WorkError: it cannot be, or another driver has taken over."""
        self._over.set()
        self.join()
        end = time.monotonic() + END_SECONDS
        while not self.followed and not self._turn(closed=True):
            if time.monotonic() > end:
                raise WorkError(
                    f"{self._address} did not take what was written since {self._whole}: {self._why}. All of it is "
                    "kept in the run directory; `sweep resume`, or the same command, brings it there."
                )
            self._over.wait(1.0)
            time.sleep(1.0)
        if self.followed:
            raise WorkError(self.followed)

    def _turn(self, closed: bool = False) -> bool:
        """Tell whether all that is on disk is in storage now."""
        began = time.strftime("%H:%M:%S")
        try:
            self._mirror.turn(closed)
        except Followed:
            self.followed = (
                f"Another driver went on with this sweep in {self._address}, since this one had been silent there; "
                f"what this one wrote after {self._whole} is in its run directory only."
            )
            _thread.interrupt_main(signal.SIGTERM)  # as a stop that is asked for: running trials end their epoch
            return False
        except NOT_NOW as error:
            if not self._why:
                self._say(f"Not mirrored since {self._whole}: {_text(error)}. The sweep goes on, and tries again.")
            self._why = _text(error)
            return False
        if self._why:
            self._say(f"{self._address} takes what is written again: all of it is there.")
        self._whole, self._why = began, ""
        return True


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
