"""docs/configuration.md lists every key of the configuration: `python -m tests.test_configuration` writes it."""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from sweep.config.compose import known_keys
from sweep.config.schema import AppConfig

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
HEAD = """# Every key of the configuration

What can be set on a command line as `KEY=VALUE` or in a configuration file; tab completion knows all of it, and
`sweep search NAME --cfg job` prints what a command would run with. This page is written from the code.
"""
PLAIN = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "dict": "mapping"}


def comments(kind: type) -> dict[str, str]:
    """Read the comment behind each field of a dataclass, and those of the base that defines it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        above = ""
        for line in inspect.getsource(base).splitlines():
            field = re.match(r"    (\w+): [^#]*?(?:  # (.*))?$", line)
            if field:
                found[field[1]] = field[2] or above
            above = line.strip().removeprefix("# ") if re.match(r"    # ", line) else ""
    return found


def holds(hint: Any) -> str:
    """Say in words what a key holds."""
    if isinstance(hint, UnionType):
        return " or ".join(dict.fromkeys("null" if one is type(None) else holds(one) for one in get_args(hint)))
    if get_origin(hint) is list:
        return f"list of {holds(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "mapping"
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    return PLAIN[hint.__name__]


def default(field: Field[Any]) -> str:
    value = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
    return f"`{written_value(value)}`"


def written_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(written_value, value))}]"
    if isinstance(value, Enum):
        return str(value.value)
    return {"None": "null", "True": "true", "False": "false", "": "''"}.get(str(value), str(value))


def rows(kind: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, what it holds, its default and its comment, section by section."""
    hints, said = get_type_hints(kind), comments(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from rows(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, holds(hints[field.name]), default(field), said.get(field.name, "")


def written() -> str:
    sections: dict[str, list[str]] = {}
    for key, kind, value, comment in rows(AppConfig):
        sections.setdefault(key.partition(".")[0] if "." in key else "", []).append(
            f"| `{key}` | {kind} | {value} | {comment[:1].upper() + comment[1:]} |".replace("|  |", "| |")
        )
    parts = [HEAD]
    for section, lines in sections.items():
        head = f"## `{section}`\n" if section else "## At the top\n"
        parts.append("\n".join([head, "| key | holds | default | |", "|---|---|---|---|", *lines, ""]))
    return "\n".join(parts)


def test_the_page_is_as_the_code_has_it() -> None:
    assert PAGE.read_text() == written(), "python -m tests.test_configuration writes it"


def test_every_key_that_can_be_completed_is_on_the_page() -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    sections = {key for key in known_keys() if any(one.startswith(f"{key}.") for one in listed)}
    assert set(known_keys()) - sections == listed


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}: {PAGE.write_text(written())} characters\n")
