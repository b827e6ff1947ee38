"""Reads a few gauges out of Prometheus text, fast: vLLM's is 90 KB and comes every second."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping

# Characters. No engine writes longer lines; they bound how long a line of nonsense is read.
_LONGEST_LINE = 4096
# A metric has a line for each engine behind the address, and of those there are not thousands.
_MOST_LINES = 4096


def samples(text: str, names: Iterable[str]) -> dict[str, list[float]]:
    """Return all finite values of the metrics called `names`, one per label set.

    A name that only begins like one of them (`..._by_reason`, `..._created`) is not found. A
    text that is itself a JSON string is read too: llama.cpp sent that in late 2025.

    The event loop waits for this, whatever a server sends. So only the lines that begin with
    one of the names are looked at, and a metric with more of them than any server has is left
    out.
    """
    if text.startswith('"'):
        text = _unquoted(text)
    text = "\n" + text
    found = {name: _values(text, name) for name in names}
    return {name: values for name, values in found.items() if values}


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


def _values(text: str, name: str) -> list[float]:
    values: list[float] = []
    for count, begin in enumerate(_places(text, f"\n{name}")):
        if count == _MOST_LINES:
            return []
        value = _value(text[begin : begin + _LONGEST_LINE].partition("\n")[0])
        if value is not None:
            values.append(value)
    return values


def _places(text: str, mark: str) -> Iterator[int]:
    """Yield where each `mark` of a text ends."""
    at = text.find(mark)
    while at >= 0:
        yield at + len(mark)
        at = text.find(mark, at + len(mark))


def _value(rest: str) -> float | None:
    """Read the value in `rest`, what follows a metric's name in its line."""
    if rest.startswith("{"):
        labels, _, rest = rest.rpartition("}")
        if not labels.endswith(("{", '"', ",")):
            return None  # cut in the middle of a label
    if not rest.startswith((" ", "\t")) or not (fields := rest.split(maxsplit=1)):
        return None
    return _number(fields[0])


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
