"""A search space: an ordered mapping from dotted configuration keys to parameters, some used only under a condition."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from search_spaces.parameters import Choice, Float, Int, Parameter, Trial, Value, When, fixed


@dataclass(frozen=True, slots=True)
class Space:
    """The question one family of trials asks. A key with a condition follows the key it depends on.

    `entries` holds all keys, also those with one fixed value, such as the family's network; `parameters` are the
    searched ones. Methods that change a space return a new one. A space whose entries or conditions do not fit
    together raises ValueError.
    """

    entries: Mapping[str, Parameter]
    conditions: Mapping[str, When] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError("A space needs at least one parameter.")
        keys = list(self.entries)
        for key, condition in self.conditions.items():
            if key not in keys:
                raise ValueError(f"There is a condition for {key}, which is not in the space: {', '.join(keys)}.")
            if condition.key not in keys[: keys.index(key)]:
                raise ValueError(f"{key} depends on {condition.key}, which must be listed before it.")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The searched keys: those with more than one value, whose condition can hold."""
        return {key: p for key, p in self.entries.items() if not _is_fixed(p) and self._reachable(key)}

    @property
    def fixed(self) -> dict[str, Value]:
        """The keys with one value. A value with a condition appears in a trial only where the condition holds."""
        return {key: p.middle() for key, p in self.entries.items() if _is_fixed(p) and self._reachable(key)}

    @property
    def categorical(self) -> list[str]:
        """The searched keys whose values have no order and no distance."""
        return [key for key, parameter in self.parameters.items() if isinstance(parameter, Choice)]

    @property
    def conditional(self) -> list[str]:
        """The searched keys that some trials do not use, because a condition may fail."""
        return [key for key in self.parameters if not self._always_used(key)]

    @property
    def decisive(self) -> list[str]:
        """The searched keys whose value decides whether a conditional one is used: with them fixed, none is left."""
        deciding = {above for key in self.conditional for above in self._above(key)}
        return [key for key in self.parameters if key in deciding]

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Ask the trial for a complete assignment, fixed values included; keys whose condition fails are left out."""
        return self._assignment(lambda key, parameter: parameter.suggest(trial, key))

    def corners(self) -> list[dict[str, Value]]:
        """List distinct complete assignments for checks: the middle, each extreme by itself, all cheapest, all dearest.

        They grow with the number of parameters and not as 2^d. Where an extreme needs its condition to hold, the
        parameter it depends on takes a value for which it does.
        """
        found = [self._around_middle({})]
        for key, parameter in self.parameters.items():
            found += [self._around_middle({**self._required(key), key: value}) for value in parameter.extremes()]
        found.append(self._assignment(lambda _, parameter: parameter.extremes()[0]))
        found.append(self._assignment(lambda _, parameter: parameter.extremes()[-1]))
        return [corner for i, corner in enumerate(found) if corner not in found[:i]]

    def grid(self) -> Iterator[dict[str, Value]]:
        """Yield all complete assignments, each once; ValueError names searched keys that take any number from a
        range."""
        endless = [key for key, parameter in self.parameters.items() if isinstance(parameter, Float)]
        if endless:
            raise ValueError(f"{', '.join(endless)}: a number from a range has no grid. Fix each of them to one value.")
        return self._continued({}, list(self.entries))

    def validate(self, params: Mapping[str, Any]) -> None:
        """Raise ValueError unless these are the values of one possible trial; fixed values may be left out."""
        self.complete(params)

    def complete(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """Return these values in the parameters' own types, and the fixed ones; ValueError where `validate` raises
        it."""
        for key in params:
            self._check_known(key)
        values: dict[str, Value] = {}
        for key, parameter in self.entries.items():
            if self._active(key, values):
                values[key] = _given(key, parameter, params)
            elif key in params:
                raise ValueError(f"{key}={params[key]!r} is given, but it is used only when {self.conditions[key]}.")
        return values

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Tell whether `validate` would pass."""
        try:
            self.validate(params)
        except ValueError:
            return False
        return True

    def fix(self, values: Mapping[str, Any]) -> "Space":
        """Return the space with one value for each of these parameters; ValueError says which key or value is
        impossible."""
        return self._changed(values, lambda parameter, value: fixed(parameter.accept(value)))

    def narrow(self, ranges: Mapping[str, Any]) -> "Space":
        """Return the space with [low, high] or a list of options in place of the former; one value left is fixed."""
        return self._changed(ranges, lambda parameter, values: parameter.narrow(values))

    def without(self, keys: Iterable[str]) -> "Space":
        """Return the space without these keys and the conditions on using them; what depends on them must go, too.

        Raises:
            ValueError: a key is not in the space, or one that stays depends on it.
        """
        removed = list(keys)
        for key in removed:
            self._check_known(key)
        for key, condition in self.conditions.items():
            if condition.key in removed and key not in removed:
                raise ValueError(f"{condition.key} cannot be removed alone: {key} is used only when {condition}.")
        entries = {key: parameter for key, parameter in self.entries.items() if key not in removed}
        return Space(entries, {key: condition for key, condition in self.conditions.items() if key not in removed})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data. A list keeps the order also where a writer sorts keys."""
        return {"entries": [self._entry(key, parameter) for key, parameter in self.entries.items()]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Space":
        """Build the space that `to_dict` described; ValueError where the data describe none."""
        try:
            entries = {entry["key"]: Parameter.from_dict(entry["parameter"]) for entry in data["entries"]}
            conditions = {entry["key"]: When(**entry["when"]) for entry in data["entries"] if "when" in entry}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{data} does not describe a space: {error!r}.") from error
        return cls(entries, conditions)

    def _entry(self, key: str, parameter: Parameter) -> dict[str, Any]:
        entry: dict[str, Any] = {"key": key, "parameter": parameter.to_dict()}
        if key in self.conditions:
            condition = self.conditions[key]
            entry["when"] = {"key": condition.key, "values": list(condition.values)}
        return entry

    def _assignment(self, pick: Callable[[str, Parameter], Value]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, parameter in self.entries.items():
            if self._active(key, values):
                values[key] = pick(key, parameter)
        return values

    def _continued(self, values: dict[str, Value], keys: list[str]) -> Iterator[dict[str, Value]]:
        """Yield all ways in which an assignment goes on with these keys."""
        if not keys:
            yield values
            return
        key, *rest = keys
        if not self._active(key, values):
            yield from self._continued(values, rest)
            return
        for value in _every(self.entries[key]):
            yield from self._continued({**values, key: value}, rest)

    def _around_middle(self, wanted: Mapping[str, Value]) -> dict[str, Value]:
        return self._assignment(lambda key, parameter: wanted[key] if key in wanted else parameter.middle())

    def _active(self, key: str, values: Mapping[str, Value]) -> bool:
        condition = self.conditions.get(key)
        return condition is None or (condition.key in values and values[condition.key] in condition.values)

    def _reachable(self, key: str) -> bool:
        condition = self.conditions.get(key)
        if condition is None:
            return True
        return self._reachable(condition.key) and any(map(self.entries[condition.key].contains, condition.values))

    def _above(self, key: str) -> list[str]:
        """List the key it depends on, what that one depends on, and so on."""
        condition = self.conditions.get(key)
        return [] if condition is None else [condition.key, *self._above(condition.key)]

    def _always_used(self, key: str) -> bool:
        condition = self.conditions.get(key)
        if condition is None:
            return True
        parent = self.entries[condition.key]
        if isinstance(parent, Float):
            return False
        return self._always_used(condition.key) and all(value in condition.values for value in _every(parent))

    def _required(self, key: str) -> dict[str, Value]:
        """Choose values of other parameters, the middle where it will do, under which a reachable key is used."""
        if key not in self.conditions:
            return {}
        condition = self.conditions[key]
        parent = self.entries[condition.key]
        possible = [value for value in condition.values if parent.contains(value)]
        value = parent.middle() if parent.middle() in possible else possible[0]
        return {**self._required(condition.key), condition.key: value}

    def _changed(self, changes: Mapping[str, Any], change: Callable[[Parameter, Any], Parameter]) -> "Space":
        entries = dict(self.entries)
        for key, wanted in changes.items():
            self._check_searched(key)
            try:
                entries[key] = change(entries[key], wanted)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        space = replace(self, entries=entries)
        for key in changes:
            space._check_reachable(key)
        return space

    def _check_known(self, key: str) -> None:
        if key in self.entries:
            return
        near = get_close_matches(key, self.entries) or [known for known in self.entries if known.endswith(f".{key}")]
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{key} is not in this space.{hint} {self._searched()}")

    def _check_searched(self, key: str) -> None:
        self._check_known(key)
        if _is_fixed(self.entries[key]):
            value = self.entries[key].middle()
            raise ValueError(f"{key} cannot be changed: {value!r} is part of this family. {self._searched()}")

    def _searched(self) -> str:
        return f"Searched are: {', '.join(self.parameters) or 'none, all are fixed'}."

    def _check_reachable(self, key: str) -> None:
        if not self._reachable(key):
            condition = self.conditions[key]
            domain = self.entries[condition.key].domain
            raise ValueError(f"{key} has no effect: it is used only when {condition}, but that is {domain}.")


def _given(key: str, parameter: Parameter, params: Mapping[str, Any]) -> Value:
    if key in params:
        try:
            return parameter.accept(params[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    if _is_fixed(parameter):
        return parameter.middle()
    raise ValueError(f"{key} is missing: it must be {parameter.domain}.")


def _every(parameter: Parameter) -> Iterable[Value]:
    """List the values of a parameter that has finitely many."""
    if isinstance(parameter, Int):
        return range(parameter.low, parameter.high + 1, parameter.step)
    return parameter.extremes()


def _is_fixed(parameter: Parameter) -> bool:
    return len(parameter.extremes()) == 1
