"""What another process may tell simulated engines, one JSON object a line.

    {"inject": {"engine": 0, "fault": "reset", "times": 3, "after_events": 2}}
    {"clear": {"engine": 0}}
    {"counts": {"engine": 0}}

`engine` counts from 0 in the order of the command line. The other fields of "inject" are the
arguments of `SimEngine.inject`. Each command has one line as its answer, in the same order:
{"ok": true}, the counts, or {"error": "..."}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.faults import Fault

Answer = dict[str, Any]


class Commands:
    """Carries out commands for some engines."""

    def __init__(self, engines: Sequence[SimEngine]) -> None:
        self._engines = engines
        self._known: dict[str, Callable[..., Answer]] = {
            "inject": _inject,
            "clear": _clear,
            "counts": _counts,
        }

    def answer(self, line: str) -> Answer:
        """Carry out one command; what is wrong with it is the answer, and nothing happens."""
        try:
            ((word, fields),) = json.loads(line).items()
            engine = self._engine(fields.pop("engine"))
            return self._known[word](engine, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _engine(self, number: int) -> SimEngine:
        if not 0 <= number < len(self._engines):
            raise ValueError(f"there are engines 0 to {len(self._engines) - 1}, not {number}")
        return self._engines[number]


def _inject(engine: SimEngine, *, fault: str, **fields: Any) -> Answer:
    engine.inject(Fault(fault), **fields)
    return {"ok": True}


def _clear(engine: SimEngine) -> Answer:
    engine.clear()
    return {"ok": True}


def _counts(engine: SimEngine) -> Answer:
    names = ("started", "served", "aborted", "failed", "running", "waiting")
    return {name: getattr(engine, name) for name in names}
