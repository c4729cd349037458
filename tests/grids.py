"""Grids of cases inside one test: `for_each`, written as `pytest.mark.parametrize` is; a failure names its cases."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import pytest

SHOWN = 20  # failed cases that a message names


def for_each(names: str | Sequence[str], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test with every case in turn; report the first failure and which cases failed, of how many.

    For a claim that holds at every point of a grid: a thousand points are one test, not a thousand. Decorators stack
    to a product. The cases share their fixtures: a test that changes one of them needs `parametrize`.
    """
    names, values = ([names] if isinstance(names, str) else list(names)), list(cases)
    assert values, "a loop over no cases proves nothing"
    rows = [dict(zip(names, [case] if len(names) == 1 else case, strict=True)) for case in values]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        rest = [one for one in inspect.signature(test).parameters.values() if one.name not in names]
        every = [{**row, **more} for row in rows for more in getattr(test, "cases", [{}])]

        @functools.wraps(test)
        def looped(**fixtures: Any) -> None:
            failed: dict[str, BaseException] = {}
            for case in every:
                try:
                    innermost(**case, **fixtures)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # raised below
                    failed[", ".join(f"{name}={told(value)}" for name, value in case.items())] = error
            if failed:
                first = next(iter(failed.values()))
                first.add_note("\n".join([f"Failed in {len(failed)} of {len(every)} cases:", *list(failed)[:SHOWN]]))
                raise first

        innermost = getattr(test, "innermost", test)
        looped.innermost, looped.cases = innermost, every  # type: ignore[attr-defined]  # for one more decorator
        looped.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]  # which fixtures pytest brings
        return looped

    return decorate


def told(value: object) -> str:
    """A value as a message shows it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(told, value))})"
    return str(value.value) if isinstance(value, Enum) else getattr(value, "__name__", repr(value))
