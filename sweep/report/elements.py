"""The elements of a section, and the way numbers are written."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.statistics import Interval

NONE = "–"
INK, GREY = "#222222", "#7A7A7A"
TICKS = 11  # pixels


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark on what is missing or to be careful with."""

    text: str
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True, slots=True)
class Heading:
    """A title within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True)
class Commands:
    """Lines to type."""

    lines: Sequence[str]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True, slots=True)
class Details:
    """A long text, folded away."""

    title: str
    text: str
    kind: ClassVar[str] = "details"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to what was asked, in one sentence, and what to know about it, each under a word."""

    lead: str
    points: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "answer"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, side by side."""

    title: str
    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True, slots=True)
class Link:
    """Part of a cell that leads to a file beside the report."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns whose title stands in `words` are set left, all others right. `full`: longer names of columns;
    `folded`: what to click on, for a table that is folded away."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Sequence[Link]]]
    words: Sequence[str] = ()
    full: Mapping[str, str] = field(default_factory=dict)
    folded: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Panel:
    """A plotly drawing as JSON that is safe inside a script element. `alternative` says in words what it shows."""

    title: str
    alternative: str
    json: str
    height: int


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend. mark: dot, open, cross, line, dashed, faint, band, outline, or scale, a colour bar."""

    text: str
    mark: str
    colour: str = GREY


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels side by side, or one below the other where there is no room: each is at least `width` pixels wide."""

    name: str  # unique on the page
    caption: str
    panels: Sequence[Panel]
    keys: Sequence[Key] = ()
    width: int = 320
    kind: ClassVar[str] = "figure"


Block = Text | Notice | Heading | Commands | Details | Answer | Facts | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]


def panel(chart: go.Figure, alternative: str, title: str = "", height: int = 320) -> Panel:
    """Give a chart the page's look and freeze it. Titles and legends are the page's: plotly's are cut on a phone."""
    chart.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 12, "t": 10, "b": 44},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        showlegend=False,
        hoverlabel={"namelength": -1},
        dragmode=False,  # so that a finger scrolls the page
    )
    axis = {"gridcolor": "#ECECEC", "zeroline": False, "linecolor": GREY, "ticks": "outside", "automargin": True}
    chart.update_xaxes(**axis, title_font_size=12, tickfont_size=TICKS, title_standoff=8)
    chart.update_yaxes(**axis, title_font_size=12, tickfont_size=TICKS, title_standoff=10)
    plain = json.dumps(_plain(chart.to_dict()), allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # as JSON escapes, so that no name can end the script element
        plain = plain.replace(character, f"\\u{ord(character):04x}")
    return Panel(title, alternative, plain, height)


def padded(values: Iterable[float | None]) -> list[float]:
    """Return the range of an axis that all panels of a figure share."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = 0.06 * ((high - low) or 1.0)
    return [low - room, high + room]


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """Describe a logarithmic axis with few, plain ticks: 1, 2 and 5 of a decade, or only every decade where it has
    many."""
    known = [value for value in values if 0 < value < np.inf] or [1.0]
    low, high = np.log10(min(known)), np.log10(max(known))
    mantissas = (1, 2, 5) if high - low < 1.2 else (1,)
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = [m * 10.0**power for power in powers for m in mantissas]
    room = 0.06 * ((high - low) or 1.0)
    shown = [tick for tick in ticks if low - room <= np.log10(tick) <= high + room]
    texts = [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in shown]
    return {"type": "log", "tickvals": shown, "ticktext": texts, "range": [low - room, high + room]}


def label(name: str) -> str:
    """Escape a name so that plotly shows it literally: plotly reads a subset of HTML in its texts."""
    return html.escape(name)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction in percent."""
    return NONE if value is None else f"{100 * value:.{digits}f}"


def percent_interval(interval: Interval | None) -> str:
    return NONE if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"


def points(value: float) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def points_interval(interval: Interval | None) -> str:
    return NONE if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def count(value: float | None) -> str:
    """Write a whole number with separators; small ones keep three digits."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listing(names: Sequence[str]) -> str:
    """Join names as in "a, b and c"."""
    if not names:
        return "none"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def parameter_value(value: Any) -> str:
    """Write a value of a configuration as shortly as possible."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def written_parameters(parameters: Mapping[str, Any]) -> str:
    """Write parameters in alphabetical order, as in "a = 1, b = 2"."""
    return ", ".join(f"{name} = {parameter_value(value)}" for name, value in sorted(parameters.items()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
