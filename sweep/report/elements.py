"""The elements of a section, and the way numbers are written."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.statistics import Interval

NONE = "–"
# Okabe & Ito 2008: told apart with any common colour vision, and in grey.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B"]
INK, GREY = "#222222", "#9A9A9A"


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
class Link:
    """A cell that leads to a file beside the report."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns whose title stands in `words` are set left, all others right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    words: Sequence[str] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure as JSON that is safe inside a script element."""

    name: str  # unique on the page
    caption: str
    json: str
    height: int
    kind: ClassVar[str] = "figure"


Block = Text | Notice | Heading | Commands | Details | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]


def figure(name: str, caption: str, chart: go.Figure, height: int = 380, *, legend: bool = False) -> Figure:
    """Give a chart the page's look and freeze it."""
    chart.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": chart.layout.margin.t or 36, "b": 88 if legend else 52},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        hoverlabel={"namelength": -1},
    )
    axis = {"gridcolor": "#ECECEC", "zeroline": False, "linecolor": GREY, "ticks": "outside", "automargin": True}
    chart.update_xaxes(**axis, title_font_size=13)
    chart.update_yaxes(**axis, title_font_size=13, title_standoff=14)
    chart.update_annotations(font_size=13)
    plain = json.dumps(_plain(chart.to_dict()), allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # as JSON escapes, so that no name can end the script element
        plain = plain.replace(character, f"\\u{ord(character):04x}")
    return Figure(name, caption, plain, height)


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
