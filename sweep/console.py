"""The console that commands print to."""

from typing import Any

from rich.console import Console
from rich.text import Text


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
