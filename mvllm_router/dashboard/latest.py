"""The last things of a list that grows."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """What is kept of a list, oldest first; `gone` counts what was before that."""

    def __init__(self, kept: int) -> None:
        self.entries: deque[T] = deque(maxlen=kept)
        self.gone = 0

    def keep(self, entry: T) -> None:
        """Add an entry; where there is no room for it, the oldest one goes."""
        self.gone += len(self.entries) == self.entries.maxlen
        self.entries.append(entry)

    def clear(self) -> None:
        self.gone += len(self.entries)
        self.entries.clear()
