"""A picture of the times to the first token, by load; it suits light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from medians import Summary

_WIDTH, _ROW, _NAMES, _HEAD = 860, 22, 170, 52
_OURS, _OTHERS, _TEXT = "#2f81f7", "#8b949e", "#6e7681"
_LEAST, _MOST = 10.0, 20_000.0  # milliseconds at the left and at the right of a scale


def svg(results: Mapping[str, Mapping[str, Summary]], note: str) -> str:
    """Return one panel for each load: a bar from the mean to the 99th percentile for each router.

    The scale is logarithmic, the further to the left the better.
    """
    count = max(1, len(results))
    rows = max((len(each) for each in results.values()), default=0)
    height = _HEAD + rows * _ROW + 40
    panel = (_WIDTH - _NAMES) / count
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' font-family="system-ui, sans-serif" font-size="12" fill="{_TEXT}">'
        '<text x="10" y="20" font-weight="bold">Time to first token, from the mean to p99, ms'
        " (logarithmic)</text>"
    ]
    for place, (load, each) in enumerate(results.items()):
        parts += _panel(load, each, _NAMES + place * panel, panel - 20, height)
    for row, name in enumerate(next(iter(results.values()), {})):
        weight = ' font-weight="bold"' if name.startswith("router") else ""
        y = _HEAD + row * _ROW + 13
        parts.append(
            f'<text x="{_NAMES - 10}" y="{y}" text-anchor="end"{weight}>{escape(name)}</text>'
        )
    parts.append(f'<text x="10" y="{height - 8}" font-size="11">{escape(note)}</text></svg>\n')
    return "\n".join(parts)


def _panel(
    load: str, figures: Mapping[str, Summary], left: float, width: float, height: int
) -> Iterator[str]:
    yield f'<text x="{left:.0f}" y="{_HEAD - 10}" font-weight="bold">{escape(load)} %</text>'
    for tick in (10, 100, 1000, 10_000):
        x = left + _share(tick) * width
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 4}" y2="{height - 34}"'
            f' stroke="{_OTHERS}" stroke-opacity="0.3"/>'
            f'<text x="{x:.1f}" y="{height - 24}" font-size="10" text-anchor="middle">{tick}</text>'
        )
    for row, (name, each) in enumerate(figures.items()):
        begin = left + _share(each["ttft mean"]["median"]) * width
        end = left + _share(each["ttft p99"]["median"]) * width
        colour = _OURS if name.startswith("router") else _OTHERS
        yield (
            f'<rect x="{begin:.1f}" y="{_HEAD + row * _ROW + 3}" width="{max(2, end - begin):.1f}"'
            f' height="13" rx="2" fill="{colour}"/>'
        )


def _share(milliseconds: float) -> float:
    """Return a place on the scale, 0 to 1."""
    value = min(max(milliseconds, _LEAST), _MOST)
    return math.log(value / _LEAST) / math.log(_MOST / _LEAST)
