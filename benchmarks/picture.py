"""A picture of the two figures that matter most, for the README."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_CHARTS = (("small", "CPU µs per request"), ("event", "CPU µs per streamed event"))
_WIDTH, _ROW, _BAR, _NAMES = 860, 30, 230, 120
_OURS, _OTHERS, _TEXT = "#2f81f7", "#8b949e", "#6e7681"

Results = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def svg(results: Results, machine: str) -> str:
    """Return bars for each proxy, the shorter the better; they suit light and dark pages."""
    charts = [(results[key], title) for key, title in _CHARTS if key in results]
    height = 60 + _ROW * max((len(figures) for figures, _ in charts), default=0) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' font-family="system-ui, sans-serif" font-size="14" fill="{_TEXT}">'
    ]
    for number, (figures, title) in enumerate(charts):
        parts += _chart(figures, title, number * _WIDTH // 2)
    parts.append(f'<text x="10" y="{height - 10}" font-size="11">{escape(machine)}</text></svg>\n')
    return "\n".join(parts)


def _chart(
    figures: Mapping[str, Mapping[str, Mapping[str, float]]], title: str, x: int
) -> list[str]:
    medians = {name: each["us"]["median"] for name, each in figures.items()}
    longest = max(medians.values())
    lines = [f'<text x="{x + 10}" y="28" font-weight="bold">{title}</text>']
    for row, (name, value) in enumerate(sorted(medians.items(), key=lambda item: item[1])):
        y = 46 + row * _ROW
        length = max(2, round(value / longest * _BAR))
        colour = _OURS if name == "router" else _OTHERS
        shown = "mvllm-router" if name == "router" else name
        weight = ' font-weight="bold"' if name == "router" else ""
        lines += [
            f'<text x="{x + _NAMES}" y="{y + 14}" text-anchor="end"{weight}>{escape(shown)}</text>',
            f'<rect x="{x + _NAMES + 8}" y="{y}" width="{length}" height="19" fill="{colour}"/>',
            f'<text x="{x + _NAMES + 14 + length}" y="{y + 14}">{value:.1f}</text>',
        ]
    return lines
