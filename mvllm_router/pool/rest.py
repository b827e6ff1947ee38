"""How long a backend that said "busy" is left in peace."""

from __future__ import annotations

# Seconds of rest after the first "busy"; each that follows without an answer between doubles it.
_FIRST = 0.25
# From here on rests grow no longer: 8 seconds.
_MOST_TIMES = 6
# A server may ask for more, but not for ever.
_LONGEST_ASKED = 60.0


class Rest:
    """Asks for a pause on behalf of one backend. Times are monotonic seconds, passed in.

    A server that refuses at once looks idle and would draw all requests to it. So one that
    answers 429 or 503 is left out for as long as it asks (`retry-after`), or else for a short
    time that grows while it has no other answer. Answers to requests that were on their way
    when it began to rest do not make it grow.
    """

    __slots__ = ("_times", "since", "until")

    def __init__(self) -> None:
        self.since = 0.0  # monotonic seconds; the beginning of the rest that ends with `until`
        self.until = 0.0
        self._times = 0  # in a row

    def busy(self, now: float, asked: float | None = None) -> None:
        """Rest from `now`, for `asked` seconds where the server named a time."""
        if self.is_over(now):
            self.since = now
        if self.is_over(now) or not self._times:  # a burst that is refused is one refusal
            self._times = min(self._times + 1, _MOST_TIMES)
        seconds = _FIRST * 2 ** (self._times - 1)
        if asked is not None:
            seconds = min(max(asked, _FIRST), _LONGEST_ASKED)
        self.until = max(self.until, now + seconds)

    def is_over(self, now: float) -> bool:
        return now >= self.until

    def end(self) -> None:
        """End it, whatever was asked for: the server was away and is another one now."""
        self.until = 0.0
        self._times = 0

    def answered(self) -> None:
        """It has given another answer: the next rest begins short again."""
        self._times = 0
