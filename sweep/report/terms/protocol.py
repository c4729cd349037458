"""What the protocol of a study planned, and in what its sweeps depart from that."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sweep.errors import InputError
from sweep.records.protocol import Protocol, departures, deviations, hash_of, read_protocol
from sweep.records.run_directory import STUDY
from sweep.report.elements import Block, Facts, Table, Text, listing, plural
from sweep.report.load import Sweep

SHOWN = ("arm", "selection", "estimand", "baseline", "families", "spaces", "sizes", "draws")


def blocks(sweeps: Sequence[Sweep]) -> list[Block]:
    """Show the protocol of each study, and its recorded deviations. InputError: as `read_protocol`."""
    made: list[Block] = []
    for study in _studies(sweeps):
        protocol = read_protocol(study)
        if protocol is None:
            continue
        items = [(name, _written(protocol.terms[name])) for name in SHOWN if name in protocol.terms]
        items.append(
            (
                "rules",
                ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in protocol.terms["rules"].items()),
            )
        )
        made += [Facts(f"Protocol {protocol.hash} of {study.name}, frozen {protocol.created}", items), _recorded(study)]
    return made


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join("all" if one is None else str(one) for one in value)
    return str(value).replace("_", " ")


def _recorded(study: Path) -> Block:
    records = deviations(study)
    if not records:
        return Text("Nothing was done otherwise than planned, as far as the commands have recorded it.")
    alike: dict[str, list[tuple[str, str]]] = {}
    for one in records:
        sweep = str(one.get("sweep", "")).removeprefix(f"{study.name}/")
        alike.setdefault(str(one.get("what", "")), []).append((str(one.get("when", "")), sweep))
    rows = [
        [min(found)[0], listing(list(dict.fromkeys(sweep for _, sweep in found))), what]
        for what, found in alike.items()
    ]
    columns = ["first at", "sweeps", "deviation"]
    return Table("What was done otherwise than planned, as recorded in deviations.jsonl.", columns, rows, columns)


def _studies(sweeps: Sequence[Sweep]) -> list[Path]:
    """List the directories of studies that these sweeps belong to."""
    above = dict.fromkeys(sweep.directory.parent for sweep in sweeps)
    return [directory for directory in above if (directory / STUDY).exists()]


def notices(sweeps: Sequence[Sweep]) -> list[str]:
    """Say what is to be known before anything is compared: no protocol, departures from it, results that do not
    count."""
    found = [said for sweep in sweeps for said in sweep.not_counted]
    for study in _studies(sweeps):
        protocol = read_protocol(study)
        if protocol is None:
            found.append(f"{study.name} has no protocol: it was begun by a version that froze none.")
            continue
        mine = [sweep for sweep in sweeps if sweep.directory.parent == study]
        found += [
            f"{sweep.name} departs from the protocol: {said}." for sweep in mine for said in _departs(protocol, sweep)
        ]
        found += _labels(protocol, mine)
    return found


def _labels(protocol: Protocol, sweeps: Sequence[Sweep]) -> Iterator[str]:
    terms, name = protocol.terms, protocol.directory.name
    if str(terms.get("selection", "")).startswith("adaptive"):
        yield f"{name} chose its configurations otherwise than by random search ({terms['selection']})."
    if terms.get("overlapping_draws"):
        yield f"The draws of {name} share images ({terms['estimand']})."
    if len(terms.get("draws", ())) == 1:
        yield f"One draw only: the estimand is the {terms['estimand']}."
    here = {sweep.directory.name for sweep in sweeps}
    absent = [member for member in protocol.members if member not in here]
    if absent:
        yield f"Planned and not in this report: {listing(absent)}."


def _departs(protocol: Protocol, sweep: Sweep) -> Iterator[str]:
    """Say what of a sweep is not as planned: its configuration, its space, its data, its trials."""
    name = sweep.directory.name
    if name not in protocol.members:
        yield "it is not among the sweeps that were planned"
        return
    asked = protocol.asked_of(name)
    for _, said in departures(protocol, name, _plain(sweep.directory / "config.yaml")):
        yield said
    space = _plain(sweep.directory / "origin.json").get("space")
    if space is not None and hash_of(space) != asked["space"]:
        yield f"its space is another than the protocol's {asked['space']}"
    data = {row.data_hash for row in sweep.trials}
    if data - {asked["data"]}:
        yield f"its trials had images of the hash {', '.join(sorted(data))}, and the protocol has {asked['data']}"
    if len(sweep.trials) < protocol.trials:
        yield f"it has {plural(len(sweep.trials), 'search trial')}, and the protocol has {protocol.trials}"


def _plain(path: Path) -> dict[str, Any]:
    """Read a file of YAML, or JSON, which is YAML; empty where it is absent. InputError: it is no mapping."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else "{}"
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping.")
    return content
