"""One chart: its name, the lines with their newest values, and the plot with its scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.chart import ceiling, plot
from mvllm_router.dashboard.history import History, Point
from mvllm_router.dashboard.lines import Line, Part, plain, width_of
from mvllm_router.dashboard.widgets.paint import Painted

_SCALE = 6  # columns for the numbers of the scale


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart."""

    name: str
    tone: str
    value: Callable[[Point], float | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """What a chart shows; `least` is the lowest that its scale may end at.

    `write` writes the newest value, `scale` the round numbers at the left."""

    title: str
    curves: tuple[Curve, ...]
    write: Callable[[float | None], str]
    scale: Callable[[float], str]
    least: float


PLOTS = (
    Plot(
        "TTFT",
        (
            Curve("p99", "accent", lambda p: p.ttft_p99),
            Curve("p50", "second", lambda p: p.ttft_p50),
        ),
        figures.latency,
        figures.round_time,
        0.01,
    ),
    Plot(
        "tokens/s",
        (Curve("", "good", lambda p: p.tokens),),
        figures.rate,
        figures.round_number,
        10.0,
    ),
    Plot(
        "requests",
        (
            Curve("queued", "warn", lambda p: p.queued),
            Curve("in flight", "second", lambda p: p.in_flight),
        ),
        figures.whole,
        figures.round_number,
        4.0,
    ),
)


def chart_lines(
    shown: Plot, history: History, span: float, now: float, size: tuple[int, int]
) -> list[Line]:
    """Return a chart as lines: a title of one line, and the plot under it.

    Args:
        span: seconds that are shown.
        now: monotonic seconds at the right border.
        size: columns and rows of all of it.
    """
    width, height = size
    columns, rows = width - _SCALE - 2, height - 1
    if columns < 4 or rows < 2:
        return [_title(shown, history, span, width)]
    values = [history.line(curve.value, span, 2 * columns, now) for curve in shown.curves]
    top = ceiling(values, shown.least)
    tones = [curve.tone for curve in shown.curves]
    plotted = plot(values, tones, (columns, rows), top)
    scale = {0: top, rows - 1: 0.0}
    if rows >= 5 and rows % 2:
        scale[rows // 2] = top / 2
    lines = [_title(shown, history, span, width)]
    for number, line in enumerate(plotted):
        label = shown.scale(scale[number]) if number in scale else ""
        lines.append(((f"{label:>{_SCALE}} ", "dim"), *line))
    return lines


def _title(shown: Plot, history: History, span: float, width: int) -> Line:
    parts: list[Part] = [(f" {shown.title}", "strong")]
    for curve in reversed(shown.curves):
        value = shown.write(curve.value(history.now))
        parts.append((f"  {curve.name} {value}" if curve.name else f"  {value}", curve.tone))
    minutes = (f" · {span / 60:.0f} min", "dim")
    return (*parts, minutes) if width_of((*parts, minutes)) < width else tuple(parts)


class Chart(Painted):
    """Shows a plot of the history."""

    def __init__(self, shown: Plot, *, id: str) -> None:
        super().__init__(id=id)
        self._shown = shown

    def draw(self, history: History, span: float, now: float, *, grey: bool) -> None:
        size = (self.size.width, self.size.height)
        lines: Sequence[Line] = [plain("")]
        if size[0] and size[1]:
            lines = chart_lines(self._shown, history, span, now, size)
        self.show(lines, grey=grey)
