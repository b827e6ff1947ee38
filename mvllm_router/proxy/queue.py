"""Who waits for room, in which order: plain decisions, no event loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from mvllm_router.policies import Wish
from mvllm_router.pool import Backend

T = TypeVar("T")

# Requests of one kind can be served by the same backends.
Kind = tuple["str | None", frozenset[Backend]]


class Ticket(Generic[T]):
    """One request that waits: what it wishes, where it has been, and how to tell it.

    It waits `since` (monotonic seconds). `number` is its place in the order of arrival; the queue
    gives it.
    """

    __slots__ = ("kind", "number", "since", "tell", "wish")

    def __init__(self, wish: Wish, tried: Iterable[Backend], tell: T, since: float) -> None:
        self.wish = wish
        self.since = since
        self.kind: Kind = (wish.model, frozenset(tried))
        self.tell = tell
        self.number = 0

    @property
    def model(self) -> str | None:
        return self.kind[0]

    @property
    def tried(self) -> frozenset[Backend]:
        return self.kind[1]


class Queue(Generic[T]):
    """First come first served among those of a kind; kinds do not hold each other up.

    Joining, leaving and finding who is first cost the same however many wait.
    """

    __slots__ = ("_joined", "_kinds", "count")

    def __init__(self) -> None:
        self._kinds: dict[Kind, OrderedDict[int, Ticket[T]]] = {}
        self._joined = 0  # all that ever joined
        self.count = 0

    def join(self, ticket: Ticket[T]) -> None:
        """Put `ticket` behind all others."""
        self._joined += 1
        ticket.number = self._joined
        self._kinds.setdefault(ticket.kind, OrderedDict())[ticket.number] = ticket
        self.count += 1

    def leave(self, ticket: Ticket[T]) -> bool:
        """Take `ticket` out; return whether it was still in."""
        waiting = self._kinds.get(ticket.kind)
        if waiting is None or waiting.pop(ticket.number, None) is None:
            return False
        if not waiting:
            del self._kinds[ticket.kind]
        self.count -= 1
        return True

    def first_of_each_kind(self) -> list[Ticket[T]]:
        """Return who would be served next, of each kind; who came first stands first."""
        heads = [next(iter(waiting.values())) for waiting in self._kinds.values()]
        return sorted(heads, key=lambda ticket: ticket.number) if len(heads) > 1 else heads

    def drain(self) -> list[Ticket[T]]:
        """Take all out, in the order of arrival."""
        every = [ticket for waiting in self._kinds.values() for ticket in waiting.values()]
        self._kinds.clear()
        self.count = 0
        return sorted(every, key=lambda ticket: ticket.number)
