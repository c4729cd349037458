"""Spaces as people write them in YAML: a mapping of configuration keys to what each may be.

optim.lr: {low: 0.001, high: 0.3, log: true}   # a number; with two whole ends an integer
model.scheme: [euler, heun, rk4]               # one of these, the cheapest first
model.network: continuous                      # one value
model.substeps: {options: [1, 2], when: {model.scheme: euler}}
"""

from collections.abc import Mapping
from typing import Any

from search_spaces.parameters import Choice, Float, Int, Parameter, When, fixed
from search_spaces.space import Space

_NUMBER = ("low", "high", "log", "step", "dearer", "kind", "when")
_CHOICE = ("options", "when")


def from_written(written: Mapping[str, Any], like: Space | None = None) -> Space:
    """Build the space that was written; what it does not have is as in the space `like`.

    Raises:
        ValueError: an entry means no parameter; names its key.

    >>> space = from_written({"model.scheme": ["euler", "rk4"], "model.nodes": {"low": 1, "high": 4}})
    >>> space.parameters["model.nodes"]
    Int(low=1, high=4, log=False, step=1, dearer='high')
    """
    entries = dict(like.entries) if like else {}
    conditions = dict(like.conditions) if like else {}
    for key, meaning in written.items():
        conditions.pop(key, None)
        try:
            entries[key] = _parameter(meaning)
            if isinstance(meaning, Mapping) and "when" in meaning:
                conditions[key] = _condition(meaning["when"])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return Space(entries, conditions)


def as_written(space: Space) -> dict[str, Any]:
    """Return what `from_written` reads as this space, in plain values."""
    written: dict[str, Any] = {}
    for key, parameter in space.entries.items():
        plain = parameter.to_dict()
        if isinstance(parameter, Choice):
            del plain["kind"]
        if key in space.conditions:
            condition = space.conditions[key]
            plain["when"] = {condition.key: list(condition.values)}
        written[key] = plain
    return written


def _parameter(meaning: Any) -> Parameter:
    if isinstance(meaning, list | tuple):
        meaning = {"options": meaning}
    if not isinstance(meaning, Mapping):
        return fixed(meaning)
    known = _CHOICE if "options" in meaning else _NUMBER
    for key in meaning:
        if key not in known:
            raise ValueError(f"{key} is nothing that a parameter has; possible are {', '.join(known)}, or options.")
    values = {key: value for key, value in meaning.items() if key != "when"}
    if "options" in values:
        return Choice(values["options"])
    whole = all(type(values.get(end)) is int for end in ("low", "high"))
    kind = values.pop("kind", "int" if whole else "float")
    if kind not in ("int", "float"):
        raise ValueError(f"kind={kind!r} is not possible: int and float are.")
    try:
        return Int(**values) if kind == "int" else Float(**values)
    except TypeError as error:
        raise ValueError(f"{dict(meaning)} is no range: it needs low and high ({error}).") from error


def _condition(when: Any) -> When:
    if not isinstance(when, Mapping) or len(when) != 1:
        raise ValueError(f"when={when!r} is no condition: write {{KEY: VALUE}}, or {{KEY: [VALUE, ...]}}.")
    ((key, values),) = when.items()
    return When(key, tuple(values) if isinstance(values, list | tuple) else (values,))
