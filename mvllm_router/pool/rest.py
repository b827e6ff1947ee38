"""How long a backend that said "busy" is left in peace."""

from __future__ import annotations

# Seconds of rest after the first "busy"; each that follows without an answer between doubles it.
_FIRST = 0.25
_LONGEST = 8.0
# A server may ask for more, but not for ever.
_LONGEST_ASKED = 60.0


class Rest:
    """Asks for a pause on behalf of one backend. Times are monotonic seconds, passed in.

    A server that refuses at once looks idle and would draw all requests to it. So one that
    answers 429 or 503 is left out for as long as it asks (`retry-after`), or else for a short
    time that grows while it has no other answer.
    """

    __slots__ = ("_times", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self._times = 0  # in a row

    def busy(self, now: float, asked: float | None = None) -> None:
        """Rest from `now`, for `asked` seconds where the server named a time."""
        seconds = min(_FIRST * 2 ** min(self._times, 10), _LONGEST)
        if asked is not None:
            seconds = min(asked, _LONGEST_ASKED)
        self._times += 1
        self.until = max(self.until, now + seconds)

    def is_over(self, now: float) -> bool:
        return now >= self.until

    def answered(self) -> None:
        """It has given another answer: the next rest begins short again."""
        self._times = 0
