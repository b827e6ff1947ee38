"""Lets the tests here import the benchmarks, which are no package."""

from __future__ import annotations

import sys
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(_BENCHMARKS / "routing"), str(_BENCHMARKS)]
