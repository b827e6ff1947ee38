"""What several rounds come to: the figures of each, and of all of them the median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Figures = dict[str, float]  # of one round, by name
Summary = dict[str, dict[str, float]]  # median, low and high of each figure


def summary(samples: Sequence[Figures]) -> Summary:
    """Return median, lowest and highest of each figure."""
    return {
        key: {
            "median": round(statistics.median(values), 3),
            "low": round(min(values), 3),
            "high": round(max(values), 3),
        }
        for key in samples[0]
        for values in [[sample[key] for sample in samples]]
    }
