"""Reads a few gauges out of Prometheus text, fast: vLLM's is 90 KB and comes every second."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

_LABELS = r'(?:\{(?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*\})?'


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for `samples` that finds exactly the metrics called `names`.

    A name that only begins like one of them (`..._by_reason`, `..._created`) is not found.
    """
    choice = "|".join(re.escape(name) for name in names)
    return re.compile(rf"^({choice}){_LABELS}[ \t]+(\S+)", re.MULTILINE)


def samples(text: str, wanted: re.Pattern[str]) -> dict[str, list[float]]:
    """Return all finite values of the wanted metrics by name, one per label set.

    A text that is itself a JSON string is read too: llama.cpp sent that in late 2025.
    """
    if text.startswith('"'):
        text = _unquoted(text)
    found: dict[str, list[float]] = {}
    for match in wanted.finditer(text):
        value = _number(match[2])
        if value is not None:
            found.setdefault(match[1], []).append(value)
    return found


def total(found: Mapping[str, list[float]], *names: str) -> float | None:
    """Return the sum over the label sets of the first of `names` that is there."""
    for name in names:
        if name in found:
            return sum(found[name])
    return None


def highest(found: Mapping[str, list[float]], *names: str) -> float | None:
    """Return the largest value of the first of `names` that is there."""
    for name in names:
        if name in found:
            return max(found[name])
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text
