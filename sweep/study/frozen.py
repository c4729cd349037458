"""Freeze the protocol of a study before its first trial, and hold what is done later against it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odenet.training.config import to_plain
from sweep.config.schema import AppConfig
from sweep.config.search_config import SamplerKind, SchedulerKind
from sweep.errors import InputError
from sweep.records.protocol import (
    LATER,
    Protocol,
    departures,
    frozen_settings,
    hash_of,
    protocol_text,
    read_protocol,
    record_deviation,
)
from sweep.records.run_directory import store_directory
from sweep.tuning.problem import build_problem

DRAWS = "mean over draws of the data and seeds; the draws are disjoint"
OVERLAPPING = "mean over draws of the data and seeds; the draws share images: the corrected resampled t is needed"
ONE_DRAW = "mean over seeds, conditional on this training set; nothing is claimed beyond it"


def freeze(config: AppConfig, members: Mapping[str, AppConfig], data: Mapping[str, str], overlapping: bool) -> str:
    """Return the text of protocol.yaml. `data`: the hash of each member's images."""
    study = config.study
    estimand = ONE_DRAW if len(study.draws) == 1 else OVERLAPPING if overlapping else DRAWS
    terms = {
        "families": list(study.families),
        "baseline": study.baseline,
        "spaces": [one.value for one in study.spaces],
        "sizes": list(study.sizes) if study.sizes else [config.data.per_class],
        "draws": list(study.draws),
        "overlapping_draws": overlapping,
        "arm": study.arm.value,
        "selection": selection(config),
        "estimand": estimand,
        "rules": decision_rules(),
    }
    return protocol_text(terms, {name: _settings(member, data[name]) for name, member in members.items()})


def selection(config: AppConfig) -> str:
    """Say how configurations are found; what is not i.i.d. random cannot be read as a tuning curve."""
    search = config.search
    if search.sampler is SamplerKind.random and search.scheduler is SchedulerKind.none:
        return "i.i.d. random search, no trial is stopped early"
    return f"adaptive: {search.sampler.value}, {search.scheduler.value}; its trials are no i.i.d. sample of the space"


def decision_rules() -> dict[str, float]:
    """Return the constants by which the report decides, by name."""
    from sweep.report.inference import comparison  # loads SciPy
    from sweep.report.statistics import LEVEL

    return {
        "level": LEVEL,
        "alpha": comparison.ALPHA,
        "equivalence": comparison.EQUIVALENCE,
        "meaningful": comparison.MEANINGFUL,
        "draws_for_a_claim": comparison.DECIDES,
    }


def _settings(config: AppConfig, data: str) -> dict[str, Any]:
    own = {"family": config.space.label, "space": _space_hash(config), "data": data}
    return {**own, **frozen_settings(to_plain(config))}


def _space_hash(config: AppConfig) -> str:
    return hash_of(build_problem(config).space.to_dict())


def check_study(config: AppConfig, name: str, members: Iterable[str]) -> Protocol | None:
    """Check a study that goes on. InputError as `check_frozen`, or its sweeps are others than the protocol's."""
    protocol = read_protocol(store_directory(config, name))
    if protocol is None:
        return None
    if list(protocol.members) != list(members):
        raise InputError(
            f"{name} was changed after it began: it has the sweeps {', '.join(members)}, and its protocol has "
            f"{', '.join(protocol.members)}."
        )
    _check_rules(protocol)
    return protocol


def check_frozen(config: AppConfig, name: str, data: str = "") -> Protocol | None:
    """Check a sweep against the protocol of its study, which is returned; None where there is none. Write nothing.

    `data`: the hash of its images where they are at hand.

    Raises:
        InputError: the protocol was changed, or is missing; the sweep has another space, sampler, budget, data or
            setting than was planned, or the rules of decision are others by now.
    """
    study, _, member = name.partition("/")
    protocol = _protocol_of(config, name)
    if protocol is None:
        return None
    found = departures(protocol, member, to_plain(config))
    refused = [said for key, said in found if not key.startswith(LATER)]
    asked = protocol.asked_of(member)
    if _space_hash(config) != asked["space"]:
        refused.append(f"its space is another than the protocol's {asked['space']}")
    if data and data != asked["data"]:
        refused.append(f"its images have the hash {data}, and the protocol has {asked['data']}")
    if refused:
        raise InputError(
            f"{name} departs from the protocol of {study}, which was frozen before its first trial: "
            f"{'; '.join(refused)}. Go back to that; something else is another study."
        )
    _check_rules(protocol)
    return protocol


def _protocol_of(config: AppConfig, name: str) -> Protocol | None:
    """Read the protocol of the study that a sweep belongs to; None where it belongs to none, or to one without."""
    return read_protocol(store_directory(config, name)) if "/" in name else None


def record_allowed(config: AppConfig, name: str) -> None:
    """Record, when a stage of a study's sweep begins, what may differ from the protocol and does.

    Raises:
        InputError: as `read_protocol`. StorageError: it cannot be written.
    """
    protocol = _protocol_of(config, name)
    if protocol is None:
        return
    for key, said in departures(protocol, name.partition("/")[2], to_plain(config)):
        if key.startswith(LATER):
            record_deviation(protocol, name, said)
    if config.search.accept_changes:
        record_deviation(protocol, name, "changed code, versions or modules were accepted (search.accept_changes)")


def _check_rules(protocol: Protocol) -> None:
    frozen, now = protocol.terms.get("rules", {}), decision_rules()
    changed = [f"{key} was {frozen[key]}, is {now.get(key)}" for key in frozen if now.get(key) != frozen[key]]
    if changed:
        raise InputError(
            f"The rules of decision are not those that {protocol.directory.name} was begun with: {'; '.join(changed)}. "
            "Go on with the version that it was begun with."
        )


def record_again(config: AppConfig, name: str, former: Path) -> None:
    """Record that the final training of a study's sweep was put away and is done again."""
    protocol = _protocol_of(config, name)
    if protocol is not None:
        record_deviation(protocol, name, f"final training done again; the former is in {former.name}")


def check_alone(config: AppConfig, name: str) -> None:
    """Raise InputError where a sweep cannot get trials by itself, because its study has planned as many for all."""
    study = name.partition("/")[0]
    if _protocol_of(config, name) is not None:
        raise InputError(
            f"{name} belongs to a study whose protocol gives all families as many trials: extend all of them, `sweep "
            f"extend {study} search.more={config.search.more or 10}`."
        )
