"""The parameters of a search: a number from a range, an integer, or a choice of options; and the condition of their
use.

Parameters are values. They know nothing of configurations or studies; `suggest` needs a trial with Optuna's three
`suggest_*` methods and always asks for the same distribution, as Optuna demands of a name.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

Value = None | bool | int | float | str  # all that Optuna stores
End = Literal["low", "high"]


class Trial(Protocol):
    """The part of `optuna.Trial` that is used."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Parameter(ABC):
    """A set of values that one configuration key may take."""

    __slots__ = ()

    @property
    @abstractmethod
    def domain(self) -> str:
        """The allowed values in words, for messages: 'a number from 0.001 to 0.3'."""

    @abstractmethod
    def suggest(self, trial: Trial, name: str) -> Value:
        """Ask the trial for a value under this name."""

    @abstractmethod
    def accept(self, value: object) -> Value:
        """Return the value in the parameter's own type (an int becomes a float where one is needed); else
        ValueError."""

    @abstractmethod
    def extremes(self) -> tuple[Value, ...]:
        """List the end values, of a choice all options, from the cheapest to the dearest."""

    @abstractmethod
    def middle(self) -> Value:
        """Return a value from the middle of the domain, from which corners are built."""

    @abstractmethod
    def narrow(self, values: object) -> "Parameter":
        """Restrict the parameter to [low, high] or a list of options, else ValueError. A single value left is
        `fixed`."""

    def contains(self, value: object) -> bool:
        """Tell whether `accept` would take the value."""
        try:
            self.accept(value)
        except ValueError:
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, read back by `from_dict`."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}  # type: ignore[call-overload]
        return {"kind": type(self).__name__.lower(), **plain}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Parameter":
        """Build the parameter that `to_dict` described; ValueError where the data describe none."""
        kinds = {kind.__name__.lower(): kind for kind in (Float, Int, Choice)}
        values = dict(data)
        kind = values.pop("kind", None)
        if kind not in kinds:
            raise ValueError(f"{kind!r} is not a kind of parameter; there are {', '.join(kinds)}.")
        try:
            return kinds[kind](**values)
        except TypeError as error:
            raise ValueError(f"{values} does not describe the kind {kind}: {error}.") from error

    def _refusal(self, value: object) -> ValueError:
        return ValueError(f"{'the text ' if isinstance(value, str) else ''}{value!r} is not {self.domain}.")


@dataclass(frozen=True, slots=True)
class Float(Parameter):
    """A number from [low, high], uniform or in its logarithm. `dearer` is the end that costs more computation."""

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)
    dearer: End = field(default="high", kw_only=True)

    def __post_init__(self) -> None:
        _check_range(self, (int, float))
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def domain(self) -> str:
        return f"a number from {self.low} to {self.high}"

    def suggest(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def accept(self, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high:
            return float(value)
        raise self._refusal(value)

    def extremes(self) -> tuple[float, float]:
        return (self.low, self.high) if self.dearer == "high" else (self.high, self.low)

    def middle(self) -> float:
        return math.sqrt(self.low) * math.sqrt(self.high) if self.log else (self.low + self.high) / 2

    def narrow(self, values: object) -> Parameter:
        return _narrow_range(self, values)


@dataclass(frozen=True, slots=True)
class Int(Parameter):
    """An integer low, low + step, ..., high, uniform or uniform in its logarithm (then `step` is 1)."""

    low: int
    high: int
    log: bool = field(default=False, kw_only=True)
    step: int = field(default=1, kw_only=True)
    dearer: End = field(default="high", kw_only=True)

    def __post_init__(self) -> None:
        _check_range(self, (int,))
        if type(self.step) is not int or self.step < 1 or (self.high - self.low) % self.step:
            raise ValueError(
                f"step={self.step!r} must be a positive integer that leads from {self.low} to {self.high}."
            )
        if self.log and self.step != 1:
            raise ValueError(f"step={self.step} cannot be combined with log=True; use step=1.")

    @property
    def domain(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"an integer from {self.low} to {self.high}{steps}"

    def suggest(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def accept(self, value: object) -> int:
        possible = range(self.low, self.high + 1, self.step)
        if isinstance(value, int) and not isinstance(value, bool) and value in possible:
            return value
        raise self._refusal(value)

    def extremes(self) -> tuple[int, int]:
        return (self.low, self.high) if self.dearer == "high" else (self.high, self.low)

    def middle(self) -> int:
        if self.log:
            return round(math.sqrt(self.low * self.high))
        return self.low + (self.high - self.low) // self.step // 2 * self.step

    def narrow(self, values: object) -> Parameter:
        return _narrow_range(self, values)


@dataclass(frozen=True, slots=True)
class Choice(Parameter):
    """One of several options, listed from the cheapest to the dearest in computation. A single one is not asked for."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", _listed(self.options))
        for option in self.options:
            plain = option is None or isinstance(option, bool | int | float | str)
            if not plain or (isinstance(option, float) and not math.isfinite(option)):
                raise ValueError(f"{option!r} cannot be an option; None, booleans, finite numbers and text can.")
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"The options {self.options!r} are not distinct.")  # 1 and True are one to Optuna

    @property
    def domain(self) -> str:
        words = ", ".join(map(repr, self.options))
        return f"one of {words}" if len(self.options) > 1 else words

    def suggest(self, trial: Trial, name: str) -> Value:
        return trial.suggest_categorical(name, self.options) if len(self.options) > 1 else self.options[0]

    def accept(self, value: object) -> Value:
        for option in self.options:
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        raise self._refusal(value)

    def extremes(self) -> tuple[Value, ...]:
        return self.options

    def middle(self) -> Value:
        return self.options[len(self.options) // 2]

    def narrow(self, values: object) -> Parameter:
        wanted = [self.accept(value) for value in _listed(values)]
        return Choice(tuple(option for option in self.options if option in wanted))


def fixed(value: Value) -> Choice:
    """Build a parameter with one value, which every trial has."""
    return Choice((value,))


@dataclass(frozen=True, slots=True)
class When:
    """The condition that another parameter, listed earlier in the space, has one of these values."""

    key: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _listed(self.values))

    def __str__(self) -> str:
        return f"{self.key} is {' or '.join(map(repr, self.values))}"


Range = TypeVar("Range", Float, Int)


def _narrow_range(parameter: Range, values: object) -> Parameter:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ValueError(f"{values!r} is not a range [low, high] within {parameter.domain}.")
    low, high = map(parameter.accept, values)
    if low > high:
        raise ValueError(f"{values!r} is an inverted range; write [{high!r}, {low!r}].")
    return replace(parameter, low=low, high=high) if low < high else fixed(low)


def _check_range(parameter: Float | Int, numbers: tuple[type, ...]) -> None:
    low, high = parameter.low, parameter.high
    for end in (low, high):
        if type(end) not in numbers or not math.isfinite(end):
            raise ValueError(
                f"{end!r} cannot be an end of {type(parameter).__name__}: it needs finite numbers of its type."
            )
    if low >= high:
        raise ValueError(
            f"The range from {low!r} to {high!r} is empty: low must be below high; `fixed` holds one value."
        )
    if parameter.log and low <= 0:
        raise ValueError(f"The range from {low!r} to {high!r} has no logarithm: with log=True low must be above 0.")
    if parameter.dearer not in ("low", "high"):
        raise ValueError(f"dearer={parameter.dearer!r} is not an end of the range; there are 'low' and 'high'.")


def _listed(values: object) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{values!r} is not a list of at least one value.")
    return tuple(values)
