"""The console that commands print to, and how values are written on it."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

SECTIONS = ("model", "optim", "refinement", "regularization", "training", "data")  # of parameters, as they are listed


def printable(text: str) -> str:
    """Spell out control characters: what a file, a worker or the user said must not steer the terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


class PlainConsole(Console):
    """A console without markup, because names, paths and reasons hold brackets of their own, and with control
    characters spelled out. Rich turns every string into a text by `render_str`, those in tables included."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, markup=False, **options)
        if self.width < 1:  # COLUMNS=0 in the environment, with which rich prints nothing
            self.width = 80

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def is_live(console: Console) -> bool:
    """Tell whether lines on the console may be drawn anew: not in a file, a pipe, a dumb terminal or under NO_COLOR."""
    return console.is_terminal and not console.is_dumb_terminal and not console.no_color


def wrapped(console: Console, text: str) -> list[str]:
    """Break a line between words where a terminal would break it anywhere; a file or pipe gets it whole.

    What follows an indented line stands below its text, or below that of its second column.
    """
    if not console.is_terminal or not text:
        return [text]
    head = re.match(r" *", text) if text[0] != " " else re.match(r" +(\S+(?: \S+)* {2,})?", text)
    hang = " " * (len(head[0]) if head and len(head[0]) < console.width // 2 else 2)
    return textwrap.wrap(printable(text), console.width, subsequent_indent=hang, break_on_hyphens=False)


def say(text: str, console: Console) -> None:
    """Print a sentence, broken between words where the window is narrower."""
    for line in wrapped(console, text):
        console.print(line, highlight=False)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Shorten dotted names to their last parts where these are not ambiguous.

    >>> short_names(["optim.lr", "model.scheme", "model.width", "data.width"])
    {'optim.lr': 'lr', 'model.scheme': 'scheme', 'model.width': 'model.width', 'data.width': 'data.width'}
    """
    keys = list(dict.fromkeys(keys))
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    counts = Counter(last.values())
    return {key: last[key] if counts[last[key]] == 1 else key for key in keys}


def short_value(value: Any) -> str:
    """Write a parameter's value with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def varying(parameters: Sequence[dict[str, Any]]) -> list[str]:
    """List the keys whose values differ between these, or that some do not have; all keys of a single one.

    What the network is comes first, and how it is trained after it: there may be no room for the last ones.
    """
    values: dict[str, set[str]] = {}
    for one in parameters:
        for key, value in one.items():
            values.setdefault(key, set()).add(repr(value))
    missing = {key for key in values if not all(key in one for one in parameters)}
    found = [key for key in values if len(values[key]) > 1 or key in missing or len(parameters) == 1]
    return sorted(found, key=lambda key: SECTIONS.index(key.split(".")[0]) if key.split(".")[0] in SECTIONS else -1)


def fitted(parts: Sequence[str], width: int) -> str:
    """Join as many parts as fit into the width, whole ones only, and mark that there are more.

    >>> fitted(["trial 3", "lr=0.1", "nodes=4"], width=18)
    'trial 3 lr=0.1 …'
    """
    for count in range(len(parts), 1, -1):
        line = " ".join([*parts[:count], *["…"] * (count < len(parts))])
        if len(line) <= width:
            return line
    return parts[0]
