"""The last requests, as they ended: what each was, where it went, and how long it took.

It is fed once per request on the data path. So what is kept is a plain tuple of what exists anyway,
and everything else is worked out when somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mvllm_router.pool.backend import Backend

KEPT = 500
# Characters that are kept of what a client chose.
LONGEST = 256
# The status of a request whose client left before the answer's end; nginx calls it so.
CLIENT_LEFT = 499


class Ended(NamedTuple):
    """One request. Times are monotonic seconds.

    `failures` say for each attempt that gave no answer why; `tried` are the backends it was at,
    each once. `why` is why the one that answered was chosen; None where none did.
    `seconds_to_first` is set for a stream. `tokens` are those of the prompt and of the answer,
    where the answer told them.
    """

    arrived: float
    ended: float
    id: str
    method: str
    path: str
    model: str | None
    status: int
    key: str
    client: str
    tried: Sequence[Backend]
    failures: Sequence[str]
    why: str | None
    seconds_to_first: float | None
    tokens: tuple[int, int] | None
    error: str

    @property
    def attempts(self) -> list[tuple[Backend, str]]:
        """Each attempt: where it went, and why it gave no answer; "" for the one that did."""
        tried = list(self.tried)
        one_is_open = self.answered or len(self.failures) < len(tried)
        outcomes = [*self.failures, ""] if one_is_open else self.failures
        # Only a backend that is the first and the only one is asked again.
        tried = tried[:1] * max(0, len(outcomes) - len(tried)) + tried
        return list(zip(tried, outcomes, strict=False))

    @property
    def answered(self) -> bool:
        """Whether what the client got is the answer of a backend."""
        return self.why is not None


Kept = tuple[
    float,
    float,
    str,
    str,
    str,
    "str | None",
    int,
    str,
    str,
    Sequence[Backend],
    Sequence[str],
    "str | None",
    "float | None",
    "tuple[int, int] | None",
    str,
]


class Requests:
    """The last `KEPT` requests in the order in which they ended; they are numbered from 1 on."""

    __slots__ = ("_ring", "newest")

    def __init__(self) -> None:
        self._ring: deque[Kept] = deque(maxlen=KEPT)
        self.newest = 0  # the number of the newest

    def add(self, ended: Kept) -> None:
        """Keep a request: a tuple of the fields of `Ended`, in their order."""
        self.newest += 1
        self._ring.append(ended)

    def after(self, number: int, limit: int) -> list[tuple[int, Ended]]:
        """Return the newest of those behind `number`, `limit` at most, the oldest first."""
        count = max(0, min(self.newest - number, limit, len(self._ring)))
        first = self.newest - count + 1
        kept = list(self._ring)[len(self._ring) - count :]
        return [(first + n, Ended(*one)) for n, one in enumerate(kept)]
