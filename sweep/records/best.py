"""best.yaml: a complete experiment with its provenance, so that retraining needs neither study nor space.

runs/NAME/best.yaml is the best trial of a search, runs/NAME/candidates.yaml has the best few, the best first, and
runs/NAME/final/crowned.yaml is the configuration that `final` crowned. `objective` is that of the `phase`: of one seed
in a search, which was chosen for it; the mean over `seeds` with its `sd` where it was confirmed.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from odenet.training.config import ExperimentConfig, from_plain, to_plain
from search_spaces import Space
from sweep.config.modules import hashes, not_named
from sweep.errors import NO_YAML, InputError
from sweep.records.files import read_bytes, write_text
from sweep.records.rows import SCHEMA, Phase, TrialRow

COMMIT = "SWEEP_GIT_COMMIT"  # of code that left its checkout
RECORDED = ("torch", "numpy", "ray", "optuna", "mlflow")


@dataclass(frozen=True, slots=True)
class Best:
    """A complete experiment with its provenance. `schedule` lists what a population changed in mid-training, as {epoch,
    parameters, parent} from epoch 0 on; it is empty for all other trials."""

    experiment: ExperimentConfig
    provenance: dict[str, Any]
    schedule: list[Any] = field(default_factory=list)


def changed(row: TrialRow) -> list[Any]:
    """Return the schedule of a trial that changed in mid-training, and an empty list for any other trial."""
    return row.schedule if len(row.schedule) > 1 else []


def provenance(row: TrialRow, space: Space, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Collect what traces a configuration back to its origin: sweep, trial, space, code, versions and data. `modules`:
    the user's own."""
    own = {"modules": hashes(modules)} if modules else {}
    return {
        "sweep": row.sweep,
        "family": row.family,
        "phase": row.phase.value,
        "trial": row.candidate,
        "trial_id": row.trial_id,
        "objective": row.objective,
        "seeds": 1,
        "parameters": row.parameters,
        "space": space.to_dict(),
        "data_hash": row.data_hash,
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in RECORDED}},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    } | own


def crowned(best: Best, values: Sequence[float], data_hash: str) -> Best:
    """Return a candidate with what its confirming trials have reached; without any it was crowned by its search."""
    origin = {**best.provenance, "data_hash": data_hash}
    if values:
        origin["search"] = {key: origin.get(key) for key in ("objective", "seeds")}
        found = {"objective": fmean(values), "seeds": len(values), "sd": stdev(values) if len(values) > 1 else None}
        origin |= {"phase": Phase.confirm.value, **found}
    return replace(best, provenance=origin)


def crowned_sentence(best: Best) -> str:
    """Say which value a crowned configuration has, of what phase, over how many seeds."""
    origin = best.provenance
    trial, objective, seeds = origin.get("trial", 0), origin.get("objective"), origin.get("seeds", 1)
    searched = (origin.get("search") or {}).get("objective")
    if searched is None:
        value = "no objective" if objective is None else f"objective {objective:.1%}"
        return f"crowned trial {trial} without confirming it, as the only candidate: {value} in the search, one seed"
    spread = "" if origin.get("sd") is None else f", sd {100 * origin['sd']:.1f} points"
    return (
        f"crowned trial {trial}: objective {objective:.1%}, the mean over {seeds} confirming seed{'s' * (seeds > 1)}"
        f"{spread}; its {searched:.1%} in the search, one seed, was what it was chosen by"
    )


@cache
def git_commit() -> str:
    """Return the commit of the code that runs, with `-dirty` where files differ from it; empty outside a checkout. Code
    that was submitted to a cluster is in none, and its commit in the environment."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # not another checkout
    try:
        result = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() or os.environ.get(COMMIT, "")


def write_best(path: Path, best: Best) -> None:
    write_text(path, yaml.safe_dump({"schema": SCHEMA, **_document(best)}, sort_keys=False, allow_unicode=True))


def write_candidates(path: Path, candidates: Sequence[Best]) -> None:
    content = {"schema": SCHEMA, "candidates": [_document(best) for best in candidates]}
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _document(best: Best) -> dict[str, Any]:
    content = {"experiment": to_plain(best.experiment), "provenance": best.provenance}
    return content | ({"schedule": best.schedule} if best.schedule else {})


def read_best(path: Path) -> Best:
    """Read a best.yaml. InputError: it is missing, no YAML, of another schema version, or no valid experiment."""
    content = _loaded(path)
    if not isinstance(content, dict) or not {"schema", "experiment", "provenance"} <= content.keys():
        raise InputError(f"{path} is no best.yaml: it needs the keys schema, experiment and provenance.")
    _check_schema(path, content["schema"])
    return _parsed(path, content)


def read_candidates(path: Path) -> list[Best]:
    """Read the candidates of a search, the best first. InputError as `read_best`."""
    content = _loaded(path)
    found = content.get("candidates") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(found, list) or "schema" not in content:
        raise InputError(f"{path} is no candidates.yaml: it needs the keys schema and candidates, which is a list.")
    _check_schema(path, content["schema"])
    for one in found:
        if not isinstance(one, dict) or not {"experiment", "provenance"} <= one.keys():
            raise InputError(f"{path}: each candidate needs the keys experiment and provenance.")
    return [_parsed(path, one) for one in found]


def _loaded(path: Path) -> Any:
    try:
        return yaml.safe_load(read_bytes(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, *NO_YAML) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from error


def _check_schema(path: Path, schema: Any) -> None:
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        hint = " It was written by a newer version: update this one." if newer else ""
        raise InputError(f"{path} has schema {schema!r}; this version reads schema {SCHEMA}.{hint}")


def _parsed(path: Path, content: dict[str, Any]) -> Best:
    origin = content["provenance"]
    if not isinstance(origin, dict):
        raise InputError(f"{path}: provenance must be a mapping.")
    search = origin.get("search")
    for place, known in (("provenance", origin), ("provenance.search", search if isinstance(search, dict) else {})):
        for key, (kind, what) in _ORIGIN.items():
            if key in known and not isinstance(known[key], kind):
                raise InputError(f"{path}: {place}.{key}={known[key]!r}: must be {what}.")
    if missing := [name for name in origin.get("modules", {}) if name not in sys.modules]:
        raise not_named(missing, path)
    schedule = content.get("schedule", [])
    _check_schedule(path, schedule)
    try:
        return Best(from_plain(ExperimentConfig, content["experiment"]), origin, schedule)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error


def _check_schedule(path: Path, schedule: Any) -> None:
    """Raise InputError unless the schedule is a list of changes at growing epochs, the first at 0."""
    entries = schedule if isinstance(schedule, list) else [schedule]
    epochs: list[Any] = [entry.get("epoch") if isinstance(entry, dict) else None for entry in entries]
    if (
        [epoch for epoch in epochs if type(epoch) is not int]
        or epochs != sorted({0, *epochs} if epochs else ())
        or not all(isinstance(entry.get("parameters"), dict) for entry in entries)
    ):
        raise InputError(
            f"{path}: schedule must be a list of {{epoch, parameters}} at growing epochs, the first at 0; it has the "
            f"epochs {epochs}."
        )


# What stages read of the provenance, where it is there.
_ORIGIN: dict[str, tuple[type | tuple[type, ...], str]] = {
    "sweep": (str, "the name of the sweep it comes from"),
    "family": (str, "the name of a search space"),
    "trial": (int, "the number of the trial it comes from"),
    "parameters": (dict, "a mapping of what was varied"),
    "modules": (dict, "a mapping from the user's own modules to hashes of their source"),
    "objective": ((float, int, type(None)), "a number or null"),
    "sd": ((float, int, type(None)), "a number or null"),
    "seeds": (int, "the number of seeds that the objective is of"),
    "search": (dict, "what it had in the search"),
}
