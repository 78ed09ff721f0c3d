"""Charts of a report: their description as plain data, and their drawing as inline SVG.

A chart takes its colours from the page: text and lines have `currentColor` or a class, so one drawing suits a light
page, a dark one and paper. It has no style attributes and no scripts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

Point = tuple[float, float]
Tick = tuple[float, str]

_WIDTH, _HEIGHT = 300, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 16, 40
_TICKS = 5
_STYLES = 6
"""Number of classes of series: s0 … s5."""


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    """Name in the legend."""

    points: Sequence[Point]
    """Points from left to right."""

    dots: bool = True
    """Draw a dot at each point."""

    style: int | Literal["guide"] = 0
    """Number of the colour and the dashes; "guide" is a thin dashed line."""


@dataclass(frozen=True)
class Bars:
    """Bars of a chart, from 0."""

    name: str
    """Name in the legend."""

    bars: Sequence[tuple[float, float, float]]
    """(left edge, right edge, height) of each bar."""

    style: int = 0
    """Number of the colour."""


@dataclass(frozen=True)
class Chart:
    """One panel, with its axes."""

    title: str
    """Heading above the panel."""

    across: str
    """Label of the horizontal axis."""

    up: str
    """Label of the vertical axis."""

    series: Sequence[Line | Bars]
    """Lines and bars, drawn in this order."""

    logarithmic: bool = False
    """Both axes are logarithmic; all values are above 0."""

    ticks: Sequence[Tick] | None = None
    """Labels of the horizontal axis; round numbers when None."""

    ends: Point | None = None
    """Ends of the horizontal axis; those of the values when None."""

    marks: Sequence[Tick] = ()
    """Vertical lines with a label."""

    same_scale: bool = False
    """Both axes have the same ends."""

    note: str = ""
    """Words below the panel."""

    @property
    def named(self) -> list[Line | Bars]:
        """Series of the legend; none if there is one alone."""
        return list(self.series) if len(self.series) > 1 else []


@dataclass(frozen=True)
class Span:
    """A value of a bar chart."""

    name: str
    """Name beside the bar."""

    value: float
    """End of the bar."""

    low: float
    """Lower end of its interval."""

    high: float
    """Upper end of its interval."""


def svg_of(chart: Chart, identity: str) -> str:
    """A chart as an `<svg>` with a title and a description.

    Parameters
    ----------
    chart
        The chart; it has at least one point or bar.
    identity
        Prefix of the ids of the title and the description, unique in the page.
    """
    across, up = _axes(chart)
    parts = [
        _opening(f'viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart"', identity, chart.title, _described(chart)),
        *_grid(chart, across, up),
    ]
    for one in chart.series:
        parts.extend(_bars(one, across, up) if isinstance(one, Bars) else _line(one, across, up))
    return "".join([*parts, *_marks(chart, across), "</svg>"])


def svg_of_spans(title: str, spans: Sequence[Span], identity: str) -> str:
    """Horizontal bars from 0 with an interval across each end, the first one emphasised, as wide as the page allows.

    Parameters
    ----------
    title
        Title for readers who cannot see the chart.
    spans
        The bars, from top to bottom.
    identity
        Prefix of the ids of the title and the description, unique in the page.
    """
    top = max(max(span.high, span.value) for span in spans) or 1.0
    described = "; ".join(f"{one.name} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in spans)
    parts = [_opening(f'width="100%" height="{44 * len(spans)}" class="spans"', identity, title, described)]
    for number, one in enumerate(spans):
        y = 44 * number
        width, low, high = (f"{100 * max(value, 0.0) / top:.2f}%" for value in (one.value, one.low, one.high))
        first = ' class="first"' if number == 0 and len(spans) > 1 else ""
        parts.append(
            f'<g{first}><text x="0" y="{y + 14}">{escape(_short(one.name))}</text>'
            f'<text x="100%" y="{y + 14}" text-anchor="end">{one.value:.4f}</text>'
            f'<rect class="track" x="0" y="{y + 21}" width="100%" height="12" rx="2"/>'
            f'<rect class="bar" x="0" y="{y + 21}" width="{width}" height="12" rx="2"/>'
        )
        if one.high > one.low:
            parts.append(
                f'<line class="under" x1="{low}" x2="{high}" y1="{y + 27}" y2="{y + 27}"/>'
                f'<line class="interval" x1="{low}" x2="{high}" y1="{y + 27}" y2="{y + 27}"/>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _opening(attributes: str, identity: str, title: str, description: str) -> str:
    return (
        f'<svg {attributes} role="img" aria-labelledby="{identity}-title {identity}-desc" focusable="false">'
        f'<title id="{identity}-title">{escape(title)}</title>'
        f'<desc id="{identity}-desc">{escape(description)}</desc>'
    )


def _short(name: str, longest: int = 34) -> str:
    """The name, without its middle if it is too long."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def _described(chart: Chart) -> str:
    """Words on the series, for readers who cannot see them."""
    texts = [f"{chart.up} by {chart.across}."]
    for one in chart.series:
        if isinstance(one, Line) and one.style == "guide":
            continue
        points = one.points if isinstance(one, Line) else [((low + high) / 2, up) for low, high, up in one.bars]
        values = [up for _, up in points]
        texts.append(
            f"{one.name}: {len(points)} values from {_figure(values[0])} to {_figure(values[-1])}, "
            f"the least {_figure(min(values))}, the most {_figure(max(values))}."
        )
    return " ".join([*texts, *(f"{label}." for _, label in chart.marks)])


@dataclass(frozen=True)
class _Axis:
    """Positions of values along one side of the panel."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool
    ticks: list[Tick] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(one) if self.logarithmic else one for one in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)


def _axes(chart: Chart) -> tuple[_Axis, _Axis]:
    xs, ys = _extent(chart)
    if chart.same_scale:
        xs = ys = [*xs, *ys]
    bars = any(isinstance(one, Bars) for one in chart.series)
    across = chart.ends or _ends(xs, chart.logarithmic, padded=chart.same_scale)
    up = _ends(ys, chart.logarithmic, padded=not bars or chart.same_scale)
    if bars:
        up = 0.0, up[1] * 1.04 or 1.0
    ticks = (
        list(chart.ticks) if chart.ticks is not None else _ticks(*across, chart.logarithmic, whole=not chart.same_scale)
    )
    return (
        _Axis(*across, _LEFT, _WIDTH - _RIGHT, chart.logarithmic, ticks),
        _Axis(*up, _HEIGHT - _BOTTOM, _TOP, chart.logarithmic, _ticks(*up, chart.logarithmic)),
    )


def _extent(chart: Chart) -> tuple[list[float], list[float]]:
    """All horizontal and all vertical values."""
    xs: list[float] = []
    ys: list[float] = []
    for one in chart.series:
        if isinstance(one, Bars):
            xs += [edge for low, high, _ in one.bars for edge in (low, high)]
            ys += [height for _, _, height in one.bars]
        else:
            xs += [x for x, _ in one.points]
            ys += [y for _, y in one.points]
    return xs, ys


def _ends(values: Sequence[float], logarithmic: bool, padded: bool) -> Point:
    """Ends of an axis; the padding keeps small noise from looking large."""
    low, high = min(values), max(values)
    if logarithmic:
        return low, high if high > low else 10 * low
    if padded:
        room = max(0.12 * (high - low), 0.06 * abs(high), 1e-3)
        low, high = max(0.0, low - room) if low >= 0 else low - room, high + room
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, logarithmic: bool, whole: bool = False) -> list[Tick]:
    """Round numbers within an axis, with their labels."""
    if logarithmic:
        factors = (1,) if high >= 100 * low else (1, 2, 5)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        return [(value, _figure(value)) for value in values if low <= value <= high]
    raw = (high - low) / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    step = max(step, 1.0) if whole else step
    digits = max(0, -math.floor(math.log10(step)))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:,.{digits}f}") for number in numbers]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _grid(chart: Chart, across: _Axis, up: _Axis) -> Iterator[str]:
    for value, label in up.ticks:
        y = up(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(_compact(label))}</text>'
    for value, label in across.ticks:
        x = across(value)
        anchor = "end" if x > _WIDTH - _RIGHT - 14 and len(label) > 5 else "middle"
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="{anchor}">{escape(label)}</text>'
    base = _HEIGHT - _BOTTOM
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    yield f'<text class="label" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 7}" text-anchor="end">{escape(chart.across)}</text>'


def _compact(label: str) -> str:
    """A label of the vertical axis in at most seven characters: "1.2 M" for "1,200,000"."""
    if len(label) <= 7 or "." in label:
        return label
    return f"{float(label.replace(',', '')) / 1e6:g} M"


def _bars(one: Bars, across: _Axis, up: _Axis) -> Iterator[str]:
    yield f'<g class="fill s{one.style % _STYLES}">'
    for low, high, height in one.bars:
        left, right, top = across(low), across(high), up(height)
        gap = 0.6 if right - left > 3 else 0.0
        if height > 0:
            yield f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left - gap:.1f}" height="{up(0) - top:.1f}"/>'
    yield "</g>"


def _line(one: Line, across: _Axis, up: _Axis) -> Iterator[str]:
    placed = [f"{across(x):.1f},{up(y):.1f}" for x, y in one.points]
    if one.style == "guide":
        yield f'<polyline class="guide" points="{" ".join(placed)}"/>'
        return
    yield f'<g class="stroke s{one.style % _STYLES}"><polyline points="{" ".join(placed)}"/>'
    if one.dots:
        yield "".join('<circle cx="{}" cy="{}" r="2.6"/>'.format(*place.split(",")) for place in placed)
    yield "</g>"


def _marks(chart: Chart, across: _Axis) -> Iterator[str]:
    for value, label in chart.marks:
        x = across(value)
        anchor, shift = ("end", -4) if x > _WIDTH / 2 else ("start", 4)
        yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 12}" y2="{_HEIGHT - _BOTTOM}"/>'
        yield f'<text x="{x + shift:.1f}" y="{_TOP - 4}" text-anchor="{anchor}">{escape(label)}</text>'
