"""What a delivery remembers: how far it got, what MLflow refused, since when the store is away. All of it is kept in
files beside the outbox, and can be lost: MLflow itself has what was delivered.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweep.records.files import append_line, open_regular, read_bytes, write_text
from sweep.tracking.lines import OUTBOX, Line, lines_from, parse_line

DELIVERED = "delivered.json"
SET_ASIDE = "set_aside.jsonl"  # lines that MLflow refused, and why
AWAY = "away.json"  # since when the store does not answer, and why
CHECKSUM = ', "checksum": '  # of all that stands before it; files of version 0.1.0 have none
LATEST_TIME = 1e11  # seconds since 1970 that can be shown as a date


class LostStateError(Exception):
    """delivered.json cannot be relied on: the message says why. `runs` are those that it names all the same."""

    def __init__(self, message: str, runs: dict[str, str]) -> None:
        super().__init__(message)
        self.runs = runs


@dataclass(slots=True, kw_only=True)
class DeliveryState:
    """The content of delivered.json."""

    offset: int = 0  # bytes of the outbox that are delivered
    last: tuple[int, int] = (0, 0)  # length and CRC-32 of the line before: an outbox that was cut and grew has another
    runs: dict[str, str] = field(default_factory=dict)  # MLflow's run ids by the outbox's keys
    closed: list[str] = field(default_factory=list)  # tokens of trackers
    doubtful: bool = False  # the next line may have been delivered by a process that was killed before it could say so
    recalled: bool = False  # it was lost once: MLflow may know more than the outbox

    def advance(self, text: bytes) -> None:
        """Count a line as delivered."""
        self.offset += len(text)
        self.last, self.doubtful = (len(text), zlib.crc32(text)), False

    def write(self, directory: Path) -> None:
        body = json.dumps(asdict(self))
        write_text(directory / DELIVERED, f"{body[:-1]}{CHECKSUM}{zlib.crc32(body.encode())}}}")


def read_state(directory: Path) -> DeliveryState:
    """Read how far the delivery is. LostStateError: nothing says so, or not of this outbox."""
    runs: dict[str, str] = {}
    try:
        body, _, checksum = read_bytes(directory / DELIVERED).decode().partition(CHECKSUM)
        if checksum and checksum != f"{zlib.crc32(f'{body}}}'.encode())}}}":
            raise ValueError("it does not match its checksum")
        state = DeliveryState(**json.loads(body + "}" if checksum else body))
        if not (type(state.offset) is int and state.offset >= 0 and _are_texts(state)):
            raise TypeError("its values are of other types")
        runs = state.runs
        _check(directory / OUTBOX, state.offset, *state.last)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LostStateError(f"{directory / DELIVERED} cannot be relied on ({error})", runs) from error
    return state


def runs_delivered(directory: Path) -> set[str]:
    """Return the ids of the runs that the delivery knows."""
    try:
        return set(read_state(directory).runs.values())
    except LostStateError as lost:
        return set(lost.runs.values())


def _are_texts(state: DeliveryState) -> bool:
    return all(isinstance(text, str) for text in (*state.runs, *state.runs.values(), *state.closed))


def _check(outbox: Path, offset: int, length: int, checksum: int) -> None:
    """Raise ValueError unless the outbox has, right before `offset`, the line that was delivered last."""
    if not offset:
        return
    with open_regular(outbox) as file:
        file.seek(max(0, offset - max(1, length)))  # an old file tells no length
        line = file.read(offset - file.tell())
    if not line.endswith(b"\n") or (length and (len(line), zlib.crc32(line)) != (length, checksum)):
        raise ValueError(f"the outbox is another, or shorter than the {offset} bytes that were delivered")


@dataclass(frozen=True, slots=True)
class SetAside:
    """A line of the outbox, as it stands there, and why it could not be delivered."""

    text: bytes
    reason: str


def read_set_aside(directory: Path) -> list[SetAside]:
    """Read what was set aside, in the outbox's order. InputError: the file cannot be read at all."""
    return [_parsed(text) for text in lines_from(directory / SET_ASIDE, 0)]


def _parsed(text: bytes) -> SetAside:
    try:
        content = json.loads(text)
        return SetAside(content["line"].encode(errors="surrogateescape"), str(content["reason"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return SetAside(text, f"this line of {SET_ASIDE} is damaged")


def set_aside(directory: Path, one: SetAside) -> None:
    """Keep a line that cannot be delivered, for `sweep deliver`."""
    if one.text not in {other.text for other in read_set_aside(directory)}:
        append_line(directory / SET_ASIDE, _line(one))


def keep_aside(directory: Path, left: list[SetAside]) -> None:
    """Write what is still set aside."""
    if left:
        write_text(directory / SET_ASIDE, "".join(map(_line, left)))
    else:
        (directory / SET_ASIDE).unlink(missing_ok=True)


def _line(one: SetAside) -> str:
    return json.dumps({"reason": one.reason, "line": one.text.decode(errors="surrogateescape")}) + "\n"


def aside_sentence(directory: Path) -> str:
    """Say how many lines were set aside, and what to do; empty where there are none. InputError: as
    `read_set_aside`."""
    found = read_set_aside(directory)
    if not found:
        return ""
    return (
        f"Lines that could not be delivered to MLflow: {len(found)}, kept in {directory / SET_ASIDE} (the first: "
        f"{found[0].reason}); `sweep deliver {directory.name}` tries them again."
    )


@dataclass(frozen=True, slots=True)
class Lag:
    """The part of the outbox that MLflow was not told yet."""

    lines: int
    keys: frozenset[str]  # of the runs that they are about
    away_since: float | None = None  # seconds since 1970; None: the store answers, or was not asked
    reason: str = ""
    doubt: str = ""  # why nobody knows how far the delivery is; then all lines count


def lag(directory: Path) -> Lag:
    """Find how far the delivery of this directory's outbox is behind, from files alone.

    Raises:
        InputError: the outbox cannot be read at all. Damaged lines in it count, too.
    """
    doubt = ""
    try:
        offset = read_state(directory).offset
    except LostStateError as lost:
        offset, doubt = 0, str(lost) if (directory / DELIVERED).exists() else ""
    waiting = [_parsed_or_empty(text) for text in lines_from(directory / OUTBOX, offset)]
    told = [line["key"] for line in waiting if line.get("op") not in {"close", "retry"}]
    return Lag(len(told), frozenset(told) - {""}, *read_away(directory), doubt if told else "")


def _parsed_or_empty(text: bytes) -> Line:
    try:
        return parse_line(text)
    except ValueError:
        return {"key": ""}


def read_away(directory: Path) -> tuple[float | None, str]:
    """Read since when the store does not answer, in seconds since 1970, and why; None and "" where it does."""
    try:
        content: dict[str, Any] = json.loads(read_bytes(directory / AWAY))
        since, reason = float(content["away_since"]), str(content["reason"])
        return (since if 0 <= since < LATEST_TIME else None), reason
    except FileNotFoundError:  # as it is most of the time
        return None, ""
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        return None, f"{directory / AWAY} cannot be read ({error})"


def write_away(directory: Path, since: float, reason: str) -> None:
    write_text(directory / AWAY, json.dumps({"away_since": since, "reason": reason}))
