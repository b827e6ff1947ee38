"""The states of a server: glyph, tone, and how urgent each is. Colour is never alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mvllm_router.dashboard.document import Document, text
from mvllm_router.dashboard.lines import Line


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown."""

    glyph: str
    tone: str


# In the order in which they are counted and sorted, the best first.
LOOKS = {
    "up": Look("●", "good"),
    "resting": Look("◍", "warn"),
    "drain": Look("◐", "warn"),
    "half-open": Look("◑", "second"),
    "loading": Look("◌", "second"),
    "checking": Look("◌", "second"),
    "open": Look("⊘", "bad"),
    "down": Look("○", "bad"),
}
_UNKNOWN = Look("?", "warn")
_ORDER = list(LOOKS)


def look(state: str) -> Look:
    return LOOKS.get(state, _UNKNOWN)


def state_cell(server: Document) -> Line:
    """Return glyph and word, and how far a change has come: `● up 2/3`."""
    state = text(server, "state")
    shown = look(state)
    word = state or "?"
    progress = text(server, "progress")
    if progress.startswith(f"{word} "):
        word = progress
    return ((f"{shown.glyph} {word}", shown.tone),)


def rank(state: str) -> int:
    return _ORDER.index(state) if state in LOOKS else len(_ORDER)


def counted(servers: Iterable[Document]) -> list[tuple[str, int]]:
    """Return how many servers are in each state, the best state first."""
    counts = Counter(text(server, "state") for server in servers)
    return sorted(counts.items(), key=lambda pair: rank(pair[0]))
