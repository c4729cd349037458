"""protocol.yaml: what a study is going to do, fixed and hashed before its first trial; and deviations.jsonl, to which
every departure from it that is allowed is appended.

The settings that all sweeps of a study share stand in `settings`, what differs between them in `members`. How and where
a study runs (`FREE`) is no part of it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from sweep.config.overrides import flat
from sweep.errors import InputError
from sweep.records.files import append_record, read_records
from sweep.records.run_directory import DEVIATIONS, PROTOCOL, STUDY

SCHEMA = 1
# Keys of a configuration that say how and where a study runs, or that a protocol holds in another form (space, study).
FREE = (
    "runtime.", "cluster.", "tracking.", "replay.", "export.", "sensitivity.", "modules", "space.", "study.",
    "data.path", "search.more", "search.concurrency", "search.retries", "search.checkpoint_every",
    "search.accept_changes", "search.budget.gpu_hour_price",
)  # fmt: skip
OF_ARMS = ("study.arm", "study.gflops", "study.parameters")  # what of `study.` decides how a member trains
RECORDED = ("when", "sweep", "what", "protocol")  # of every deviation
LATER = ("evaluate.", "search.timeout_minutes")  # may change after the beginning; it is recorded


@dataclass(frozen=True, slots=True)
class Protocol:
    """The protocol of the study in `directory`. `terms`: what holds for the study as a whole, such as its draws and the
    rules of its decisions; `extended`: numbers of trials that `sweep extend` has set since."""

    directory: Path
    hash: str
    created: str
    terms: dict[str, Any]
    settings: dict[str, Any]
    members: dict[str, dict[str, Any]]
    extended: tuple[int, ...] = ()

    @property
    def trials(self) -> int:
        """Return the number of trials that each search has by now."""
        return max((int(self.settings["search.trials"]), *self.extended))

    def asked_of(self, member: str) -> dict[str, Any]:
        """Return what a member's configuration must have. InputError: the study has no such member."""
        if member not in self.members:
            raise InputError(
                f"{member} is no sweep of {self.directory.name}, whose protocol has {', '.join(self.members)}."
            )
        return {**self.settings, **self.members[member]}


def frozen_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a protocol fixes of a configuration in plain form."""
    kept = {key: value for key, value in flat(dict(plain)).items() if not key.startswith(FREE) or key in OF_ARMS}
    return {key: [_named(one) for one in value] if isinstance(value, list) else value for key, value in kept.items()}


def _named(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def hash_of(content: Any) -> str:
    """Return 16 hex digits that two plain values share if they are equal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def protocol_text(terms: Mapping[str, Any], members: Mapping[str, Mapping[str, Any]]) -> str:
    """Write a protocol. `members`: all settings of each, with `family`, `space` and `data`, the last two as hashes."""
    first = next(iter(members.values()))
    same = {key for key in first if all(one.get(key) == first[key] for one in members.values())}
    content = {
        "terms": dict(terms),
        "settings": {key: first[key] for key in sorted(same)},
        "members": {name: {key: one[key] for key in one if key not in same} for name, one in members.items()},
    }
    created = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"schema": SCHEMA, "hash": hash_of(content), "created": created, "protocol": content}
    head = "# Fixed before the first trial; a change of this file is refused.\n"
    return head + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def read_protocol(directory: Path) -> Protocol | None:
    """Read the protocol of a study; None in a directory of a version that wrote none, or of no study.

    Raises:
        InputError: it cannot be read, or it was changed since it was written; or the study has lost it.
    """
    path = directory / PROTOCOL
    if not path.exists():
        _check_had_none(directory)
        return None
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("a mapping is needed")
        content, frozen, created = document["protocol"], str(document["hash"]), str(document["created"])
        terms, settings, members = (dict(content[key]) for key in ("terms", "settings", "members"))
        found = hash_of(content)
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} has schema {document.get('schema')!r}; this version reads schema {SCHEMA}.")
    if found != frozen:
        raise InputError(
            f"{path} was changed after the study began: its content has the hash {found}, and it was frozen with "
            f"{frozen}. Put it back; another protocol is another study."
        )
    recorded = deviations(directory)
    foreign = next((one["protocol"] for one in recorded if one["protocol"] != frozen), None)
    if foreign is not None:
        raise InputError(
            f"{directory / DEVIATIONS} is of the protocol {foreign}, and {path} is {frozen}: put both back."
        )
    longer = tuple(int(one["trials"]) for one in recorded if "trials" in one)
    return Protocol(directory, frozen, created, terms, settings, members, longer)


def _check_had_none(directory: Path) -> None:
    """Raise InputError where a study of a version that writes protocols has none."""
    try:
        begun = yaml.safe_load((directory / STUDY).read_text(encoding="utf-8")) if (directory / STUDY).exists() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return  # whoever reads study.yaml says what is wrong with it
    study = begun.get("study") if isinstance(begun, dict) else None
    if isinstance(study, dict) and "arm" in study:
        raise InputError(
            f"{directory / PROTOCOL} is missing: the rules of {directory.name} are not fixed, so nothing of it can be "
            "searched, retrained or tested. Put the file back, or begin another study."
        )


def departures(protocol: Protocol, member: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for every setting of a member, in plain form, that is not as the protocol has it."""
    found = frozen_settings(config)
    for key, asked in protocol.asked_of(member).items():
        allowed = [asked, *protocol.extended] if key == "search.trials" else [asked]
        if key in found and found[key] not in allowed:
            yield key, f"{key} is {found[key]}, and the protocol has {protocol.trials if len(allowed) > 1 else asked}"


def deviations(directory: Path) -> list[dict[str, Any]]:
    """Read what was done otherwise than planned: when, what, and of which sweep. InputError: the file is damaged."""
    records = read_records(directory / DEVIATIONS)
    for number, record in enumerate(records, start=1):
        trials = record.get("trials", 1)
        is_whole = type(trials) is int and trials > 0
        if not is_whole or not all(isinstance(record.get(key), str) for key in RECORDED):
            raise InputError(
                f"{directory / DEVIATIONS}, line {number}, is damaged: a record has {', '.join(RECORDED)}, texts, and "
                "maybe trials, above 0."
            )
    return records


def record_deviation(protocol: Protocol, name: str, what: str, **more: Any) -> None:
    """Append a departure of the sweep or study `name`, unless the same was recorded before.

    Raises:
        InputError: the file is damaged. StorageError: it cannot be written.
    """
    record = {"sweep": name, "what": what, "protocol": protocol.hash, **more}
    known = [{key: one.get(key) for key in record} for one in deviations(protocol.directory)]
    if record not in known:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        append_record(protocol.directory / DEVIATIONS, {"when": when, **record})
